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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"walkey/internal/child"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/freeport"
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
	arguments := []string{"build", "-o", folder + string(filepath.Separator)}
	if flag.Lookup("test.bench").Value.String() == "" {
		arguments = append(arguments, "-race") // what is measured is what is shipped
	}
	build := exec.Command("go", append(arguments, "walkey/cmd/api", "walkey/cmd/invalidator")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
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

// stack is one database, one Valkey and the programs that a test starts upon them.
type stack struct {
	t         testing.TB
	postgres  *embedded.Postgres
	url       string // of the database
	valkey    *embedded.Valkey
	staleness time.Duration // MAX_STALENESS of the programs
}

// newStack starts private servers with settings for Postgres.
func newStack(t testing.TB, settings ...string) *stack {
	t.Helper()
	postgres := embeddedtest.Postgres(t, settings...)
	return &stack{t: t, postgres: postgres, url: postgres.URL(), valkey: embeddedtest.Valkey(t), staleness: 2 * time.Second}
}

// program is a running api or invalidator.
type program struct {
	*child.Process
	t    testing.TB
	name string
	base string // URL of what it serves
	log  *logBuffer
}

// startAPI starts an api and waits until it is ready. env is added to its environment.
func (s *stack) startAPI(env ...string) *program {
	s.t.Helper()
	return s.start("api", "API_ADDR", append([]string{"API_ADMIN_ADDR=127.0.0.1:0", "API_COOKIE_SECURE=false"}, env...))
}

// startInvalidator starts an invalidator and waits until it is ready.
func (s *stack) startInvalidator(env ...string) *program {
	s.t.Helper()
	return s.start("invalidator", "INVALIDATOR_ADDR", env)
}

func (s *stack) start(name, addrVariable string, env []string) *program {
	s.t.Helper()
	p := s.launch(name, addrVariable, env)
	eventually(s.t, name+" is ready", func() error {
		if !p.Running() {
			return fmt.Errorf("%s ended: %v", name, p.Err())
		}
		return p.ready()
	})
	return p
}

// launch starts a program without waiting for it.
func (s *stack) launch(name, addrVariable string, env []string) *program {
	s.t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		s.t.Fatal(err)
	}
	addr := freeport.Host + ":" + strconv.Itoa(port)
	p := &program{t: s.t, name: name, base: "http://" + addr, log: &logBuffer{}}
	p.Process, err = child.Start(child.Command{
		Path: filepath.Join(programs, name), Dir: s.t.TempDir(), Output: p.log,
		Env: append([]string{
			"PATH=" + os.Getenv("PATH"),
			"DATABASE_URL=" + s.url,
			"VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.valkey.Port()),
			"MAX_STALENESS=" + s.staleness.String(),
			"LOG_FORMAT=json", "GORACE=exitcode=66",
			addrVariable + "=" + addr,
		}, env...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		p.stop()
		if s.t.Failed() {
			s.t.Logf("%s (pid %d) said:\n%s", name, p.PID(), p.log.tail())
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
		p.t.Errorf("stop %s: %v", p.name, err)
	}
	if err := p.Err(); err != nil {
		p.t.Errorf("%s ended with %v after SIGTERM, want exit code 0", p.name, err)
	}
}

// kill ends the program by SIGKILL.
func (p *program) kill() {
	p.t.Helper()
	if err := p.Kill(); err != nil {
		p.t.Fatalf("kill %s: %v", p.name, err)
	}
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Signal(s); err != nil {
		p.t.Fatalf("%s to %s: %v", s, p.name, err)
	}
}

func (p *program) ready() error {
	response, err := client.Get(p.base + "/readyz")
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", response.Status)
	}
	return nil
}

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
	response, err := client.Get(p.base + path)
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
	response, err := client.Get(p.base + "/metrics")
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
func (s *stack) psql(sql string) {
	s.t.Helper()
	command := exec.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", s.url, "-c", sql)
	if out, err := command.CombinedOutput(); err != nil {
		s.t.Fatalf("psql -c %q: %v\n%s", sql, err, out)
	}
}

// connect gives a connection of the test's own.
func (s *stack) connect() *pgx.Conn {
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

// logBuffer keeps what a program says.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBuffer) tail() string {
	text := l.String()
	return text[max(0, len(text)-6000):]
}
