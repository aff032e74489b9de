package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// BenchmarkLargeTransaction measures from the moment when the COMMIT of one UPDATE of all rows has returned until the key of the last
// row is gone, and that of a row which was committed right behind it. The floor is the plainest program, which receives the same
// changes by a slot of its own and counts them, until it has the last one.
func BenchmarkLargeTransaction(b *testing.B) {
	rows := backlogRows(b)
	s := newStack(b, "max_wal_size=16GB", "checkpoint_timeout=1h", "shared_buffers=1GB")
	s.startAPI().stop() // migrates
	conn, valkey := s.connect(), s.dialValkey(b)
	mustExec(b, conn, "insert into materials (title) select 'title ' || i from generate_series(1, $1) i", rows)
	mustExec(b, conn, "create publication plain for table materials")
	last, behind := fmt.Sprintf("bloodofjesus:material:%d", rows), fmt.Sprintf("bloodofjesus:material:%d", rows+1)
	mustExec(b, conn, "insert into materials (id, title) values ($1, 'behind')", rows+1)
	// The rows are in order again, so that the last one is changed last. An invalidator would take it for a change of the table.
	order := func() {
		mustExec(b, conn, "cluster materials using materials_pkey")
		mustExec(b, conn, "checkpoint")
	}
	change := func() (committed time.Time) {
		valkey.ask("SET " + last + " x")
		valkey.ask("SET " + behind + " x")
		mustExec(b, conn, "update materials set title = title || '.' where id <= $1", rows)
		committed = time.Now()
		mustExec(b, conn, "update materials set title = 'small' where id = $1", rows+1)
		return committed
	}
	for b.Loop() {
		b.StopTimer()
		order()
		received := s.countRows(b, rows)
		committed := change()
		floor := (<-received).Sub(committed)
		eventually(b, "the walsender of the floor has ended", func() error {
			_, err := conn.Exec(b.Context(), "select pg_drop_replication_slot('plain')")
			return err
		})

		order()
		p := s.startInvalidator()
		eventually(b, "it follows", func() error { return active(p) })
		committed = change()
		gone := func(key string) time.Duration {
			for valkey.ask("EXISTS "+key) != ":0" {
				if time.Since(committed) > 10*patience {
					b.Fatalf("%s is not deleted", key)
				}
				<-time.After(2 * time.Millisecond)
			}
			return time.Since(committed)
		}
		lastGone, behindGone := gone(last), gone(behind)
		b.ReportMetric(floor.Seconds(), "floor-s")
		b.ReportMetric(lastGone.Seconds(), "last-key-s")
		b.ReportMetric(behindGone.Seconds(), "behind-s")
		b.ReportMetric(lastGone.Seconds()/floor.Seconds(), "times-floor")
		b.ReportMetric(peakMemory(b, p.PID()), "peak-MiB")
		p.stop()
		b.StartTimer()
	}
	b.ReportMetric(0, "ns/op") // the phases above are what is measured
}

// countRows receives by a new slot, and gives when it had so many changes.
func (s *servers) countRows(b *testing.B, rows int) <-chan time.Time {
	b.Helper()
	s.psql("select pg_create_logical_replication_slot('plain', 'pgoutput')")
	conn, err := pgconn.Connect(b.Context(), s.url+"&replication=database&logical_decoding_work_mem=256MB")
	if err != nil {
		b.Fatal(err)
	}
	if err := pglogrepl.StartReplication(b.Context(), conn, "plain", 0, pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'plain'"}}); err != nil {
		b.Fatal(err)
	}
	received := make(chan time.Time, 1)
	go func() {
		for n := 0; n < rows; {
			message, err := conn.ReceiveMessage(b.Context())
			if err != nil {
				b.Errorf("receive: %v", err)
				break
			}
			const headers = 1 + 8 + 8 + 8 // of XLogData
			if data, ok := message.(*pgproto3.CopyData); ok && len(data.Data) > headers && data.Data[0] == pglogrepl.XLogDataByteID && data.Data[headers] == 'U' {
				n++
			}
		}
		had := time.Now()
		_ = conn.Close(context.WithoutCancel(b.Context()))
		received <- had
	}()
	return received
}
