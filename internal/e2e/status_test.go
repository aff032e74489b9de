package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// report is what status --json says, as far as tests look at it.
type report struct {
	State, Colour, Sentence, Reason string
	Remarks                         []string
	Process                         *struct {
		Role         string
		Transactions int
		Resync       *struct{ Deleted int }
	}
	Stream struct {
		LagBytes   *int64   `json:"lag_bytes"`
		LagSeconds *float64 `json:"lag_seconds"`
		Deleted    string   `json:"deleted_lsn"`
		Confirmed  string   `json:"confirmed_lsn"`
		WALEnd     string   `json:"wal_end_lsn"`
	}
	Slot struct {
		Name           string
		Exists, Active bool
	}
	Postgres struct {
		Up             bool
		Version, Error string
	}
	Valkey struct {
		Up    bool
		Error string
		Nodes []struct {
			Version, Policy        string
			UsedMemory             int64 `json:"used_memory"`
			MaxMemory              int64 `json:"max_memory"`
			Evicted, Hits, Clients int64
			PingSeconds            float64 `json:"ping_seconds"`
		}
	}
	APIs []struct {
		Address, Version, Host string
		Trusted                bool
		HitsLocal              int      `json:"hits_local"`
		HitRate                *float64 `json:"hit_rate"`
	}
}

// nowhere is where no invalidator answers.
const nowhere = "INVALIDATOR_ADDR=127.0.0.1:1"

// status runs status --json and gives what it said, and its exit code.
func (s *servers) status(env ...string) (report, int) {
	s.t.Helper()
	o := s.command(append([]string{"MAX_STALENESS=" + s.staleness.String()}, env...), "invalidator", "status", "--json")
	var r report
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		s.t.Fatalf("status --json: %v\n%s%s", err, o.stdout, o.stderr)
	}
	return r, o.code
}

// at is the variable by which a command asks the program.
func (p *program) at() string { return "INVALIDATOR_ADDR=" + strings.TrimPrefix(p.Base, "http://") }

// Each situation is told for what it is, by the running process and by the servers alone.
func TestStatusTellsEachSituation(t *testing.T) {
	t.Parallel()
	for _, one := range situations {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			p := one.bring(s)
			tells := func(env, state string, asked bool) (r report) {
				t.Helper()
				var code int
				eventually(t, "status says "+state, func() error {
					if r, code = s.status(env); r.State != state {
						return fmt.Errorf("%+v", r)
					}
					return nil
				})
				if want := map[bool]int{false: 0, true: 1}[one.red]; code != want || (r.Colour == "red") != one.red {
					t.Errorf("%s: exit code %d, %s", state, code, r.Colour)
				}
				if r.Sentence == "" || (r.Colour == "green") != (r.Reason == "") {
					t.Errorf("%s: the sentence is %q, the reason %q", state, r.Sentence, r.Reason)
				}
				if (r.Process != nil) != asked {
					t.Errorf("%s: the process is %+v", state, r.Process)
				}
				return r
			}
			asked := tells(p.at(), one.state, true)
			alone := tells(nowhere, one.other, false)
			if up := one.state != "postgres down"; asked.Postgres.Up != up || alone.Postgres.Up != up || up == (asked.Postgres.Error != "") {
				t.Errorf("Postgres: %+v, %+v", asked.Postgres, alone.Postgres)
			}
			if up := one.state != "valkey down"; asked.Valkey.Up != up || alone.Valkey.Up != up || up == (asked.Valkey.Error != "") {
				t.Errorf("Valkey: %+v, %+v", asked.Valkey, alone.Valkey)
			}
			o := s.command([]string{p.at()}, "invalidator", "status")
			if !strings.HasPrefix(o.stdout, "● ") || strings.Contains(o.stdout, "\x1b") || !strings.Contains(o.stdout, "\nslot ") {
				t.Errorf("for people:\n%s%s", o.stdout, o.stderr)
			}
		})
	}
}

// While all is well, everything that is shown is so.
func TestStatusHasTheFacts(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	p := s.active()
	s.seed("one")
	api.waitHit(detailPath(1))
	api.get(detailPath(1))
	eventually(t, "the api says that it had hits", func() error {
		r, _ := s.status(nowhere)
		if len(r.APIs) != 1 || r.APIs[0].HitsLocal < 1 || !r.APIs[0].Trusted {
			return fmt.Errorf("%+v", r.APIs)
		}
		if a := r.APIs[0]; "http://"+a.Address != api.Base || a.Version == "" || a.Host == "" || a.HitRate == nil || *a.HitRate <= 0 || *a.HitRate >= 1 {
			t.Errorf("%+v", a)
		}
		return nil
	})
	var r report
	eventually(t, "the transaction is counted", func() error {
		if r, _ = s.status(p.at()); r.Process == nil || r.Process.Transactions != 1 {
			return fmt.Errorf("%+v", r.Process)
		}
		return nil
	})
	if r.Stream.LagBytes == nil || r.Stream.LagSeconds == nil || r.Stream.Deleted == "" || r.Stream.Confirmed == "" || r.Stream.WALEnd == "" {
		t.Errorf("stream: %+v", r.Stream)
	}
	if r.Slot.Name != "walkey" || !r.Slot.Exists || !r.Slot.Active || r.Postgres.Version == "" {
		t.Errorf("slot %+v, Postgres %+v", r.Slot, r.Postgres)
	}
	if n := r.Valkey.Nodes; len(n) != 1 || n[0].Version == "" || n[0].UsedMemory == 0 || n[0].Clients < 3 || n[0].PingSeconds <= 0 {
		t.Errorf("Valkey %+v", n)
	}
	// Another slot's process is not asked.
	if r, code := s.status(p.at(), "SLOT_NAME=other"); r.Process != nil || r.State != "nobody active" || code != 1 {
		t.Errorf("of another slot: exit code %d, %+v", code, r)
	}
	if o := s.command([]string{p.at()}, "invalidator", "status"); !strings.Contains(o.stdout, "trusts the cache") || !strings.Contains(o.stdout, "active for") {
		t.Errorf("for people:\n%s", o.stdout)
	}
}

// No password is shown, whatever fails.
func TestStatusShowsNoSecret(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const secret = "s3cr3t-of-mine"
	env := []string{nowhere, "DATABASE_URL=postgres://walkey:" + secret + "@127.0.0.1:1/postgres", "VALKEY_PORT=1", "VALKEY_PASSWORD=" + secret}
	p := s.launch("invalidator", append(env[1:], "VALKEY_USERNAME=walkey"))
	for _, asked := range []string{nowhere, p.at()} {
		env[0] = asked
		for _, args := range [][]string{{"status"}, {"status", "--json"}} {
			var o outcome
			eventually(t, "status says that Postgres is down", func() error {
				if o = s.command(env, "invalidator", args...); !strings.Contains(o.stdout, "postgres down") {
					return fmt.Errorf("%+v", o)
				}
				return nil
			})
			if strings.Contains(o.stdout+o.stderr, secret) || o.code != 1 {
				t.Errorf("%v: exit code %d\n%s%s", args, o.code, o.stdout, o.stderr)
			}
		}
	}
}

// following is a sub-command that goes on.
type following struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of standard output
	said  chan string // of standard error
	rest  []string    // of standard output, after stop
}

// follow starts a sub-command that is ended by the test, or by stop.
func (s *servers) follow(t *testing.T, env []string, args ...string) *following {
	t.Helper()
	f := &following{t: t, cmd: exec.Command(filepath.Join(programs, "invalidator"), args...), lines: make(chan string, 1000), said: make(chan string, 1000)}
	f.cmd.Dir = t.TempDir()
	f.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + s.url, "GORACE=exitcode=66", "VALKEY_HOST=" + s.valkey.Host(), fmt.Sprint("VALKEY_PORT=", s.valkey.Port())}, env...)
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	complaints, err := f.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := func(from *bufio.Scanner, to chan string) {
		defer close(to)
		for from.Scan() {
			to <- from.Text()
		}
	}
	go read(bufio.NewScanner(out), f.lines)
	go read(bufio.NewScanner(complaints), f.said)
	t.Cleanup(func() {
		if f.cmd.ProcessState == nil {
			_ = f.cmd.Process.Kill()
			for range f.lines { // until it is gone
			}
			for range f.said {
			}
			_ = f.cmd.Wait()
		}
	})
	return f
}

// next gives the next line of what is written.
func (f *following) next(what string, from chan string) string {
	f.t.Helper()
	select {
	case line, open := <-from:
		if !open {
			f.t.Fatalf("%v ended before %s", f.cmd.Args, what)
		}
		return line
	case <-timeLimit(f.t):
		f.t.Fatalf("no line in %s: %s", patience, what)
	}
	return ""
}

// stop ends it as Ctrl-C does, and checks that it ends well.
func (f *following) stop() {
	f.t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGINT); err != nil {
		f.t.Fatal(err)
	}
	for line := range f.lines {
		f.rest = append(f.rest, line)
	}
	for range f.said { // until it is gone
	}
	if err := f.cmd.Wait(); err != nil {
		f.t.Errorf("%v ended with %v", f.cmd.Args, err)
	}
}

func TestStatusWatchTellsChanges(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI()
	p := s.active()
	f := s.follow(t, []string{p.at(), "MAX_STALENESS=2s"}, "status", "--watch")
	stream := s.follow(t, []string{p.at(), "MAX_STALENESS=2s"}, "status", "--watch", "--json")
	until := func(f *following, text string) {
		t.Helper()
		for !strings.Contains(f.next(text, f.lines), text) {
		}
	}
	until(f, " healthy: ")
	for range 2 {
		until(stream, `"state":"healthy"`)
	}
	if err := s.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	until(f, " valkey down: ")
	p.stop() // from now on the servers are asked
	if err := s.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(f, " nobody active: ")
	f.stop()
	stream.stop()
}
