package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/program"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

// output collects what a program prints, and may be read while it does.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is the program as it runs in the test's process.
type running struct {
	stdout, stderr output
	stop           context.CancelFunc
	code           chan int
}

func start(t *testing.T, args []string, environ ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{stop: cancel, code: make(chan int, 1)}
	dir := t.TempDir()
	go func() {
		r.code <- program.Run(ctx, &program.Process{
			Name: "api", Args: args, Environ: environ, Dir: dir, Stdout: &r.stdout, Stderr: &r.stderr,
		}, description, new(commandLine))
	}()
	return r
}

// run runs a command to its end.
func run(t *testing.T, args []string, environ ...string) (code int, stdout, stderr string) {
	t.Helper()
	r := start(t, args, environ...)
	defer r.stop()
	code = <-r.code
	return code, r.stdout.String(), r.stderr.String()
}

// addresses waits until the program listens.
func (r *running) addresses(t *testing.T) (public, admin string) {
	t.Helper()
	waitFor(t, func() bool {
		for line := range strings.Lines(r.stderr.String()) {
			var entry struct{ Msg, API, Admin string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
				public, admin = "http://"+entry.API, "http://"+entry.Admin
				return true
			}
		}
		return false
	})
	return public, admin
}

func get(t *testing.T, url string) (status int, header http.Header, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(content)
}

func status(t *testing.T, url string) int {
	t.Helper()
	status, _, _ := get(t, url)
	return status
}

func TestServeStartsBeforePostgresAndValkey(t *testing.T) {
	t.Parallel()
	postgres := embeddedtest.Postgres(t)
	if err := postgres.Shutdown(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	valkey := embeddedtest.Valkey(t)
	if err := valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	r := start(t, nil,
		"DATABASE_URL="+postgres.URL(), "VALKEY_HOST="+valkey.Host(), "VALKEY_PORT="+strconv.Itoa(valkey.Port()),
		"API_ADDR=127.0.0.1:0", "API_ADMIN_ADDR=127.0.0.1:0")
	defer r.stop()
	public, admin := r.addresses(t)

	if got := status(t, public+"/healthz"); got != http.StatusOK {
		t.Errorf("healthz without servers: %d", got)
	}
	if got, _, body := get(t, public+"/readyz?verbose"); got != http.StatusServiceUnavailable || !strings.Contains(body, `{"name":"schema","status":"failed"`) {
		t.Errorf("readyz without servers: %d %s", got, body)
	}
	if _, _, body := get(t, public+"/readyz?verbose"); strings.Contains(body, "127.0.0.1") {
		t.Errorf("readyz tells the public where the database is: %s", body)
	}
	if got, header, _ := get(t, public+"/api/materials/"); got != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("materials without servers: %d %v", got, header)
	}

	if err := postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return status(t, public+"/readyz") == http.StatusOK })
	if _, _, body := get(t, public+"/readyz?verbose"); !strings.Contains(body, `"status":"degraded"`) || !strings.Contains(body, "valkey-down") {
		t.Errorf("readyz without Valkey: %s", body)
	}
	got, header, body := get(t, public+"/api/materials")
	if got != http.StatusOK || body != "{\"materials\":[]}\n" || header.Get("Cache-Status") != "walkey; fwd=bypass; detail=valkey-down" {
		t.Errorf("materials without Valkey: %d %q %v", got, body, header)
	}
	if _, _, body := get(t, admin+"/metrics"); strings.Contains(body, `walkey_cache_bypasses_total{reason="valkey-down"} 0`) || !strings.Contains(body, "walkey_cache_trusted 0") {
		t.Errorf("metrics:\n%s", body)
	}

	r.stop()
	if code := <-r.code; code != program.ExitDone {
		t.Errorf("exit code %d\n%s", code, r.stderr.String())
	}
}

func TestServeOnATakenPortFails(t *testing.T) {
	t.Parallel()
	first := start(t, nil, "API_ADDR=127.0.0.1:0", "API_ADMIN_ADDR=127.0.0.1:0", "DATABASE_URL="+nowhere)
	defer func() { first.stop(); <-first.code }()
	public, _ := first.addresses(t)
	code, _, stderr := run(t, []string{"serve"}, "API_ADDR=127.0.0.1:0", "API_ADMIN_ADDR="+strings.TrimPrefix(public, "http://"), "DATABASE_URL="+nowhere)
	if code != program.ExitFailed || !strings.Contains(stderr, "listening for the admin API") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

// nowhere is a database that does not answer.
const nowhere = "postgres://postgres@127.0.0.1:1/none?sslmode=disable"

func TestMigrateAndSeed(t *testing.T) {
	t.Parallel()
	url := "DATABASE_URL=" + embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"migrate"}, "Migrations applied: 2."},
		{[]string{"migrate"}, "The schema is up to date."},
		{[]string{"migrate", "--json"}, `{"applied":0}`},
		{[]string{"seed", "--rows=20"}, "Added 20 materials."},
		{[]string{"seed"}, "holds 20 materials already"},
		{[]string{"seed", "--json"}, `{"added":0,"present":20}`},
	} {
		code, stdout, stderr := run(t, tt.args, url)
		if code != program.ExitDone || !strings.Contains(stdout, tt.want) {
			t.Errorf("%v: exit code %d, %q\n%s", tt.args, code, stdout, stderr)
		}
	}
}

func TestSeedMigratesFirst(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := run(t, []string{"seed", "--json"}, "DATABASE_URL="+embeddedtest.Database(t, embeddedtest.SharedPostgres(t)))
	if code != program.ExitDone || stdout != "{\"added\":12,\"present\":12}\n" {
		t.Errorf("exit code %d, %q\n%s", code, stdout, stderr)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no rows", []string{"seed", "--rows=0"}, program.ExitUsage, "--rows: must be a number from 1"},
		{"address", []string{"--api-addr=8080"}, program.ExitUsage, "API_ADDR (--api-addr)"},
		{"origin", []string{"--api-cors-origins=https://a.example/path,https://b.example"}, program.ExitUsage, "API_CORS_ORIGINS (--api-cors-origins)"},
		{"proxy", []string{"--api-trusted-proxies=10.0.0.1"}, program.ExitUsage, "is not a network"},
		{"user without a name", []string{"user", "add"}, program.ExitUsage, "<name>"},
		{"no database in time", []string{"migrate", "--wait=1ms"}, program.ExitFailed, "did not answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if code, _, stderr := run(t, tt.args, "DATABASE_URL="+nowhere); code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
		})
	}
}

// waitFor polls until the condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(2 * time.Minute)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}
