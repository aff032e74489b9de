package e2e

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkCommitToFresh measures from the moment a COMMIT has returned to the writer to the arrival of the first answer
// over HTTP that shows it, while the row is being served from memory. Beside it stands the floor: a writer that knows
// which key to delete, and does so itself as soon as its COMMIT has returned.
func BenchmarkCommitToFresh(b *testing.B) {
	b.Run("stream", func(b *testing.B) {
		s := newStack(b)
		api := s.startAPI()
		s.startInvalidator()
		measure(b, s, api, func() {})
	})
	b.Run("floor=delete-by-the-writer", func(b *testing.B) {
		s := newStack(b)
		api := s.startAPI()
		invalidator := s.startInvalidator() // for the heartbeat
		s.seed("first")
		api.waitHit(detailPath(1))
		s.psql("drop publication walkey")
		s.psql("create publication walkey for table goose_db_version") // the stream has nothing to say
		_ = invalidator
		conn, err := net.Dial("tcp", s.valkey.Addr())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		replies := bufio.NewReader(conn)
		measure(b, s, api, func() {
			if _, err := fmt.Fprintf(conn, "UNLINK %s\r\n", detailKey); err != nil {
				b.Fatal(err)
			}
			if _, err := replies.ReadString('\n'); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// measure overwrites row 1, calls after, and asks until the answer is fresh.
func measure(b *testing.B, s *servers, api *program, after func()) {
	conn := s.connect()
	mustExec(b, conn, "insert into materials (id, title) values (1, 'first') on conflict do nothing")
	api.waitHit(detailPath(1))
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		title := fmt.Sprintf("title %d", n)
		mustExec(b, conn, "update materials set title = $1 where id = 1", title)
		committed := time.Now()
		after()
		for {
			a := api.get(detailPath(1))
			if hasTitle(title)(a) {
				break
			}
		}
		took = append(took, time.Since(committed))
		api.waitHit(detailPath(1))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
}
