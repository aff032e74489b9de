package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded"
	"walkey/internal/faultproxy"
	"walkey/internal/freeport"
	"walkey/internal/stack"
)

// settings of the servers. Commits that are not waited for are lost in a crash, so the WAL writer takes its time.
var (
	postgresSettings = map[string]string{"wal_writer_delay": "500ms", "max_connections": "300", "log_min_messages": "fatal"}
	valkeySettings   = map[string]string{"loglevel": "warning"}
)

// worldOptions say what is put together.
type worldOptions struct {
	programs     string // folder of the built programs
	topology     string // single, sentinel or cluster
	apis         int
	invalidators int
	staleness    time.Duration
	standby      bool     // apis load from a standby, too
	loads        string   // CACHE_LOADS and CACHE_LOAD_QUEUE of the apis, "loads,queue"; empty for the defaults
	switches     []string // that are off, by the names of WALKEY_SWITCHES
}

// world is a Postgres, perhaps with a standby, a Valkey, and programs each of which reaches them by links of its own.
type world struct {
	options  worldOptions
	postgres *embedded.Postgres
	standby  *embedded.Postgres // nil without
	valkey   *embedded.Valkey   // a single one
	many     many               // else
	apis     []*part
	inval    []*part
	dir      string
	removed  func() error
	cleanup  []func() error
}

// part is one program with its links. One goroutine at a time stops and starts it.
type part struct {
	name     string // api 1, invalidator 2
	program  string
	addr     string
	env      []string
	folder   string
	dir      string
	postgres *faultproxy.Proxy
	standby  *faultproxy.Proxy // nil without
	valkey   links

	life    atomic.Int64 // counts its processes
	running *stack.Program
	log     *stack.Log // of the process before the last one
}

// newWorld starts everything and waits until it serves from the cache.
func newWorld(ctx context.Context, o worldOptions) (w *world, err error) {
	w = &world{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, w.removed, err = embedded.TempDir(); err != nil {
		return nil, err
	}
	if w.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{Settings: postgresSettings}); err != nil {
		return nil, err
	}
	if err := w.startValkey(ctx); err != nil {
		return nil, err
	}
	if o.standby {
		standby := embedded.StandbyOptions{Name: "reader", Settings: map[string]string{"wal_retrieve_retry_interval": "100ms"}}
		if w.standby, err = embedded.StartStandby(ctx, w.postgres, standby); err != nil {
			return nil, err
		}
	}
	for i := range o.apis {
		p, err := w.add(ctx, fmt.Sprintf("api %d", i+1), "api", "API_ADMIN_ADDR=127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		w.apis = append(w.apis, p)
	}
	if err := w.each(ctx, w.apis, "is ready", (*part).ready); err != nil { // the schema is there
		return nil, err
	}
	for i := range o.invalidators {
		p, err := w.add(ctx, fmt.Sprintf("invalidator %d", i+1), "invalidator")
		if err != nil {
			return nil, err
		}
		w.inval = append(w.inval, p)
	}
	if err := w.each(ctx, w.inval, "is ready", (*part).ready); err != nil {
		return nil, err
	}
	return w, w.each(ctx, w.apis, "serves from the cache", (*part).serves)
}

// add makes a program with its links and starts it.
func (w *world) add(ctx context.Context, name, program string, env ...string) (*part, error) {
	p := &part{name: name, program: program, folder: w.options.programs, dir: filepath.Join(w.dir, strings.ReplaceAll(name, " ", ""))}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if p.postgres, err = faultproxy.Listen(ctx, net.JoinHostPort(freeport.Host, strconv.Itoa(w.postgres.Port()))); err != nil {
		return nil, err
	}
	w.cleanup = append(w.cleanup, p.postgres.Close)
	valkey, err := w.link(ctx, p)
	if err != nil {
		return nil, err
	}
	port, err := freeport.Pick()
	if err != nil {
		return nil, err
	}
	p.addr = net.JoinHostPort(freeport.Host, strconv.Itoa(port))
	url := through(w.postgres, p.postgres)
	p.env = append([]string{
		"DATABASE_URL=" + url,
		"MAX_STALENESS=" + w.options.staleness.String(), "LOG_FORMAT=json",
	}, append(valkey, env...)...)
	if program == "api" {
		p.env = append(p.env, "AUDIT_RATE=100")
		if loads, queue, ok := strings.Cut(w.options.loads, ","); ok {
			p.env = append(p.env, "CACHE_LOADS="+loads, "CACHE_LOAD_QUEUE="+queue)
		}
		if w.standby != nil {
			if p.standby, err = faultproxy.Listen(ctx, net.JoinHostPort(freeport.Host, strconv.Itoa(w.standby.Port()))); err != nil {
				return nil, err
			}
			w.cleanup = append(w.cleanup, p.standby.Close)
			p.env = append(p.env, "DATABASE_REPLICA_URL="+through(w.standby, p.standby))
		}
	}
	if own := switchesOf(program, w.options.switches); len(own) > 0 {
		p.env = append(p.env, "WALKEY_SWITCHES="+strings.Join(own, ","))
	}
	w.cleanup = append(w.cleanup, p.stop)
	return p, p.start()
}

// through is the URL of a server by way of a proxy.
func through(p *embedded.Postgres, proxy *faultproxy.Proxy) string {
	return strings.Replace(p.URL(), ":"+strconv.Itoa(p.Port())+"/", ":"+strconv.Itoa(proxy.Port())+"/", 1)
}

// streamAll has Postgres stream to the invalidators whatever it can.
const streamAll = "stream-all"

// switchesOf picks the switches that a program knows.
func switchesOf(program string, switches []string) (own []string) {
	for _, s := range switches {
		if (program == "invalidator") == (s == "no-gate" || s == "no-resync" || s == "no-replay" || s == streamAll) {
			own = append(own, s)
		}
	}
	return own
}

// each waits until all parts are as wanted.
func (w *world) each(ctx context.Context, parts []*part, what string, check func(*part, context.Context) error) error {
	for _, p := range parts {
		if err := eventually(ctx, func(ctx context.Context) error { return check(p, ctx) }); err != nil {
			text := fmt.Sprintf("%s said:\n%s", p.name, p.running.Log.Tail())
			for _, i := range w.inval { // by whom an api is trusted
				if i != p && i.running != nil {
					text += fmt.Sprintf("\n%s said:\n%s", i.name, i.running.Log.Tail())
				}
			}
			return fmt.Errorf("%s never %s: %w; %s", p.name, what, err, text)
		}
	}
	return nil
}

// start starts the program; its address stays the same.
func (p *part) start() error {
	p.life.Add(1)
	started, err := stack.Start(stack.Command{Folder: p.folder, Name: p.program, Dir: p.dir, Addr: p.addr, Env: p.env})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.running = started
	return nil
}

func (p *part) kill() error {
	p.log = p.running.Log
	return p.running.Kill()
}

func (p *part) signal(s syscall.Signal) error { return p.running.Signal(s) }

// stop ends the program in order; that it has ended by itself is an error.
func (p *part) stop() error {
	if p.running == nil {
		return nil
	}
	if !p.running.Running() && p.running.Err() != nil {
		return fmt.Errorf("%s ended by itself: %w\n%s", p.name, p.running.Err(), p.running.Log.Tail())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return p.running.Stop(ctx, syscall.SIGTERM)
}

func (p *part) ready(ctx context.Context) error { return p.running.Ready(ctx, client) }

// serves says whether the program answers from its own memory.
func (p *part) serves(ctx context.Context) error {
	status, err := p.ask(ctx, "/api/materials/")
	if err == nil && status != hitLocal {
		err = errors.New(status)
	}
	return err
}

// ask gives the Cache-Status of one answer.
func (p *part) ask(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound {
		return "", errors.New(response.Status)
	}
	return response.Header.Get("Cache-Status"), nil
}

// connect gives a connection that no proxy stands in.
func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(w.postgres.URL())
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = 2 * time.Second
	return pgx.ConnectConfig(ctx, config)
}

// close ends everything, the latest first.
func (w *world) close() error {
	var errs []error
	for i := len(w.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, w.cleanup[i]())
	}
	ctx, cancel := context.WithTimeout(context.Background(), embedded.StopTimeout)
	defer cancel()
	if w.valkey != nil {
		errs = append(errs, w.valkey.Stop(ctx))
	}
	if w.standby != nil {
		errs = append(errs, w.standby.Stop(ctx))
	}
	errs = append(errs, w.many.stop(ctx))
	if w.postgres != nil {
		errs = append(errs, w.postgres.Stop(ctx))
	}
	if w.removed != nil {
		errs = append(errs, w.removed())
	}
	return errors.Join(errs...)
}

// patience is how long the run waits for what must come.
const patience = 60 * time.Second

// eventually repeats check until it gives no error.
func eventually(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
