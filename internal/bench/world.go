package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/child"
	"walkey/internal/embedded"
	"walkey/internal/stack"
)

// patience is how long the run waits for what must come.
const patience = 60 * time.Second

// Settings for a server with backlogs: what is measured is no checkpoint.
var postgresSettings = map[string]string{"max_wal_size": "16GB", "checkpoint_timeout": "1h", "shared_buffers": "512MB", "log_min_messages": "fatal", "autovacuum": "off"}

// world is a Postgres, a Valkey, and what runs upon them.
type world struct {
	b        *bench
	postgres *embedded.Postgres
	valkey   *embedded.Valkey
	dir      string
	cleanup  []func() error // from the last to the first
}

// within starts servers with the schema in them, runs f, and ends everything.
func (b *bench) within(ctx context.Context, f func(*world) error) (err error) {
	w := &world{b: b}
	defer func() { err = errors.Join(err, w.close()) }()
	var remove func() error
	if w.dir, remove, err = embedded.TempDir(); err != nil {
		return err
	}
	w.onClose(remove)
	if w.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{Settings: postgresSettings}); err != nil {
		return err
	}
	w.onClose(func() error { return w.postgres.Stop(context.Background()) })
	if w.valkey, err = embedded.StartValkey(ctx, embedded.ValkeyOptions{Settings: map[string]string{"loglevel": "warning"}}); err != nil {
		return err
	}
	w.onClose(func() error { return w.valkey.Stop(context.Background()) })
	migrate := exec.CommandContext(ctx, filepath.Join(b.programs, "api"), "migrate")
	migrate.Env, migrate.Dir = w.env(), w.dir
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, out)
	}
	return f(w)
}

func (w *world) onClose(f func() error) { w.cleanup = append(w.cleanup, f) }

func (w *world) close() error {
	var errs []error
	for i := len(w.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, w.cleanup[i]())
	}
	return errors.Join(errs...)
}

// env is what all programs are told.
func (w *world) env(more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"),
		"DATABASE_URL=" + w.postgres.URL(),
		"VALKEY_HOST=" + w.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(w.valkey.Port()),
		"LOG_FORMAT=json", "LOG_LEVEL=warn",
	}, more...)
}

// start starts one of Walkey's programs and waits until it is ready.
func (w *world) start(ctx context.Context, name string, more ...string) (*stack.Program, error) {
	p, err := w.launch(name, more...)
	if err != nil {
		return nil, err
	}
	return p, eventually(ctx, name+" is ready", p, func() error { return p.Ready(ctx, client) })
}

// launch starts one of Walkey's programs.
func (w *world) launch(name string, more ...string) (*stack.Program, error) {
	if name == "api" {
		more = append([]string{"API_ADMIN_ADDR=127.0.0.1:0"}, more...)
	}
	return w.launchFrom(w.b.programs, name, more...)
}

// launchFrom starts a program that lies in a folder.
func (w *world) launchFrom(folder, name string, more ...string) (*stack.Program, error) {
	p, err := stack.Start(stack.Command{Folder: folder, Name: name, Dir: w.dir, Env: w.env(more...)})
	if err != nil {
		return nil, err
	}
	w.onClose(func() error { return stop(p.Process) })
	return p, nil
}

// floor starts this program as one of its floors.
func (w *world) floor(name string, args ...string) (*child.Process, *stack.Log, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	var log stack.Log
	p, err := child.Start(child.Command{Path: self, Args: append([]string{name}, args...), Dir: w.dir, Env: w.env(), Output: &log})
	if err != nil {
		return nil, nil, err
	}
	w.onClose(func() error { return stop(p) })
	return p, &log, nil
}

// stop ends a process in order, and says so when it had ended by itself.
func stop(p *child.Process) error {
	if !p.Running() {
		return p.Err()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return p.Err()
}

func stopAll(processes ...*child.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, stop(p))
	}
	return errors.Join(errs...)
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect gives a connection to Postgres.
func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return nil, err
	}
	w.onClose(func() error { return conn.Close(context.Background()) })
	return conn, nil
}

// sql runs statements one after the other.
func (w *world) sql(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// client asks single questions; load is wrk's business.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}}

// eventually repeats check until it gives no error.
func eventually(ctx context.Context, what string, p *stack.Program, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			said := ""
			if p != nil {
				said = "; it said:\n" + p.Log.Tail()
			}
			return fmt.Errorf("never came: %s: %w%s", what, err, said)
		}
	}
}
