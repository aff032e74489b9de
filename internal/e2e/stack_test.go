package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/stack"
)

// patience is how long a test waits for what should come in a moment, on a machine that is busy with other tests.
const patience = 30 * time.Second

// programs is the folder of the binaries under test.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "walkey-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	programs = folder
	flag.Parse()
	flags := []string{"-race"}
	if flag.Lookup("test.bench").Value.String() != "" {
		flags = nil // what is measured is what is shipped
	}
	if err := stack.Build(context.Background(), folder, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	client.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// servers are one database, one Valkey and the programs that a test starts upon them.
type servers struct {
	t         testing.TB
	postgres  *embedded.Postgres
	url       string // of the database
	valkey    *embedded.Valkey
	staleness time.Duration // MAX_STALENESS of the programs
	access    *access       // nil: the programs are superusers, in plain text
}

// newStack starts private servers with settings for Postgres.
func newStack(t testing.TB, settings ...string) *servers {
	t.Helper()
	return newStackFor(t, secure, settings...)
}

// newStackFor is newStack for programs with the least rights, or for superusers.
func newStackFor(t testing.TB, leastRights bool, settings ...string) *servers {
	t.Helper()
	postgres := embeddedtest.Postgres(t, settings...)
	s := &servers{t: t, postgres: postgres, url: postgres.URL(), staleness: 2 * time.Second}
	if !leastRights {
		s.startValkey()
		return s
	}
	s.access = newAccess(t)
	s.startValkey()
	s.prepareSecurely()
	return s
}

// program is a running api or invalidator.
type program struct {
	*stack.Program
	t testing.TB
}

// startAPI starts an api and waits until it is ready. env is added to its environment.
func (s *servers) startAPI(env ...string) *program {
	s.t.Helper()
	return s.start("api", append([]string{"API_ADMIN_ADDR=127.0.0.1:0", "API_COOKIE_SECURE=false"}, env...))
}

// startInvalidator starts an invalidator and waits until it is ready.
func (s *servers) startInvalidator(env ...string) *program {
	s.t.Helper()
	return s.start("invalidator", env)
}

func (s *servers) start(name string, env []string) *program {
	s.t.Helper()
	p := s.launch(name, env)
	eventually(s.t, name+" is ready", p.ready)
	return p
}

// launch starts a program without waiting for it.
func (s *servers) launch(name string, env []string) *program {
	s.t.Helper()
	started, err := stack.Start(stack.Command{
		Folder: programs, Name: name, Dir: s.t.TempDir(),
		Env: slices.Concat(s.environment(name), []string{
			"MAX_STALENESS=" + s.staleness.String(), "LOG_FORMAT=json", "GORACE=exitcode=66",
		}, env),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p := &program{Program: started, t: s.t}
	s.t.Cleanup(func() {
		p.stop()
		if s.t.Failed() {
			s.t.Logf("%s (pid %d) said:\n%s", name, p.PID(), p.Log.Tail())
		}
	})
	return p
}

// stop asks the program to end, and checks that it did so in order.
func (p *program) stop() {
	p.t.Helper()
	if !p.Running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil {
		p.t.Errorf("stop %s: %v", p.Name, err)
	}
	if err := p.Err(); err != nil {
		p.t.Errorf("%s ended with %v after SIGTERM, want exit code 0", p.Name, err)
	}
}

// kill ends the program by SIGKILL.
func (p *program) kill() {
	p.t.Helper()
	if err := p.Kill(); err != nil {
		p.t.Fatalf("kill %s: %v", p.Name, err)
	}
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Signal(s); err != nil {
		p.t.Fatalf("%s to %s: %v", s, p.Name, err)
	}
}

func (p *program) ready() error { return p.Ready(p.t.Context(), client) }

// client is used by all tests at the same time.
var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}

// answer is what api said to one GET.
type answer struct {
	Status int
	Cache  string // Cache-Status
	ETag   string
	Body   string
	Began  time.Time
	Took   time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d [%s] after %s: %.200s", a.Status, a.Cache, a.Took.Round(time.Millisecond), a.Body)
}

// titles are the titles of the materials in a list's or a detail's answer.
func (a answer) titles() []string {
	var list struct {
		Materials []struct{ Title string }
		Title     string
	}
	if json.Unmarshal([]byte(a.Body), &list) != nil {
		return nil
	}
	titles := []string{}
	for _, m := range list.Materials {
		titles = append(titles, m.Title)
	}
	if list.Title != "" {
		titles = append(titles, list.Title)
	}
	return titles
}

// try asks api once.
func (p *program) try(path string) (answer, error) {
	a := answer{Began: time.Now()}
	response, err := client.Get(p.Base + path)
	if err != nil {
		return a, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	a.Took = time.Since(a.Began)
	a.Status, a.Cache, a.ETag, a.Body = response.StatusCode, response.Header.Get("Cache-Status"), response.Header.Get("ETag"), string(body)
	return a, err
}

// get asks api once, which must answer.
func (p *program) get(path string) answer {
	p.t.Helper()
	a, err := p.try(path)
	if err != nil {
		p.t.Fatalf("GET %s: %v", path, err)
	}
	return a
}

// waitHit asks until the answer comes from the process' own memory.
func (p *program) waitHit(path string) answer {
	p.t.Helper()
	return p.waitFor(path, "a local hit", func(a answer) bool { return a.Cache == "walkey; hit; detail=local" })
}

// waitFor asks until the answer is as wanted.
func (p *program) waitFor(path, what string, wanted func(answer) bool) answer {
	p.t.Helper()
	var a answer
	eventually(p.t, "GET "+path+" gives "+what, func() error {
		var err error
		if a, err = p.try(path); err != nil {
			return err
		}
		if !wanted(a) {
			return errors.New(a.String())
		}
		return nil
	})
	return a
}

// metric is the value of a metric of the program, summed over its labels.
func (p *program) metric(name string) float64 {
	p.t.Helper()
	response, err := client.Get(p.Base + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ') // a label's value may hold others
		if end := strings.IndexAny(line, "{ "); end < 0 || line[:end] != name {
			continue
		}
		n, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			p.t.Fatalf("metric line %q: %v", line, err)
		}
		sum, found = sum+n, true
	}
	if !found && !strings.HasSuffix(name, "_total") { // a labelled counter shows nothing before its first count
		p.t.Fatalf("no metric %s", name)
	}
	return sum
}

// psql runs SQL as somebody by hand would.
func (s *servers) psql(sql string) {
	s.t.Helper()
	command := exec.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", s.url, "-c", sql)
	if out, err := command.CombinedOutput(); err != nil {
		s.t.Fatalf("psql -c %q: %v\n%s", sql, err, out)
	}
}

// connect gives a connection of the test's own.
func (s *servers) connect() *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// eventually repeats check until it gives no error, and fails the test when that does not come.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
