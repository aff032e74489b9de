package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// The versions of Postgres that Walkey works with.
const (
	oldestPostgres = 14
	newestPostgres = 18
)

// ErrNotInstalled says that a server's program was not found on this machine.
var ErrNotInstalled = errors.New("not installed")

// installation is a Postgres that is on this machine.
type installation struct {
	bin     string // folder of postgres and initdb
	version string // "15.18"
	major   int
}

var postgresVersion = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[.\w]*)`)

// findPostgres returns the newest installed version that Walkey works with. WALKEY_POSTGRES_BIN names a folder instead.
func findPostgres(ctx context.Context) (installation, error) {
	if bin := os.Getenv("WALKEY_POSTGRES_BIN"); bin != "" {
		return inspectPostgres(ctx, bin)
	}
	var candidates []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                                                           // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                                                    // Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",                                                  // macOS
		"/usr/local/opt/postgresql@*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*", // macOS, source, Alpine
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return installation{}, err
		}
		candidates = append(candidates, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(real))
		}
	}
	var best installation
	var problems []error
	for _, bin := range candidates {
		i, err := inspectPostgres(ctx, bin)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if i.major > best.major {
			best = i
		}
	}
	if best.bin == "" {
		problems = append(problems, fmt.Errorf("a Postgres server of version %d to %d: %w (set WALKEY_POSTGRES_BIN to the folder of its programs if it is elsewhere)",
			oldestPostgres, newestPostgres, ErrNotInstalled))
		slices.Reverse(problems)
		return installation{}, errors.Join(problems...)
	}
	return best, nil
}

func inspectPostgres(ctx context.Context, bin string) (installation, error) {
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return installation{}, fmt.Errorf("no server in %s: %w", bin, err)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return installation{}, fmt.Errorf("ask %s/postgres for its version: %w", bin, err)
	}
	i, err := parsePostgresVersion(string(out))
	i.bin = bin
	return i, err
}

func parsePostgresVersion(text string) (installation, error) {
	m := postgresVersion.FindStringSubmatch(text)
	if m == nil {
		return installation{}, fmt.Errorf("unknown version of Postgres: %q", text)
	}
	major, err := strconv.Atoi(m[2])
	if err != nil || major < oldestPostgres || major > newestPostgres {
		return installation{}, fmt.Errorf("version %s of Postgres is outside %d to %d", m[1], oldestPostgres, newestPostgres)
	}
	return installation{version: m[1], major: major}, nil
}

var (
	redisVersion = regexp.MustCompile(`v=(\d+)\.`)
	oldestRedis  = 7
)

// findValkey returns the path of valkey-server, or of a redis-server that can stand in for it together with a warning that says
// so. WALKEY_VALKEY_BIN names a program instead.
func findValkey(ctx context.Context) (path, warning string, err error) {
	if path := os.Getenv("WALKEY_VALKEY_BIN"); path != "" {
		path, err := exec.LookPath(path)
		return path, "", err
	}
	if path, err := lookServer("valkey-server"); err == nil {
		return path, "", nil
	}
	path, err = lookServer("redis-server")
	if err != nil {
		return "", "", fmt.Errorf("valkey-server, or redis-server %d or later: %w (set WALKEY_VALKEY_BIN to its path if it is elsewhere)", oldestRedis, ErrNotInstalled)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	major, err := parseRedisVersion(string(out))
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", path, err)
	}
	return path, fmt.Sprintf("valkey-server is not installed: %s (version %d) stands in for it\n", path, major), nil
}

func parseRedisVersion(text string) (int, error) {
	m := redisVersion.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("unknown version of Redis: %q", text)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil || major < oldestRedis {
		return 0, fmt.Errorf("version %s of Redis is older than %d", m[1], oldestRedis)
	}
	return major, nil
}

// lookServer looks in PATH and in the folders of system programs, which PATH often lacks.
func lookServer(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}
