package program_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"walkey/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// commandLine is a program in small: a default command with all groups of options, and one without.
type commandLine struct {
	Run     work            `cmd:"" default:"withargs" help:"Work."`
	Version program.Version `cmd:"" help:"Say which build this is."`
}

type work struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	program.Logging  `embed:""`

	Addr  program.Address `env:"WORK_ADDR" default:":0" help:"Address."`
	Count int             `default:"1" help:"How often."`

	err error
	ran bool
}

func (w *work) Run(ctx context.Context, p *program.Process) error {
	w.ran = ctx.Err() == nil
	return w.err
}

type result struct {
	code           int
	work           work
	stdout, stderr string
}

func run(t *testing.T, dir string, environ, args []string, fail error) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	grammar := commandLine{Run: work{err: fail}}
	code := program.Run(t.Context(), &program.Process{
		Name: "worker", Args: args, Environ: environ, Dir: dir, Stdout: &stdout, Stderr: &stderr,
	}, "Works.", &grammar)
	return result{code, grammar.Run, stdout.String(), stderr.String()}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	r := run(t, t.TempDir(), nil, nil, nil)
	want := work{
		Postgres: program.Postgres{DatabaseURL: "postgres://postgres@127.0.0.1:5432/postgres"},
		Valkey:   program.Valkey{ValkeyHost: "127.0.0.1", ValkeyPort: 6379},
		Cache:    program.Cache{CachePrefix: "bloodofjesus", CacheTTL: 300 * time.Second, CacheCompression: "zlib", MaxStaleness: 5 * time.Second},
		Logging:  program.Logging{LogLevel: "info"},
		Addr:     ":0", Count: 1, ran: true,
	}
	if diff := cmp.Diff(want, r.work, cmp.AllowUnexported(work{})); diff != "" || r.code != 0 {
		t.Errorf("exit code %d, %s\noptions (-want +got):\n%s", r.code, r.stderr, diff)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	const dotEnv = "VALKEY_HOST=from-dot-env\nexport CACHE_PREFIX='from dot env'\n"
	tests := []struct {
		name    string
		dotEnv  string
		environ []string
		args    []string
		want    string // VALKEY_HOST
	}{
		{"default", "", nil, nil, "127.0.0.1"},
		{".env", "VALKEY_HOST=from-dot-env\n", nil, nil, "from-dot-env"},
		{"environment over .env", "VALKEY_HOST=from-dot-env\n", []string{"VALKEY_HOST=from-env"}, nil, "from-env"},
		{"flag over environment", dotEnv, []string{"VALKEY_HOST=from-env", "CACHE_PREFIX=x"}, []string{"--valkey-host=from-flag"}, "from-flag"},
		{"flag of the named command", "", []string{"VALKEY_HOST=from-env"}, []string{"run", "--valkey-host", "from-flag"}, "from-flag"},
		{"empty is not given", "VALKEY_HOST=from-dot-env\n", []string{"VALKEY_HOST="}, nil, "from-dot-env"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if tt.dotEnv != "" {
				write(t, dir, ".env", tt.dotEnv)
			}
			r := run(t, dir, tt.environ, tt.args, nil)
			if r.code != 0 || r.work.ValkeyHost != tt.want {
				t.Errorf("exit code %d, host %q, want %q\n%s", r.code, r.work.ValkeyHost, tt.want, r.stderr)
			}
		})
	}
}

func TestFileVariants(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := write(t, dir, "secret", " pass word \n")
	windows := write(t, dir, "windows", "secret\r\n")
	number := write(t, dir, "number", "7000\n")
	tests := []struct {
		name     string
		environ  []string
		code     int
		password string
		port     program.Port
		stderr   string
	}{
		{"one line end is trimmed", []string{"VALKEY_PASSWORD_FILE=" + secret}, 0, " pass word ", 6379, ""},
		{"and a Windows one", []string{"VALKEY_PASSWORD_FILE=" + windows}, 0, "secret", 6379, ""},
		{"for every variable", []string{"VALKEY_PORT_FILE=" + number}, 0, "", 7000, ""},
		{"both", []string{"VALKEY_PASSWORD=x", "VALKEY_PASSWORD_FILE=" + secret}, 2, "", 0, "both VALKEY_PASSWORD and VALKEY_PASSWORD_FILE are set"},
		{"no such file", []string{"VALKEY_PASSWORD_FILE=" + filepath.Join(dir, "none")}, 2, "", 0, "VALKEY_PASSWORD_FILE names a file that can't be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, t.TempDir(), tt.environ, nil, nil)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.stderr) {
				t.Fatalf("exit code %d, %q", r.code, r.stderr)
			}
			if tt.code == 0 && (r.work.ValkeyPassword != tt.password || r.work.ValkeyPort != tt.port) {
				t.Errorf("password %q, port %d", r.work.ValkeyPassword, r.work.ValkeyPort)
			}
		})
	}
}

func TestFileVariantOfTheEnvironmentBeatsDotEnv(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, ".env", "VALKEY_PASSWORD=from-dot-env\n")
	r := run(t, dir, []string{"VALKEY_PASSWORD_FILE=" + write(t, dir, "secret", "from-file")}, nil, nil)
	if r.code != 0 || r.work.ValkeyPassword != "from-file" {
		t.Errorf("exit code %d, password %q\n%s", r.code, r.work.ValkeyPassword, r.stderr)
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, ".env", "MAX_STALENESS=500ms\n")
	r := run(t, dir, []string{
		"VALKEY_PORT=tcp://10.0.0.7:6379",
		"VALKEY_ADDRS=10.0.0.8:6379,10.0.0.9",
		"VALKEY_CA=/nonexistent",
		"CACHE_COMPRESSION=lzo",
		"CACHE_TTL=long",
		"CACHE_PREFIX=two words",
		"DATABASE_URL=postgres://u:sec/ret@h:5432/db",
		"VALKEY_HOST=a:6379",
	}, []string{"--log-level=loud", "--addr=8080", "--count=many"}, nil)
	if r.code != 2 || r.work.ran {
		t.Fatalf("exit code %d, ran %v\n%s", r.code, r.work.ran, r.stderr)
	}
	for _, want := range []string{
		"12 mistakes",
		"VALKEY_PORT (--valkey-port): ", "enableServiceLinks",
		`VALKEY_ADDRS (--valkey-addrs): "10.0.0.9" is not an address`,
		"VALKEY_CA (--valkey-ca): ", "VALKEY_TLS=true",
		"CACHE_COMPRESSION (--cache-compression): must be one of zlib, zstd, gzip, none",
		"CACHE_TTL (--cache-ttl): ",
		"CACHE_PREFIX (--cache-prefix): ",
		"MAX_STALENESS (--max-staleness): must be at least 1s, not 500ms",
		"DATABASE_URL (--database-url): ", "percent-encoded",
		"VALKEY_HOST (--valkey-host): ",
		"LOG_LEVEL (--log-level): must be one of debug, info, warn, error",
		"WORK_ADDR (--addr): ",
		"--count: ",
	} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("not told: %s", want)
		}
	}
	if t.Failed() {
		t.Log(r.stderr)
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	t.Parallel()
	for _, conn := range []string{
		"postgres://user:hunter2/x@host:5432/db",
		"postgres://user:hunter2@host:port/db",
		"postgres://user:hunter2%zz@host/db",
		"postgres://user:hunter2@host/db?sslmode=hunter2",
		"postgres://user@host/db?password=hunter2&sslmode=bad",
		"host=h password=hunter2 sslmode=bad",
		"user=u password='hunter2",
		"hunter2",
	} {
		r := run(t, t.TempDir(), []string{"DATABASE_URL=" + conn}, nil, nil)
		if r.code != 2 || !strings.Contains(r.stderr, "DATABASE_URL") {
			t.Errorf("%s: exit code %d, %s", conn, r.code, r.stderr)
		}
		if strings.Contains(r.stderr+r.stdout, "hunter2") {
			t.Errorf("%s: the secret is in %q", conn, r.stderr)
		}
	}
}

func TestDotEnvThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	t.Run("malformed", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, ".env", "# comment\nVALKEY_HOST=h\nwhat is this\nVALKEY_PASSWORD=hunter2\n")
		r := run(t, dir, nil, nil, nil)
		if r.code != 2 || !strings.Contains(r.stderr, "line 3") || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, ".env"), 0o700); err != nil {
			t.Fatal(err)
		}
		if r := run(t, dir, nil, nil, nil); r.code != 2 || !strings.Contains(r.stderr, ".env can't be read") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
	t.Run("does not matter to a command without variables", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, ".env", "what is this\n")
		if r := run(t, dir, []string{"VALKEY_PORT=x"}, []string{"version"}, nil); r.code != 0 {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	})
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		err  error
		code int
		want string
	}{
		{"done", nil, nil, 0, ""},
		{"failed", nil, errors.New("the disk is full"), 1, "worker: the disk is full\n"},
		{"usage found by the command", nil, &program.UsageError{Message: "no such rule"}, 2, "worker: no such rule\n"},
		{"unknown flag", []string{"--bogus"}, nil, 2, "unknown flag --bogus"},
		{"unknown command", []string{"bogus"}, nil, 2, "bogus"},
		{"flag of the default command before another", []string{"--count=2", "version"}, nil, 2, "--count"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, t.TempDir(), nil, tt.args, tt.err)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("exit code %d, want %d: %q", r.code, tt.code, r.stderr)
			}
		})
	}
}

func TestHelpNamesFlagsAndVariables(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"run", "--help"}} {
		r := run(t, t.TempDir(), []string{"VALKEY_PORT=nonsense"}, args, nil)
		if r.code != 0 || r.work.ran {
			t.Errorf("%v: exit code %d, ran %v", args, r.code, r.work.ran)
		}
		text := strings.Join(strings.Fields(r.stdout), " ")
		for _, want := range []string{"--valkey-port=PORT", "$VALKEY_PORT, default 6379", "$DATABASE_URL", "$MAX_STALENESS, default 5s", "--count"} {
			if !strings.Contains(text, want) {
				t.Errorf("%v: no %q in\n%s", args, want, r.stdout)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	r := run(t, t.TempDir(), nil, []string{"version", "--json"}, nil)
	var build program.Build
	if err := json.Unmarshal([]byte(r.stdout), &build); err != nil {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	if build.Program != "worker" || !strings.HasPrefix(build.Go, "go1.") || r.code != 0 {
		t.Errorf("exit code %d, %+v", r.code, build)
	}
	if r := run(t, t.TempDir(), nil, []string{"version"}, nil); !strings.HasPrefix(r.stdout, "worker ") {
		t.Errorf("printed %q", r.stdout)
	}
}
