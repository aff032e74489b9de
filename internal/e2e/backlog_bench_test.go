package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// backlogRows is how many rows a backlog has; BACKLOG_ROWS sets another number.
func backlogRows(b *testing.B) int {
	b.Helper()
	text := os.Getenv("BACKLOG_ROWS")
	if text == "" {
		return 1_000_000
	}
	rows, err := strconv.Atoi(text)
	if err != nil || rows < 1 {
		b.Fatalf("BACKLOG_ROWS is %q, not a number of rows", text)
	}
	return rows
}

// BenchmarkBacklog measures how fast what has piled up is worked off: from the start of the program until Postgres is told
// that everything is processed. The floor is pg_recvlogical, which reads the same changes from the same position and
// throws them away. Walkey decodes them, applies the rules, and deletes.
func BenchmarkBacklog(b *testing.B) {
	for _, shape := range []struct {
		name string
		fill string // changes $1 rows
	}{
		{"single-row-transactions", "call one_by_one(%d)"},
		{"one-transaction", "update materials set title = title || '.' where id <= %d"},
	} {
		b.Run(shape.name, func(b *testing.B) {
			rows := backlogRows(b)
			s := newStack(b, "synchronous_commit=off", "max_wal_size=16GB", "checkpoint_timeout=1h", "shared_buffers=1GB")
			s.startAPI().stop() // migrates
			s.startInvalidator().stop()
			conn := s.connect()
			mustExec(b, conn, "insert into materials (title) select 'title ' || i from generate_series(1, $1) i", rows)
			mustExec(b, conn, `create procedure one_by_one(n int) language plpgsql as $$
				begin for i in 1..n loop update materials set title = 'new' where id = i; commit; end loop; end $$`)
			mustExec(b, conn, "vacuum analyze materials")
			for b.Loop() {
				b.StopTimer()
				skip(b, conn, "walkey")
				mustExec(b, conn, "select pg_create_logical_replication_slot('floor', 'pgoutput')")
				mustExec(b, conn, fmt.Sprintf(shape.fill, rows))
				end := flushed(b, conn)
				floor := s.receive(end)
				mustExec(b, conn, "select pg_drop_replication_slot('floor')")
				took, program := s.workOff(conn, end)
				b.ReportMetric(float64(rows)/floor.Seconds(), "floor-rows/s")
				b.ReportMetric(float64(rows)/took.Seconds(), "rows/s")
				b.ReportMetric(floor.Seconds()/took.Seconds(), "of-floor")
				b.ReportMetric(program.metric("process_cpu_seconds_total")/float64(rows)*1e6, "cpu-µs/row")
				b.ReportMetric(program.metric("go_memstats_alloc_bytes_total")/float64(rows), "alloc-B/row")
				b.ReportMetric(peakMemory(b, program.PID()), "peak-MiB")
				if n := program.metric("walkey_deleted_keys_total"); n < float64(rows) {
					b.Fatalf("%v keys were deleted, want at least %d", n, rows)
				}
				program.stop()
				b.StartTimer()
			}
			b.ReportMetric(0, "ns/op") // the phases above are what is measured
		})
	}
}

// skip moves a slot to the end of the WAL.
func skip(b *testing.B, conn *pgx.Conn, slot string) {
	b.Helper()
	mustExec(b, conn, "select pg_replication_slot_advance($1, pg_current_wal_flush_lsn())", slot)
}

// flushed is the end of the WAL once everything is on disk.
func flushed(b *testing.B, conn *pgx.Conn) (end string) {
	b.Helper()
	mustExec(b, conn, "select pg_logical_emit_message(true, 'end', '')")
	mustExec(b, conn, "checkpoint")
	if err := conn.QueryRow(b.Context(), "select pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		b.Fatal(err)
	}
	return end
}

// receive reads up to end with pg_recvlogical.
func (s *servers) receive(end string) time.Duration {
	s.t.Helper()
	command := exec.Command(filepath.Join(s.postgres.Bin(), "pg_recvlogical"), "-d", s.url, "-S", "floor", "--start", "--no-loop", "-f", "/dev/null",
		"-E", end, "-o", "proto_version=1", "-o", "publication_names=walkey")
	began := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		s.t.Fatalf("pg_recvlogical: %v\n%s", err, out)
	}
	return time.Since(began)
}

// workOff starts an invalidator and waits until it has confirmed end.
func (s *servers) workOff(conn *pgx.Conn, end string) (time.Duration, *program) {
	s.t.Helper()
	began := time.Now()
	p := s.launch("invalidator", nil)
	for done := false; !done; {
		err := conn.QueryRow(s.t.Context(), "select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where slot_name = 'walkey'", end).Scan(&done)
		if err != nil {
			s.t.Fatal(err)
		}
		if !p.Running() {
			s.t.Fatalf("the invalidator ended: %v", p.Err())
		}
		select {
		case <-s.t.Context().Done():
			s.t.Fatal(s.t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return time.Since(began), p
}

var highWater = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// peakMemory is the largest resident size that a process has had, in MiB.
func peakMemory(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	match := highWater.FindSubmatch(status)
	if match == nil {
		b.Fatal("no peak memory in /proc")
	}
	kib, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
