package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"walkey/internal/child"
	"walkey/internal/freeport"
)

// pooler starts PgBouncer before the stack's server and gives the URL through it.
func (s *stack) pooler(settings string) string {
	s.t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		s.t.Skip("PgBouncer is not installed; deploy/local/setup.sh pooler installs it on Debian")
	}
	port, err := freeport.Pick()
	if err != nil {
		s.t.Fatal(err)
	}
	folder := s.postgres.SocketDir() // of the server's user: PgBouncer does not run as root
	users := writeAs(s.t, folder, fmt.Sprintf("users-%d", port), 0o600, "\"postgres\" \"\"\n")
	config := writeAs(s.t, folder, fmt.Sprintf("pooler-%d.ini", port), 0o600, fmt.Sprintf(
		"[databases]\n* = host=%s port=%d\n[pgbouncer]\nlisten_addr = %s\nlisten_port = %d\nunix_socket_dir =\nauth_type = trust\nauth_file = %s\npool_mode = transaction\n%s\n",
		freeport.Host, s.postgres.Port(), freeport.Host, port, users, settings))
	info, err := os.Stat(config)
	if err != nil {
		s.t.Fatal(err)
	}
	var user *syscall.Credential
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Getuid() {
		user = &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
	}
	log := &logBuffer{}
	process, err := child.Start(child.Command{Path: program, Args: []string{config}, Dir: folder, Env: []string{"PATH=" + os.Getenv("PATH")}, Output: log, User: user})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			s.t.Errorf("kill PgBouncer: %v", err)
		}
		if s.t.Failed() {
			s.t.Logf("PgBouncer said:\n%s", log.tail())
		}
	})
	addr := net.JoinHostPort(freeport.Host, strconv.Itoa(port))
	eventually(s.t, "PgBouncer listens", func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return strings.Replace(s.url, ":"+strconv.Itoa(s.postgres.Port())+"/", ":"+strconv.Itoa(port)+"/", 1)
}

// A URL that leads to PgBouncer is told apart from a server that is set up wrongly.
func TestPooler(t *testing.T) {
	t.Parallel()
	const told = "DATABASE_URL leads to a pooler (PgBouncer or the like)"
	s := newStack(t)
	s.must(nil, "api", "migrate")
	for _, test := range []struct{ name, settings string }{
		{"as it is by default", ""},
		{"told to ignore what it does not know", "ignore_startup_parameters = statement_timeout,lock_timeout,idle_session_timeout,replication,wal_sender_timeout,logical_decoding_work_mem," +
			"extra_float_digits,IntervalStyle,bytea_output,client_min_messages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			through := []string{"DATABASE_URL=" + s.pooler(test.settings)}
			found, code := s.doctor(through)
			warned, failed := false, false
			for _, c := range found.Checks {
				warned = warned || c.Check == "Postgres pooler" && c.Status == "WARN"
				failed = failed || c.Check == "replication connection" && c.Status == "FAIL" && strings.Contains(c.Detail, told) && c.Mend != ""
			}
			if !warned || !failed || code != 1 {
				t.Errorf("doctor: exit code %d, %+v", code, found)
			}
			follower := s.launch("invalidator", "INVALIDATOR_ADDR", through)
			eventually(t, "the invalidator tells", func() error {
				if !strings.Contains(follower.log.String(), told) {
					return fmt.Errorf("it says:\n%s", follower.log.tail())
				}
				return nil
			})
		})
	}
}
