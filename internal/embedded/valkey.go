package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"walkey/internal/child"
	"walkey/internal/freeport"
)

// pingTimeout bounds one question whether a server answers.
const pingTimeout = time.Second

// ValkeyOptions says how a Valkey is to be started. The zero value is a server without persistence in a temporary folder.
type ValkeyOptions struct {
	// Dir holds the server's files. Empty means a temporary folder that Stop removes.
	Dir string

	// Port is the TCP port on 127.0.0.1; 0 means a free one.
	Port int

	// Settings are directives of valkey.conf with their arguments as they stand there, over the defaults: save "", appendonly no.
	// The default user must be allowed INFO, with requirepass as the password.
	Settings map[string]string

	// Lines are further lines of the configuration, for directives that stand there more than once.
	Lines []string

	// Sentinel starts the program as a sentinel, which knows few of the settings.
	Sentinel bool

	// Log takes the server's log; nil means that only its end is kept.
	Log io.Writer
}

// Valkey is a private server. Its methods may be called at the same time by several goroutines.
type Valkey struct {
	path     string
	folder   *folder
	log      *logBuffer
	settings map[string]string
	lines    []string
	sentinel bool

	mu      sync.Mutex
	port    int            // guarded by mu while Start looks for one, then unchanged
	process *child.Process // guarded by mu
}

// StartValkey starts the installed valkey-server, or a redis-server 7 or later with a warning in the log, and returns when it
// answers. The variable WALKEY_VALKEY_BIN names another program. [ErrNotInstalled] when there is none.
func StartValkey(ctx context.Context, o ValkeyOptions) (*Valkey, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	path, warning, err := findValkey(ctx)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(o.Dir, nil)
	if err != nil {
		return nil, fmt.Errorf("folder for Valkey: %w", err)
	}
	v := &Valkey{path: path, folder: f, log: &logBuffer{next: o.Log}, settings: maps.Clone(o.Settings), lines: o.Lines, sentinel: o.Sentinel, port: o.Port}
	if warning != "" {
		_, _ = v.log.Write([]byte(warning))
	}
	if err := v.create(ctx, o.Port == 0); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s in %s: %w", path, f.path, err), f.remove())
	}
	return v, nil
}

func (v *Valkey) create(ctx context.Context, anyPort bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for try := 1; ; try++ {
		if anyPort {
			port, err := freeport.Pick()
			if err != nil {
				return err
			}
			v.port = port
		}
		if err := v.configure(); err != nil {
			return err
		}
		err := v.start(ctx)
		if err == nil || !anyPort || try == portTries || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

func (v *Valkey) configPath() string { return filepath.Join(v.folder.path, "valkey.conf") }

func (v *Valkey) configure() error {
	settings := map[string]string{
		"bind":      freeport.Host,
		"port":      strconv.Itoa(v.port),
		"dir":       strconv.Quote(v.folder.path),
		"daemonize": "no",
	}
	if !v.sentinel {
		settings["save"], settings["appendonly"] = "", "no"
	}
	maps.Copy(settings, v.settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if value == "" {
			value = `""`
		}
		fmt.Fprintf(&b, "%s %s\n", name, value)
	}
	for _, line := range v.lines {
		b.WriteString(line + "\n")
	}
	return os.WriteFile(v.configPath(), []byte(b.String()), 0o600)
}

// set changes settings of the server that runs, and of those that Restart starts.
func (v *Valkey) set(ctx context.Context, settings map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.settings == nil {
		v.settings = map[string]string{}
	}
	for name, value := range settings {
		if _, err := v.Ask(ctx, "CONFIG", "SET", name, value); err != nil {
			return err
		}
		v.settings[name] = value
	}
	return v.configure()
}

// start runs the server and waits until it answers. The caller holds mu.
func (v *Valkey) start(ctx context.Context) error {
	args := []string{v.configPath()}
	if v.sentinel {
		args = append(args, "--sentinel")
	}
	process, err := child.Start(child.Command{
		Path: v.path, Args: args, Dir: v.folder.path, Env: serverEnv(), Output: v.log,
	})
	if err != nil {
		return err
	}
	if err := waitReady(ctx, process, func() bool { return v.serves(process.PID()) }); err != nil {
		log := v.log.String()
		if strings.Contains(log, "Address already in use") {
			err = errors.Join(errPortTaken, err)
		}
		return errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, log), process.Kill())
	}
	v.process = process
	return nil
}

// serves tells whether the process of that id serves commands on our port. While it loads its data it does not, and another server
// may have been quicker to take the port.
func (v *Valkey) serves(pid int) bool {
	if v.sentinel { // which knows no QUIT
		ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
		defer cancel()
		info, err := v.Ask(ctx, "INFO", "server")
		return err == nil && strings.Contains(info[0], fmt.Sprintf("\r\nprocess_id:%d\r\n", pid))
	}
	conn, err := net.DialTimeout("tcp", v.Addr(), pingTimeout)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(pingTimeout)); err != nil {
		return false
	}
	request := "INFO server\r\nINFO persistence\r\nQUIT\r\n"
	if password := v.settings["requirepass"]; password != "" {
		request = "AUTH " + password + "\r\n" + request
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return false
	}
	answer, err := io.ReadAll(conn)
	return err == nil && strings.Contains(string(answer), fmt.Sprintf("\r\nprocess_id:%d\r\n", pid)) &&
		strings.Contains(string(answer), "\r\nloading:0\r\n")
}

// Host is the server's address without the port.
func (v *Valkey) Host() string { return freeport.Host }

// Port is the server's TCP port; a restart keeps it.
func (v *Valkey) Port() int { return v.port }

// Addr is host and port: 127.0.0.1:6379.
func (v *Valkey) Addr() string { return net.JoinHostPort(freeport.Host, strconv.Itoa(v.port)) }

// Dir is the folder of the server's files.
func (v *Valkey) Dir() string { return v.folder.path }

// Log is the end of what the server logged.
func (v *Valkey) Log() string { return v.log.String() }

// PID is the server's process id; the last one's when it is down.
func (v *Valkey) PID() int { return v.current().PID() }

func (v *Valkey) current() *child.Process {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process
}

// Done is closed when the server has ended that runs at the moment; a restart starts another one.
func (v *Valkey) Done() <-chan struct{} { return v.current().Done() }

// Signal sends a signal to the server: SIGSTOP freezes it, SIGCONT lets it go on.
func (v *Valkey) Signal(s os.Signal) error { return v.current().Signal(s) }

// Kill sends SIGKILL and waits for the end. The folder stays for [Valkey.Restart].
func (v *Valkey) Kill() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process.Kill()
}

// Restart starts the server again on the same folder and port. One that runs is ended in good order first.
func (v *Valkey) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.process.Stop(ctx, syscall.SIGTERM); err != nil {
		return fmt.Errorf("restart Valkey: %w", err)
	}
	v.log.reset()
	for {
		err := v.start(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errPortTaken) || pause(ctx, 20*pollInterval) != nil {
			return fmt.Errorf("restart Valkey: %w", err)
		}
	}
}

// Stop ends the server, which saves its data first when its settings say so, and removes a temporary folder. It kills a server
// that has not ended after five seconds or when ctx ends, and says so.
func (v *Valkey) Stop(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return errors.Join(v.process.Stop(ctx, syscall.SIGTERM), v.folder.remove())
}
