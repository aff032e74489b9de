package program_test

import (
	"os"
	"strings"
	"testing"
)

// TestDatabaseFromVariables is not parallel: pgx reads the environment of the process.
func TestDatabaseFromVariables(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"} {
		t.Setenv(name, "") // as good as not given
	}
	services := write(t, t.TempDir(), "services", "[walkey]\nhost=from-service\nuser=somebody\n")
	for _, test := range []struct {
		name   string
		set    map[string]string // in the environment
		dotEnv string
		args   []string
		want   string // DatabaseURL
		fault  string // in what is printed; empty when the program runs
	}{
		{name: "nothing", want: "postgres://postgres@127.0.0.1:5432/postgres"},
		{name: "a host", set: map[string]string{"PGHOST": "db"}},
		{name: "a service", set: map[string]string{"PGSERVICE": "walkey", "PGSERVICEFILE": services}},
		{name: "a password alone", set: map[string]string{"PGPASSWORD": "s3cr3t"}, want: "postgres://postgres@127.0.0.1:5432/postgres"},
		{name: "a URL beside a host", set: map[string]string{"PGHOST": "db", "DATABASE_URL": "postgres://h/d"}, want: "postgres://h/d"},
		{name: "a flag beside a host", set: map[string]string{"PGHOST": "db"}, args: []string{"--database-url=postgres://postgres@127.0.0.1:5432/postgres"}, want: "postgres://postgres@127.0.0.1:5432/postgres"},
		{name: "a host in .env", dotEnv: "PGHOST=db\n", fault: "PGHOST: counts in the environment only"},
		{name: "no such service", set: map[string]string{"PGSERVICE": "nothing", "PGSERVICEFILE": services}, fault: "PGSERVICE: "},
		{name: "a port that is none", set: map[string]string{"PGPORT": "http", "PGPASSWORD": "s3cr3t"}, fault: "PGPORT: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.set {
				t.Setenv(name, value)
			}
			dir := t.TempDir()
			if test.dotEnv != "" {
				write(t, dir, ".env", test.dotEnv)
			}
			r := run(t, dir, os.Environ(), test.args, nil)
			if strings.Contains(r.stderr, "s3cr3t") {
				t.Errorf("a password is shown: %s", r.stderr)
			}
			if test.fault != "" {
				if r.code != 2 || !strings.Contains(r.stderr, test.fault) {
					t.Errorf("exit code %d: %s", r.code, r.stderr)
				}
				return
			}
			if r.code != 0 || r.work.DatabaseURL != test.want {
				t.Errorf("exit code %d, URL %q, want %q\n%s", r.code, r.work.DatabaseURL, test.want, r.stderr)
			}
		})
	}
}
