package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"walkey/internal/child"
	"walkey/internal/freeport"
)

const (
	settingsFile = "walkey.conf"
	// maxSocketDir bounds the folder of a UNIX socket: with the socket's own name it has to stay below the system's 108 bytes.
	maxSocketDir = 85
)

// PostgresOptions says how a Postgres is to be started. The zero value is a server in a temporary folder.
type PostgresOptions struct {
	// Dir holds the server's files. One that has held a server goes on with its data. Empty means a temporary folder that Stop
	// removes. Started by root, the server runs as user postgres, who must be able to reach Dir.
	Dir string

	// Port is the TCP port on 127.0.0.1; 0 means a free one.
	Port int

	// Settings are those of postgresql.conf, over the defaults: wal_level=logical, 20 WAL senders and slots, fsync=off.
	Settings map[string]string

	// Log takes the server's log; nil means that only its end is kept.
	Log io.Writer
}

// Postgres is a private server. Its methods may be called at the same time by several goroutines.
type Postgres struct {
	install  installation
	user     *syscall.Credential
	folder   *folder
	log      *logBuffer
	settings map[string]string

	mu      sync.Mutex
	port    int            // guarded by mu while Start looks for one, then unchanged
	process *child.Process // guarded by mu
}

// StartPostgres starts a server of the newest installed version that Walkey works with, and returns when it takes connections.
// The variable WALKEY_POSTGRES_BIN names the folder of another one's programs. [ErrNotInstalled] when there is none.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	install, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	user, err := unprivileged()
	if err != nil {
		return nil, err
	}
	f, err := openFolder(o.Dir, user)
	if err != nil {
		return nil, fmt.Errorf("folder for Postgres: %w", err)
	}
	p := &Postgres{install: install, user: user, folder: f, log: &logBuffer{next: o.Log}, settings: o.Settings, port: o.Port}
	if err := p.create(ctx, o.Port == 0); err != nil {
		return nil, errors.Join(fmt.Errorf("start Postgres %s in %s: %w", install.version, f.path, err), f.remove())
	}
	return p, nil
}

// create makes the data folder when it is missing and starts the server, on another port when anyPort and the first is taken.
func (p *Postgres) create(ctx context.Context, anyPort bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := os.Stat(filepath.Join(p.data(), "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := newData(ctx, p.install, p.user, p.data()); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		if anyPort {
			port, err := freeport.Pick()
			if err != nil {
				return err
			}
			p.port = port
		}
		if err := p.configure(); err != nil {
			return err
		}
		err := p.start(ctx)
		if err == nil || !anyPort || try == portTries || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

func (p *Postgres) data() string { return filepath.Join(p.folder.path, "data") }

// configure writes the settings to a file of their own, included by postgresql.conf, so that ALTER SYSTEM goes over them.
func (p *Postgres) configure() error {
	settings := map[string]string{
		"listen_addresses":           freeport.Host,
		"port":                       strconv.Itoa(p.port),
		"unix_socket_directories":    p.SocketDir(),
		"wal_level":                  "logical",
		"max_wal_senders":            "20",
		"max_replication_slots":      "20",
		"max_connections":            "200",
		"fsync":                      "off",
		"timezone":                   "UTC",
		"log_timezone":               "UTC",
		"logging_collector":          "off",
		"dynamic_shared_memory_type": "mmap", // in the folder: a container's /dev/shm is small, and a killed server leaves files there
	}
	maps.Copy(settings, p.settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	path := filepath.Join(p.data(), settingsFile)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	if err := give(path, p.user); err != nil {
		return err
	}
	main := filepath.Join(p.data(), "postgresql.conf")
	text, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	include := "include = '" + settingsFile + "'\n"
	if strings.Contains(string(text), include) {
		return nil
	}
	return os.WriteFile(main, append(text, "\n"+include...), 0o600)
}

// start runs the server on the folder as it is and waits until it is ready. The caller holds mu.
func (p *Postgres) start(ctx context.Context) error {
	p.log.reset()
	process, err := child.Start(child.Command{
		Path:   filepath.Join(p.install.bin, "postgres"),
		Args:   []string{"-D", p.data()},
		Dir:    p.folder.path,
		Env:    serverEnv(),
		Output: p.log,
		User:   p.user,
		// Immediate shutdown: the postmaster ends its backends too, which a killed one leaves to notice by themselves.
		OnParentDeath: syscall.SIGQUIT,
	})
	if err != nil {
		return err
	}
	if err := waitReady(ctx, process, func() bool { return p.ready(process.PID()) }); err != nil {
		log := p.log.String()
		if strings.Contains(log, "Address already in use") {
			err = errors.Join(errPortTaken, err)
		}
		return errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, log), process.Kill())
	}
	p.process = process
	return nil
}

// ready reads what the postmaster itself tells pg_ctl: line 1 of postmaster.pid is its process id, line 8 its state, "standby" for one
// that takes connections to read.
func (p *Postgres) ready(pid int) bool {
	text, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

// URL leads to the database postgres as the superuser postgres, without a password.
func (p *Postgres) URL() string { return p.DatabaseURL("postgres") }

// DatabaseURL leads to the database of that name.
func (p *Postgres) DatabaseURL(name string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: freeport.Host + ":" + strconv.Itoa(p.Port()), Path: "/" + name, RawQuery: "sslmode=disable"}
	return u.String()
}

// SocketDir is the folder of the server's UNIX socket (a URL's "host" parameter). Empty when its path would be too long.
func (p *Postgres) SocketDir() string {
	if len(p.folder.path) > maxSocketDir {
		return ""
	}
	return p.folder.path
}

// Port is the server's TCP port; a restart keeps it.
func (p *Postgres) Port() int { return p.port }

// Version is the major version: 15.
func (p *Postgres) Version() int { return p.install.major }

// Bin is the folder of the server's programs: psql, pg_basebackup and so on.
func (p *Postgres) Bin() string { return p.install.bin }

// Log is the end of what the server logged since it was last started.
func (p *Postgres) Log() string { return p.log.String() }

// PID is the process id of the postmaster; the last one's when the server is down.
func (p *Postgres) PID() int { return p.current().PID() }

func (p *Postgres) current() *child.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process
}

// Done is closed when the server has ended that runs at the moment; a restart starts another one.
func (p *Postgres) Done() <-chan struct{} { return p.current().Done() }

// Signal sends a signal to the postmaster. SIGSTOP there holds back new connections only: backends are processes of their own.
func (p *Postgres) Signal(s os.Signal) error { return p.current().Signal(s) }

// Reload makes the server read its settings again. It does not wait until every backend has.
func (p *Postgres) Reload(context.Context) error {
	if err := p.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	return nil
}

// Shutdown ends the server and keeps its folder for [Postgres.Restart]. Mode "fast" writes everything down and waits for what
// walsenders still have to send; "immediate" is a crash: the next start recovers. It returns with the server gone; the error says
// that it had to be killed when ctx ended.
func (p *Postgres) Shutdown(ctx context.Context, mode string) error {
	s, ok := map[string]syscall.Signal{"fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("unknown way to shut Postgres down: %q", mode)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.Stop(ctx, s)
}

// Restart starts the server again on the same folder and port. One that runs is shut down fast first.
func (p *Postgres) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.process.Stop(ctx, syscall.SIGINT); err != nil {
		return fmt.Errorf("restart Postgres: %w", err)
	}
	for {
		err := p.start(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errPortTaken) || pause(ctx, 20*pollInterval) != nil {
			return fmt.Errorf("restart Postgres: %w", err)
		}
	}
}

// Stop ends the server. One in a temporary folder goes at once, together with the folder; any other is shut down fast, and
// immediately after five seconds or when ctx ends, because a walsender whose client is gone can hold a fast shutdown up.
func (p *Postgres) Stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.folder.temporary {
		quick, cancel := context.WithTimeout(ctx, stopTimeout)
		defer cancel()
		if p.process.Running() {
			_ = errors.Join(p.process.Signal(syscall.SIGCONT), p.process.Signal(syscall.SIGINT)) // it may have ended just now
			select {
			case <-p.process.Done():
			case <-quick.Done():
			}
		}
	}
	hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopTimeout)
	defer cancel()
	return errors.Join(p.process.Stop(hard, syscall.SIGQUIT), p.folder.remove())
}

// StopTimeout is long enough for any server's Stop.
const StopTimeout = 4 * stopTimeout
