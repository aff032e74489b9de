package e2e

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"walkey/internal/child"
	"walkey/internal/stack"
)

const (
	databaseSecret = "p0stgres/s3cr3t?"
	valkeySecret   = "v4lkey s3cr3t"
)

// showsSecret finds a password in a text, also in the forms that URLs and Go's quoting give it.
func showsSecret(text string) bool {
	for _, secret := range []string{databaseSecret, url.PathEscape(databaseSecret), url.QueryEscape(databaseSecret), url.UserPassword("", databaseSecret).String()[1:], valkeySecret} {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// Whatever goes wrong, and however much is logged, no password is in what a program or a command says.
func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.must(nil, "api", "migrate")
	s.valkeyDo("CONFIG", "SET", "requirepass", "another")
	at := func(host, port string) string {
		return "DATABASE_URL=postgres://walkey:" + url.PathEscape(databaseSecret) + "@" + host + ":" + port + "/postgres"
	}
	port := strconv.Itoa(s.postgres.Port())
	valkey := []string{"VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.valkey.Port()), "VALKEY_PASSWORD=" + valkeySecret}
	for name, env := range map[string][]string{
		"nobody answers":      {at("127.0.0.1", "1"), "VALKEY_PORT=1", "VALKEY_PASSWORD=" + valkeySecret},
		"nobody is there":     {at("postgres.invalid", "5432"), "VALKEY_HOST=valkey.invalid", "VALKEY_PASSWORD=" + valkeySecret},
		"refused":             append([]string{at("127.0.0.1", port)}, valkey...),
		"refused by Postgres": {at("127.0.0.1", port), valkey[0], valkey[1], "VALKEY_PASSWORD=another"},
		"TLS that is not":     append([]string{at("127.0.0.1", port) + "?sslmode=verify-full", "VALKEY_TLS=true"}, valkey...),
		"a malformed URL":     append([]string{"DATABASE_URL=postgres://walkey:" + databaseSecret + "@127.0.0.1:port/postgres"}, valkey...),
		"not even a URL":      append([]string{"DATABASE_URL=walkey " + databaseSecret}, valkey...),
		"the password's file": {"DATABASE_URL_FILE=" + writeAs(t, t.TempDir(), "url", 0o600, strings.TrimPrefix(at("127.0.0.1", "1"), "DATABASE_URL=")), "VALKEY_PORT=1", "VALKEY_PASSWORD_FILE=" + writeAs(t, t.TempDir(), "password", 0o600, valkeySecret)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{
				{"invalidator", "doctor", "--sample=1ms"},
				{"invalidator", "doctor", "--json", "--sample=1ms"},
				{"invalidator", "explain", "materials", "id=1"},
				{"invalidator", "explain", "--key=material:1"},
				{"invalidator", "keys"},
				{"invalidator", "flush", "--all", "--yes"},
				{"invalidator", "status"},
				{"invalidator", "status", "--json"},
				{"invalidator", "tail"},
				{"invalidator", "tail", "--json"},
				{"invalidator", "setup"},
				{"invalidator", "teardown", "--yes"},
				{"api", "migrate"},
				{"api", "user", "list"},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // some wait for their server
				c := exec.CommandContext(ctx, filepath.Join(programs, args[0]), args[1:]...)
				c.Dir, c.Env = t.TempDir(), append([]string{"PATH=" + os.Getenv("PATH"), nowhere}, env...)
				out, _ := c.CombinedOutput() // how it ends is another test's matter
				cancel()
				if showsSecret(string(out)) {
					t.Errorf("%v shows a password:\n%s", args, out)
				}
			}
			for _, program := range []string{"api", "invalidator"} {
				p, err := stack.Start(stack.Command{Folder: programs, Name: program, Dir: t.TempDir(), Env: append([]string{"API_ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug", "LOG_FORMAT=json"}, env...)})
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, program+" has said why it can't work", func() error {
					wanted := `"error"`
					if program == "invalidator" {
						wanted = "the session ended; trying again"
					}
					if p.Running() && !strings.Contains(p.Log.String(), wanted) {
						return errors.New(p.Log.Tail())
					}
					response, err := client.Get(p.Base + "/healthz")
					if err == nil {
						return response.Body.Close()
					}
					if !p.Running() {
						return nil
					}
					return err
				})
				text := p.Log.String()
				if p.Running() {
					for _, path := range []string{"/readyz?verbose", "/metrics"} {
						text += fetchText(t, p.Base+path)
					}
				}
				if p.Running() && program == "invalidator" {
					text += shownOf(t, p, env)
				}
				endProgram(t, p.Process)
				if showsSecret(text) {
					t.Errorf("%s shows a password:\n%s", program, text)
				}
			}
		})
	}
}

// shownOf is all that a running invalidator shows of itself to people and programs, while one session after the other ends.
func shownOf(t *testing.T, p *stack.Program, env []string) (text string) {
	t.Helper()
	for _, path := range []string{"/", "/status"} {
		text += fetchText(t, p.Base+path)
	}
	for path, end := range map[string]string{"/events": `"session-end"`, "/live": `"session-end"`} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text += until(t, path, response.Body, end)
		cancel()
		_ = response.Body.Close()
	}
	here := append([]string{"PATH=" + programs + ":" + os.Getenv("PATH"), "INVALIDATOR_ADDR=" + strings.TrimPrefix(p.Base, "http://")}, env...)
	for _, one := range []struct{ command, end string }{
		{"status", ""},
		{"status --json", ""},
		{"tail --json", `"session-end"`},
		{"tail", "the session ended: "},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		// On a terminal, where tail speaks to people.
		c := exec.CommandContext(ctx, "script", "-qfec", "exec invalidator "+one.command, "/dev/null")
		c.Dir, c.Env, c.WaitDelay = t.TempDir(), here, time.Second
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		text += until(t, one.command, out, one.end)
		if one.end != "" {
			_ = c.Process.Signal(syscall.SIGTERM) // which ends what runs on the terminal
		}
		_ = c.Wait() // status says by it that something is wrong
		cancel()
	}
	return text
}

// until reads until the line that holds the text has come, or to the end when it is empty.
func until(t *testing.T, what string, from io.Reader, end string) (text string) {
	t.Helper()
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text += lines.Text() + "\n"
		if end != "" && strings.Contains(lines.Text(), end) {
			return text
		}
	}
	if end != "" || text == "" {
		t.Errorf("%s shows no %q, but\n%s", what, end, text)
	}
	return text
}

func fetchText(t testing.TB, address string) string {
	t.Helper()
	response, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func endProgram(t testing.TB, p *child.Process) {
	t.Helper()
	if !p.Running() {
		return
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

// The level of the log is changed while the program runs.
func TestLogLevelAtRunTime(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.must(nil, "api", "migrate")
	p := s.startInvalidator()
	put, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.Base+"/loglevel", strings.NewReader(`{"level":"error"}`))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if got := fetchText(t, p.Base+"/loglevel"); response.StatusCode != http.StatusOK || strings.TrimSpace(got) != `{"level":"error"}` {
		t.Errorf("%s, then %s", response.Status, got)
	}
	before := p.Log.String()
	p.stop() // which is told at info
	if after := p.Log.String(); after != before {
		t.Errorf("at level error it says\n%s", strings.TrimPrefix(after, before))
	}
}

// A run under load logs nothing for each request and each change.
func TestNothingIsLoggedForEachRequestOrChange(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.psql(`insert into materials (title, material_type) select 'm', 'article' from generate_series(1, 200)`)
	api.waitHit("/api/materials/200/")
	conn := s.connect()
	before := strings.Count(api.Log.String(), "\n") + strings.Count(invalidator.Log.String(), "\n")
	for i := range 200 {
		api.get("/api/materials/" + strconv.Itoa(i+1) + "/")
		api.get("/nowhere")
		mustExec(t, conn, `update materials set title = 'm' || $1::text where id = 1`, strconv.Itoa(i))
	}
	api.waitHit("/api/materials/1/")
	if lines := strings.Count(api.Log.String(), "\n") + strings.Count(invalidator.Log.String(), "\n") - before; lines > 10 {
		t.Errorf("%d lines for 400 requests and 200 changes:\n%s%s", lines, api.Log.Tail(), invalidator.Log.Tail())
	}
}
