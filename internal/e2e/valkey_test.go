package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"walkey/internal/embedded"
)

// ask sends one inline command to Valkey and gives the first line of the reply.
func (s *servers) ask(command string) string {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.valkey.Addr(), patience)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "-") {
		s.t.Fatalf("%s: %q %v", command, line, err)
	}
	return strings.TrimSpace(line)
}

// denials is what Valkey tells of commands and keys that it has refused to users. Logins that failed are not among them.
func denials(t testing.TB, v *embedded.Valkey) string {
	t.Helper()
	out, err := exec.Command("valkey-cli", "--json", "-p", strconv.Itoa(v.Port()), "ACL", "LOG").CombinedOutput()
	if err != nil {
		t.Fatalf("valkey-cli: %v\n%s", err, out)
	}
	var entries []struct{ Reason, Context, Object, Username string }
	if err := json.Unmarshal(out, &entries); err != nil {
		return string(out)
	}
	var b strings.Builder
	for _, e := range entries {
		if e.Reason != "auth" {
			fmt.Fprintf(&b, "%s: %s %s (%s)\n", e.Username, e.Reason, e.Object, e.Context)
		}
	}
	return b.String()
}

const detailKey = "bloodofjesus:material:1"

// Without Valkey every read answers, none of them slowly; when it is back nothing old is served, and hits return.
func TestValkeyKilled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		away time.Duration
	}{{"and back at once", 0}, {"and back later", 3 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			api := s.startAPI()
			s.startInvalidator()
			h := s.versioned()
			api.waitHit(detailPath(1))
			api.waitHit(listPath)
			stopWriting := s.writing(h, 20*time.Millisecond)
			stopReading := reading(t, h, api)
			if err := s.valkey.Kill(); err != nil {
				t.Fatal(err)
			}
			if c.away > 0 {
				api.waitFor(detailPath(1), "a bypass that says why", func(a answer) bool { return a.Cache == "walkey; fwd=bypass; detail=valkey-down" })
				time.Sleep(c.away) // the outage itself
			}
			if err := s.valkey.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			api.waitHit(detailPath(1))
			seen := stopReading()
			stopWriting()
			if seen.failure != nil {
				t.Error(seen.failure)
			}
			if seen.slowest > slow {
				t.Errorf("a request took %s, want at most %s", seen.slowest, slow)
			}
			if seen.worst > s.staleness {
				t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, s.staleness, seen.reads)
			}
			wantLatest(t, h, api)
		})
	}
}

// A Valkey that comes back with an older state of its data is not trusted before everything has been deleted.
func TestValkeyRestartedFromOldFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings []string
		// keep makes the state of now the one that comes back.
		keep func(*servers) (restore func())
	}{
		{"RDB", nil, func(s *servers) func() {
			s.ask("SAVE")
			return func() {}
		}},
		{"append-only file", []string{"appendonly=yes", "appendfsync=always"}, func(s *servers) func() {
			present, kept := filepath.Join(s.valkey.Dir(), "appendonlydir"), filepath.Join(s.t.TempDir(), "kept")
			if err := os.CopyFS(kept, os.DirFS(present)); err != nil {
				s.t.Fatal(err)
			}
			return func() {
				if err := os.RemoveAll(present); err != nil {
					s.t.Fatal(err)
				}
				if err := os.CopyFS(present, os.DirFS(kept)); err != nil {
					s.t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.startValkey(c.settings...)
			api := s.startAPI()
			invalidator := s.startInvalidator()
			s.seed("old")
			api.waitHit(detailPath(1))
			restore := c.keep(s)
			s.psql("update materials set title = 'new'")
			api.waitFor(detailPath(1), "the new row", hasTitle("new"))
			settle(t, s)

			// Without an invalidator, to see that the old entry does come back and is not served.
			invalidator.kill()
			if err := s.valkey.Kill(); err != nil {
				t.Fatal(err)
			}
			restore()
			if err := s.valkey.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.ask("EXISTS " + detailKey); n != ":1" {
				t.Fatalf("the old entry did not come back (%s): the test shows nothing", n)
			}
			for end := time.Now().Add(s.staleness); time.Now().Before(end); {
				if a := api.get(detailPath(1)); !hasTitle("new")(a) {
					t.Fatalf("from the old file: %s", a)
				}
			}
			again := s.startInvalidator()
			if a := api.waitHit(detailPath(1)); !hasTitle("new")(a) {
				t.Errorf("after the invalidator came back: %s", a)
			}
			if n := again.metric("walkey_resyncs_total"); n != 1 {
				t.Errorf("%v resynchronisations, want 1", n)
			}
		})
	}
}
