package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"walkey/internal/child"
	"walkey/internal/embedded"
	"walkey/internal/freeport"
)

const (
	readyTimeout  = time.Minute
	readyInterval = 10 * time.Millisecond
	probeTimeout  = 2 * time.Second
	drainTimeout  = 15 * time.Second
)

// The ports that programs and servers have by default.
const (
	postgresPort    = 5432
	valkeyPort      = 6379
	apiPort         = 8080
	adminPort       = 9090
	invalidatorPort = 8081
)

// stackOptions says how a stack is to be started.
type stackOptions struct {
	dir          string   // keeps the servers' data; empty means a temporary folder
	defaultPorts bool     // where they are free
	env          []string // of the programs, under what the stack itself sets
}

// stack is the two servers and the two programs.
type stack struct {
	postgres    *embedded.Postgres
	valkey      *embedded.Valkey
	api         *child.Process
	invalidator *child.Process

	apiURL, adminURL, invalidatorURL string

	log       *logs
	logged    []*namedLog
	bin       string // folder of the built programs
	removeBin func() error
}

// start builds the programs, starts everything, waits until it is ready and puts in the sample rows. What was started when it fails
// is stopped again.
func start(ctx context.Context, o stackOptions, p *printer, l *logs) (s *stack, err error) {
	s = &stack{log: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.bin, s.removeBin, err = embedded.TempDir(); err != nil {
		return s, err
	}
	if err := s.startServers(ctx, o, p); err != nil {
		return s, err
	}
	if err := s.startPrograms(ctx, o, p); err != nil {
		return s, fmt.Errorf("%w%s", err, s.tails())
	}
	return s, nil
}

// startServers starts Postgres and Valkey while the programs are built.
func (s *stack) startServers(ctx context.Context, o stackOptions, p *printer) error {
	folder := func(name string) string {
		if o.dir == "" {
			return ""
		}
		return filepath.Join(o.dir, name)
	}
	began := time.Now()
	postgresLog, valkeyLog := s.newLog("postgres"), s.newLog("valkey")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		port := 0
		if o.defaultPorts {
			port = freeOr(postgresPort)
		}
		s.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{
			Dir: folder("postgres"), Port: port, Log: postgresLog,
			// The exact time of a commit, to measure from.
			Settings: map[string]string{"track_commit_timestamp": "on"},
		})
		return err
	})
	group.Go(func() (err error) {
		port := 0
		if o.defaultPorts {
			port = freeOr(valkeyPort)
		}
		s.valkey, err = embedded.StartValkey(ctx, embedded.ValkeyOptions{Dir: folder("valkey"), Port: port, Log: valkeyLog})
		return err
	})
	group.Go(func() error { return s.build(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	p.done(time.Since(began), "Postgres %d on %s:%d, Valkey on %s, programs built", s.postgres.Version(), freeport.Host, s.postgres.Port(), s.valkey.Addr())
	return nil
}

// build builds the programs as they are shipped: static.
func (s *stack) build(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := child.Run(ctx, child.Command{
		Path: "go", Args: []string{"build", "-o", s.bin + string(filepath.Separator), "./cmd/api", "./cmd/invalidator"},
		Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0"), Output: &out,
	}); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out.String())
	}
	return nil
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "walkey").Output()
	if err != nil {
		return "", fmt.Errorf("look for Walkey's source from the working directory: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// startPrograms starts both programs and waits until they are ready.
func (s *stack) startPrograms(ctx context.Context, o stackOptions, p *printer) error {
	began := time.Now()
	addr := func(wanted int) (string, error) {
		port := 0
		if o.defaultPorts {
			port = freeOr(wanted)
		}
		if port == 0 {
			var err error
			if port, err = freeport.Pick(); err != nil {
				return "", err
			}
		}
		return net.JoinHostPort(freeport.Host, strconv.Itoa(port)), nil
	}
	apiAddr, err1 := addr(apiPort)
	adminAddr, err2 := addr(adminPort)
	invalidatorAddr, err3 := addr(invalidatorPort)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	s.apiURL, s.adminURL, s.invalidatorURL = "http://"+apiAddr, "http://"+adminAddr, "http://"+invalidatorAddr
	env := append(slices.Clip(o.env),
		"DATABASE_URL="+s.postgres.URL(),
		"VALKEY_HOST="+s.valkey.Host(), "VALKEY_PORT="+strconv.Itoa(s.valkey.Port()),
		"API_ADDR="+apiAddr, "API_ADMIN_ADDR="+adminAddr, "INVALIDATOR_ADDR="+invalidatorAddr,
	)
	var err error
	if s.invalidator, err = s.startProgram("invalidator", env); err != nil {
		return err
	}
	if s.api, err = s.startProgram("api", env); err != nil {
		return err
	}
	for name, url := range map[string]string{"api": s.apiURL, "invalidator": s.invalidatorURL} {
		if err := s.waitReady(ctx, name, url); err != nil {
			return err
		}
	}
	if err := child.Run(ctx, child.Command{Path: filepath.Join(s.bin, "api"), Args: []string{"seed"}, Dir: s.bin, Env: env, Output: s.newLog("api seed")}); err != nil {
		return fmt.Errorf("put in the sample rows: %w", err)
	}
	p.done(time.Since(began), "api on %s, invalidator on %s, sample rows", s.apiURL, s.invalidatorURL)
	return nil
}

func (s *stack) startProgram(name string, env []string) (*child.Process, error) {
	// In the stack's own folder no .env of the working directory has a say.
	return child.Start(child.Command{Path: filepath.Join(s.bin, name), Dir: s.bin, Env: env, Output: s.newLog(name)})
}

func (s *stack) newLog(name string) *namedLog {
	n := s.log.named(name)
	s.logged = append(s.logged, n)
	return n
}

// waitReady waits until a program says that it is ready.
func (s *stack) waitReady(ctx context.Context, name, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ended, stop := s.watch(ctx)
	defer stop()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		last := probe(ctx, url+"/readyz")
		if last == nil {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", name, ctx.Err(), last)
		}
	}
}

func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, response.Status)
	}
	return nil
}

// watch delivers an error when a server or program ends by itself. stop ends the watch.
func (s *stack) watch(ctx context.Context) (ended <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	first := make(chan error, 1)
	var group errgroup.Group
	watch := func(name string, done <-chan struct{}) {
		group.Go(func() error {
			select {
			case <-done:
				select {
				case first <- fmt.Errorf("%s has ended by itself", name):
				default:
				}
			case <-ctx.Done():
			}
			return nil
		})
	}
	watch("postgres", s.postgres.Done())
	watch("valkey", s.valkey.Done())
	for name, process := range map[string]*child.Process{"api": s.api, "invalidator": s.invalidator} {
		if process != nil {
			watch(name, process.Done())
		}
	}
	return first, func() {
		cancel()
		_ = group.Wait() // its functions return no error
	}
}

// stop ends everything that runs, readers first, and removes what was temporary.
func (s *stack) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var errs []error
	for _, process := range []*child.Process{s.api, s.invalidator} {
		if process != nil {
			errs = append(errs, process.Stop(ctx, syscall.SIGTERM))
		}
	}
	if s.valkey != nil {
		errs = append(errs, s.valkey.Stop(ctx))
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop(ctx))
	}
	if s.removeBin != nil {
		errs = append(errs, s.removeBin())
	}
	http.DefaultClient.CloseIdleConnections()
	return errors.Join(errs...)
}

// tails is the end of every log, for an error.
func (s *stack) tails() string {
	var b strings.Builder
	for _, n := range s.logged {
		if text := n.String(); text != "" {
			fmt.Fprintf(&b, "\n--- the end of the log of %s\n%s", n.name, text)
		}
	}
	return b.String()
}

// freeOr is the port when it is free, and 0, which means any, when it is not.
func freeOr(port int) int {
	l, err := net.Listen("tcp", net.JoinHostPort(freeport.Host, strconv.Itoa(port)))
	if err != nil {
		return 0
	}
	_ = l.Close()
	return port
}
