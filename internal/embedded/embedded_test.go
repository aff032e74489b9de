package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

const outer = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv("EMBEDDED_TEST_PARENT") != "" {
		parent()
		return
	}
	goleak.VerifyTestMain(m)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(outer)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), outer)
	t.Cleanup(cancel)
	return ctx
}

func startPostgres(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func startValkey(t *testing.T, o ValkeyOptions) *Valkey {
	t.Helper()
	v, err := StartValkey(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return v
}

func queryAt(t *testing.T, url, sql string) string {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var answer string
	if err := conn.QueryRow(ctx, sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func query(t *testing.T, p *Postgres, sql string) string {
	t.Helper()
	return queryAt(t, p.URL(), sql)
}

func TestPostgresIsReadyOnBothWaysIn(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	if got := query(t, p, "SELECT current_setting('wal_level') || ' ' || current_setting('port') || ' ' || current_user"); got != fmt.Sprintf("logical %d postgres", p.Port()) {
		t.Errorf("the server says %q", got)
	}
	if got := query(t, p, "SELECT (current_setting('server_version_num')::int / 10000)::text"); got != fmt.Sprint(p.Version()) {
		t.Errorf("version %d, and the server says %s", p.Version(), got)
	}
	socket := fmt.Sprintf("postgres://postgres@/postgres?host=%s&port=%d", url.QueryEscape(p.SocketDir()), p.Port())
	if got := queryAt(t, socket, "SELECT coalesce(inet_client_addr()::text, 'by socket')"); got != "by socket" {
		t.Errorf("connected %s", got)
	}
}

func TestPostgresStopLeavesNothing(t *testing.T) {
	t.Parallel()
	p, err := StartPostgres(testContext(t), PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pid := p.PID()
	if os.Geteuid() == 0 {
		if owner := ownerOf(t, p.data()); owner == 0 {
			t.Error("root's server runs on files of root")
		}
	}
	if err := p.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Stop: %v, want it gone", pid, err)
	}
	if _, err := os.Stat(p.folder.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s after Stop: %v, want it gone", p.folder.path, err)
	}
	if err := p.Stop(testContext(t)); err != nil {
		t.Errorf("stopped a second time: %v", err)
	}
}

func TestPostgresKeepsPortAndDataOverShutdowns(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	port := p.Port()
	execute(t, p, "CREATE TABLE kept (n int)")
	for n, mode := range []string{"fast", "immediate", "restart", "killed"} {
		execute(t, p, fmt.Sprintf("INSERT INTO kept VALUES (%d)", n))
		before := p.PID()
		switch mode {
		case "restart": // of a server that runs
		case "killed":
			if err := p.current().Kill(); err != nil {
				t.Fatal(err)
			}
		default:
			if err := p.Shutdown(testContext(t), mode); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
			if _, err := pgx.Connect(testContext(t), p.URL()); err == nil {
				t.Fatalf("%s: connected to a server that was shut down", mode)
			}
		}
		if err := p.Restart(testContext(t)); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if p.PID() == before || p.Port() != port {
			t.Errorf("%s: process %d on port %d, want another than %d on %d", mode, p.PID(), p.Port(), before, port)
		}
		if got := query(t, p, "SELECT count(*)::text FROM kept"); got != fmt.Sprint(n+1) {
			t.Errorf("%s: %s rows, want %d", mode, got, n+1)
		}
	}
	if err := p.Shutdown(testContext(t), "smart"); err == nil {
		t.Error("an unknown way to shut down is no error")
	}
}

func execute(t *testing.T, p *Postgres, sql string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestPostgresReloadTakesNewSettings(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{Settings: map[string]string{"work_mem": "1MB"}})
	if got := query(t, p, "SHOW work_mem"); got != "1MB" {
		t.Errorf("work_mem %s, want 1MB", got)
	}
	execute(t, p, "ALTER SYSTEM SET work_mem = '3MB'")
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new setting", func() bool { return query(t, p, "SHOW work_mem") == "3MB" })
}

func TestPostgresThatCanNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(testContext(t), PostgresOptions{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("started with %v, want an error with the server's own words", err)
	}
	if path := folderIn(err); path == "" {
		t.Errorf("no folder in %v", err)
	} else if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s of a failed start: %v, want it gone", path, err)
	}
}

func TestPostgresGoesOnWithANamedFolder(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	first := startPostgres(t, PostgresOptions{Dir: dir})
	execute(t, first, "CREATE TABLE kept ()")
	if err := first.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	second := startPostgres(t, PostgresOptions{Dir: dir, Settings: map[string]string{"work_mem": "2MB"}})
	if got := query(t, second, "SELECT coalesce(to_regclass('kept')::text, 'lost') || ' ' || current_setting('work_mem')"); got != "kept 2MB" {
		t.Errorf("the second server says %q, want the first one's table and its own setting", got)
	}
	if first.log.String() != "" && !strings.Contains(first.Log(), "database system is shut down") {
		t.Errorf("the first server was not shut down in good order:\n%s", first.Log())
	}
}

func TestValkeyStopLeavesNothing(t *testing.T) {
	t.Parallel()
	v, err := StartValkey(testContext(t), ValkeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v.Addr() != fmt.Sprintf("%s:%d", v.Host(), v.Port()) {
		t.Errorf("address %s of %s and %d", v.Addr(), v.Host(), v.Port())
	}
	if err := v.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(v.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Stop: %v, want it gone", v.PID(), err)
	}
	if _, err := os.Stat(v.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s after Stop: %v, want it gone", v.Dir(), err)
	}
}

func TestValkeyKeepsPortAndFolderOverAKill(t *testing.T) {
	t.Parallel()
	v := startValkey(t, ValkeyOptions{Settings: map[string]string{"appendonly": "yes", "appendfsync": "always"}})
	pid, addr := v.PID(), v.Addr()
	command(t, v, "SET kept yes")
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		t.Fatalf("connected to %s of a killed server", conn.RemoteAddr())
	}
	if err := v.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if v.PID() == pid || v.Addr() != addr {
		t.Errorf("process %d on %s, want another than %d on %s", v.PID(), v.Addr(), pid, addr)
	}
	if got := command(t, v, "EXISTS kept"); got != ":1" {
		t.Errorf("EXISTS kept after a kill: %s, want :1", got)
	}
	if err := v.Restart(testContext(t)); err != nil { // of a server that runs
		t.Fatal(err)
	}
}

func TestValkeyFreezes(t *testing.T) {
	t.Parallel()
	v := startValkey(t, ValkeyOptions{})
	if err := v.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", v.Addr()) // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frozen server answered: %d bytes, %v", n, err)
	}
	if err := v.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := command(t, v, "PING"); got != "+PONG" {
		t.Errorf("PING after SIGCONT: %s", got)
	}
}

func TestValkeyWithAPasswordIsReady(t *testing.T) {
	t.Parallel()
	v := startValkey(t, ValkeyOptions{Settings: map[string]string{"requirepass": "secret"}})
	if got := command(t, v, "AUTH secret"); got != "+OK" {
		t.Errorf("AUTH: %s", got)
	}
}

func TestValkeyThatCanNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := StartValkey(testContext(t), ValkeyOptions{Settings: map[string]string{"no-such-directive": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-directive") {
		t.Errorf("started with %v, want an error with the server's own words", err)
	}
}

func TestPortThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	v := startValkey(t, ValkeyOptions{})
	if _, err := StartValkey(testContext(t), ValkeyOptions{Port: v.Port()}); !errors.Is(err, errPortTaken) {
		t.Errorf("a second Valkey on port %d: %v, want %v", v.Port(), err, errPortTaken)
	}
	if _, err := StartPostgres(testContext(t), PostgresOptions{Port: v.Port()}); !errors.Is(err, errPortTaken) {
		t.Errorf("a Postgres on port %d: %v, want %v", v.Port(), err, errPortTaken)
	}
}

func TestSweepTakesFoldersOfDeadOwnersOnly(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-time.Hour)
	make := func(locked, held bool, age time.Time) string {
		t.Helper()
		path, err := os.MkdirTemp("", folderPrefix)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(path) })
		if locked {
			lock, err := takeLock(filepath.Join(path, lockName))
			if err != nil {
				t.Fatal(err)
			}
			if held {
				t.Cleanup(func() { _ = lock.Close() })
			} else if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(path, lockName), age, age); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, age, age); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folders := map[string]string{
		"held":              make(true, true, long),
		"of a dead owner":   make(true, false, long),
		"new, not held yet": make(true, false, time.Now()),
		"without a lock":    make(false, false, long),
		"new, without lock": make(false, false, time.Now()),
	}
	sweep()
	left := map[string]bool{}
	for name, path := range folders {
		_, err := os.Stat(path)
		left[name] = err == nil
	}
	want := map[string]bool{"held": true, "of a dead owner": false, "new, not held yet": true, "without a lock": false, "new, without lock": true}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("folders left (-want +got):\n%s", diff)
	}
}

func TestTemplateThatIsNotWholeIsMadeAnew(t *testing.T) {
	t.Setenv("TMPDIR", reachableDir(t))
	start := func() {
		t.Helper()
		p, err := StartPostgres(testContext(t), PostgresOptions{})
		if err != nil {
			t.Fatal(err)
		}
		query(t, p, "SELECT 'ok'")
		if err := p.Stop(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	start()
	templates, err := filepath.Glob(filepath.Join(os.TempDir(), "walkey_initdb_*"))
	if err != nil || len(templates) != 1 {
		t.Fatalf("templates: %v, %v; want one", templates, err)
	}
	if err := os.Remove(filepath.Join(templates[0], "global", "pg_control")); err != nil {
		t.Fatal(err)
	}
	start()
}

func TestVersionsAreUnderstood(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": "15.18",
		"postgres (PostgreSQL) 18.1\n":                           "18.1",
		"postgres (PostgreSQL) 18beta1\n":                        "18beta1",
		"postgres (PostgreSQL) 13.4\n":                           "",
		"postgres (PostgreSQL) 19.0\n":                           "",
		"something else\n":                                       "",
	} {
		got, err := parsePostgresVersion(text)
		if got.version != want || (err == nil) != (want != "") {
			t.Errorf("%q is version %q (%v), want %q", text, got.version, err, want)
		}
	}
	for text, want := range map[string]int{
		"Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64": 7,
		"Redis server v=6.2.1 sha=0":                                         0,
		"something else":                                                     0,
	} {
		got, err := parseRedisVersion(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q is version %d (%v), want %d", text, got, err, want)
		}
	}
}

// command sends one inline command and returns the first line of the answer.
func command(t *testing.T, v *Valkey, text string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", v.Addr(), outer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(outer)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text + "\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(answer[:n]), "\r\n")
	return line
}

// reachableDir is a temporary folder that user postgres can enter too, which t.TempDir is not.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walkey_test_")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// folderIn is the server's folder that an error names.
func folderIn(err error) string {
	_, rest, _ := strings.Cut(fmt.Sprint(err), " in ")
	path, _, _ := strings.Cut(rest, ":")
	return path
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// parent is this test binary as a process that is killed: it starts two servers and prints what they are.
func parent() {
	ctx := context.Background()
	p, err := StartPostgres(ctx, PostgresOptions{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	v, err := StartValkey(ctx, ValkeyOptions{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID(), v.PID(), p.URL(), p.folder.path, v.folder.path)
	fmt.Println("ready")
	select {}
}
