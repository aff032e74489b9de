package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// BenchmarkCommitToDelete measures from the moment a COMMIT has returned to the writer until the row's key is gone. The floor is
// the plainest program that could do it: it receives from a slot and sends one UNLINK for each commit, visible or not, confirmed or
// not.
func BenchmarkCommitToDelete(b *testing.B) {
	b.Run("walkey", func(b *testing.B) {
		s := newStack(b)
		s.startAPI().stop() // migrates
		p := s.startInvalidator()
		eventually(b, "it follows", func() error { return active(p) })
		s.measureDeletes(b)
	})
	b.Run("floor", func(b *testing.B) {
		s := newStack(b)
		s.startAPI().stop()
		s.plainest(b)
		s.measureDeletes(b)
	})
}

// measureDeletes overwrites row 1 and asks Valkey until its key is gone.
func (s *servers) measureDeletes(b *testing.B) {
	conn := s.connect()
	mustExec(b, conn, "insert into materials (id, title) values (1, 'first')")
	valkey := s.dialValkey(b)
	var took []time.Duration
	for b.Loop() {
		valkey.ask("SET " + detailKey + " x")
		mustExec(b, conn, "update materials set title = title where id = 1")
		committed := time.Now()
		for valkey.ask("EXISTS "+detailKey) != ":0" {
			if time.Since(committed) > patience {
				b.Fatal("the key is not deleted")
			}
		}
		took = append(took, time.Since(committed))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// valkeyConn is a plain connection that asks one thing after the other.
type valkeyConn struct {
	b       *testing.B
	conn    net.Conn
	replies *bufio.Reader
}

func (s *servers) dialValkey(b *testing.B) *valkeyConn {
	b.Helper()
	conn, err := net.Dial("tcp", s.valkey.Addr())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return &valkeyConn{b, conn, bufio.NewReader(conn)}
}

func (v *valkeyConn) ask(command string) string {
	v.b.Helper()
	reply, err := v.try(command)
	if err != nil {
		v.b.Fatalf("%s: %v", command, err)
	}
	return reply
}

func (v *valkeyConn) try(command string) (string, error) {
	if _, err := fmt.Fprintf(v.conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := v.replies.ReadString('\n')
	return strings.TrimSpace(line), err
}

// plainest runs the floor until the benchmark ends.
func (s *servers) plainest(b *testing.B) {
	b.Helper()
	s.psql("create publication plain for table materials")
	s.psql("select pg_create_logical_replication_slot('plain', 'pgoutput')")
	conn, err := pgconn.Connect(b.Context(), s.url+"&replication=database")
	if err != nil {
		b.Fatal(err)
	}
	if err := pglogrepl.StartReplication(b.Context(), conn, "plain", 0, pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'plain'"}}); err != nil {
		b.Fatal(err)
	}
	valkey := s.dialValkey(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- deleteOnCommit(ctx, conn, valkey) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.Errorf("the floor ended with %v", err)
		}
	})
}

func deleteOnCommit(ctx context.Context, conn *pgconn.PgConn, valkey *valkeyConn) error {
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		data, ok := message.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		log, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			return err
		}
		if log.WALData[0] != 'C' {
			continue
		}
		if _, err := valkey.try("UNLINK " + detailKey); err != nil {
			return err
		}
	}
}
