package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is what a sub-command said before it ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// command runs a sub-command to its end, without a terminal. env is added to its environment.
func (s *servers) command(env []string, name string, args ...string) outcome {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(s.t.Context(), filepath.Join(programs, name), args...)
	c.Dir, c.Stdout, c.Stderr = s.t.TempDir(), &stdout, &stderr
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + s.url, "GORACE=exitcode=66"}, s.atValkey(args...)...)
	c.Env = append(c.Env, env...)
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return outcome{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs a sub-command that has to succeed, and gives what it printed.
func (s *servers) must(env []string, name string, args ...string) string {
	s.t.Helper()
	o := s.command(env, name, args...)
	if o.code != 0 {
		s.t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// script runs SQL by psql, each statement in a transaction of its own.
func (s *servers) script(sql string, args ...string) {
	s.t.Helper()
	c := exec.CommandContext(s.t.Context(), "psql", append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", s.url}, args...)...)
	c.Stdin = strings.NewReader(sql)
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Fatalf("psql: %v\n%s", err, out)
	}
}

type diagnosis struct {
	Status string
	Checks []struct{ Check, Status, Detail, Mend string }
}

// doctor runs doctor and gives what it found and its exit code.
func (s *servers) doctor(env []string, args ...string) (diagnosis, int) {
	s.t.Helper()
	o := s.command(env, "invalidator", append([]string{"doctor", "--json", "--sample=100ms"}, args...)...)
	var d diagnosis
	if err := json.Unmarshal([]byte(o.stdout), &d); err != nil {
		s.t.Fatalf("doctor --json: %v\n%s%s", err, o.stdout, o.stderr)
	}
	return d, o.code
}

// bad are the names of the checks that found something, with the status.
func (d diagnosis) bad() (names []string) {
	for _, c := range d.Checks {
		if c.Status == "FAIL" || c.Status == "WARN" {
			names = append(names, c.Status+" "+c.Check)
		}
	}
	return names
}

func (d diagnosis) mend(check string) string {
	for _, c := range d.Checks {
		if c.Check == check {
			return c.Mend
		}
	}
	return ""
}

// From nothing to a running invalidator and back by the commands: each says the next step.
func TestSetupDoctorTeardown(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_slot_wal_keep_size=1GB")
	if o := s.command(nil, "invalidator", "setup"); o.code != 1 || !strings.Contains(o.stderr, "public.materials; migrate first") {
		t.Errorf("setup before the tables exist: %+v", o)
	}
	s.must(nil, "api", "migrate")

	dry := s.must(nil, "invalidator", "setup", "--dry-run")
	for _, sql := range []string{
		`CREATE PUBLICATION "walkey" FOR TABLE "public"."editors", "public"."materials" WITH (publish_via_partition_root = true);`,
		`SELECT pg_create_logical_replication_slot('walkey', 'pgoutput'`, // more follows from Postgres 17 on
	} {
		if !strings.Contains(dry, "\n"+sql) {
			t.Errorf("the dry run does not print %s:\n%s", sql, dry)
		}
	}
	exists := func(what string) (n int) {
		t.Helper()
		if err := s.connect().QueryRow(t.Context(), "select count(*) from "+what).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if exists("pg_publication")+exists("pg_replication_slots") != 0 {
		t.Fatal("the dry run made something")
	}
	if strings.Contains(dry, "\x1b") {
		t.Error("colour off a terminal")
	}
	s.script(dry) // what is printed is SQL, whole
	s.must(nil, "invalidator", "teardown", "--yes")

	if out := s.must(nil, "invalidator", "setup"); strings.Count(out, ": done") != 2 {
		t.Errorf("the first setup:\n%s", out)
	}
	var again struct {
		Steps []struct{ What, State string }
	}
	if err := json.Unmarshal([]byte(s.must(nil, "invalidator", "setup", "--json")), &again); err != nil {
		t.Fatal(err)
	}
	if len(again.Steps) != 2 || again.Steps[0].State != "present" || again.Steps[1].State != "present" {
		t.Errorf("the second setup: %+v", again)
	}

	invalidator := s.startInvalidator()
	eventually(t, "the slot is held", func() error {
		if exists("pg_replication_slots where active") != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	healthy, code := s.doctor(nil)
	// A superuser, and a Valkey without limits: that is how tests run.
	if diff := cmp.Diff([]string{"WARN role", "WARN maxmemory-policy"}, healthy.bad()); diff != "" || code != 0 {
		t.Errorf("doctor of a healthy system: exit code %d\n%s\n%+v", code, diff, healthy)
	}
	if _, code := s.doctor(nil, "--strict"); code != 1 {
		t.Errorf("doctor --strict with warnings: exit code %d", code)
	}

	if o := s.command(nil, "invalidator", "teardown", "--yes"); o.code != 1 || !strings.Contains(o.stderr, "slot walkey is held by process") || !strings.Contains(o.stderr, "stop the invalidator first") {
		t.Errorf("teardown under a running invalidator: %+v", o)
	}
	invalidator.stop()
	if o := s.command(nil, "invalidator", "teardown"); o.code != 2 || !strings.Contains(o.stderr, "--yes") || exists("pg_replication_slots") != 1 {
		t.Errorf("teardown that can't ask: %+v", o)
	}
	if out := s.must(nil, "invalidator", "teardown", "--dry-run"); !strings.Contains(out, `DROP PUBLICATION "walkey";`) || exists("pg_publication") != 1 {
		t.Errorf("teardown --dry-run:\n%s", out)
	}
	if out := s.must(nil, "invalidator", "teardown", "--yes"); !strings.Contains(out, "of public.editors, public.materials") || exists("pg_replication_slots")+exists("pg_publication") != 0 {
		t.Errorf("teardown:\n%s", out)
	}
	s.must(nil, "invalidator", "teardown") // nothing to ask about
}

// What doctor says mends what it found, until nothing is left to mend.
func TestDoctorMends(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_replication_slots=1")
	s.must(nil, "api", "migrate")
	filter := " where (id > 3)"
	if s.postgres.Version() < 15 {
		filter = "" // row filters came with 15
	}
	s.psql(`create role weak login; create role monitor login; grant connect on database postgres to weak;
		create publication walkey for table materials` + filter + ` with (publish = 'insert');
		alter table materials replica identity nothing;
		select pg_create_physical_replication_slot('other')`)
	weak := "DATABASE_URL=" + strings.Replace(s.url, "postgres@", "weak@", 1)
	found, code := s.doctor([]string{weak})
	want := []string{
		"FAIL replication slots", "FAIL role", "FAIL replication connection", "FAIL publication",
		`FAIL table "public"."editors"`, `FAIL table "public"."materials"`, `FAIL table "public"."materials"`, "FAIL slot", "WARN retained WAL", "WARN maxmemory-policy", "WARN heartbeat",
	}
	if filter == "" {
		want = slices.Delete(want, 5, 6)
	}
	if diff := cmp.Diff(want, found.bad()); diff != "" || code != 1 {
		t.Fatalf("exit code %d, findings (-want +got):\n%s", code, diff)
	}
	for _, c := range found.Checks {
		if (c.Status == "FAIL" || c.Status == "WARN") && c.Mend == "" {
			t.Errorf("%s says no mend: %s", c.Check, c.Detail)
		}
	}
	for _, check := range []string{"role", "publication"} {
		s.script(found.mend(check))
	}
	for _, c := range found.Checks {
		if strings.HasPrefix(c.Check, "table ") && c.Status == "FAIL" {
			s.script(c.Mend)
		}
	}
	s.psql("select pg_drop_replication_slot('other')")
	found, code = s.doctor([]string{weak})
	if slices.ContainsFunc(found.bad(), func(name string) bool { return strings.HasPrefix(name, "FAIL") }) || code != 0 {
		t.Errorf("after the mends: exit code %d, %v", code, found.bad())
	}
}

// Servers that are away are findings too.
func TestDoctorWithoutServers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const secret = "s3cr3t-of-mine"
	nowhere := []string{"DATABASE_URL=postgres://walkey:" + secret + "@127.0.0.1:1/postgres", "VALKEY_PORT=1", "VALKEY_PASSWORD=" + secret}
	o := s.command(nowhere, "invalidator", "doctor")
	if o.code != 1 || !strings.Contains(o.stdout, "FAIL  Postgres connection: ") || !strings.Contains(o.stdout, "FAIL  Valkey connection: ") || !strings.Contains(o.stdout, "SKIP  slot: ") {
		t.Errorf("%+v", o)
	}
	if strings.Contains(o.stdout+o.stderr, secret) {
		t.Errorf("a password is shown:\n%s%s", o.stdout, o.stderr)
	}
}
