package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/stack"
)

// measureBacklog measures how fast what has piled up is worked off: from the start of the program until Postgres is told that
// everything is processed. The floor is pg_recvlogical, which reads the same changes and throws them away.
func measureBacklog(ctx context.Context, b *bench) (rows []row, err error) {
	n := 150_000
	if b.short {
		n = 10_000
	}
	err = b.within(ctx, func(w *world) error {
		conn, err := w.fillTable(ctx, n)
		if err != nil {
			return err
		}
		for _, shape := range []struct{ name, fill string }{
			{"single-row transactions", fmt.Sprintf("call one_by_one(%d)", n)},
			{"one transaction", fmt.Sprintf("update materials set title = title || '.' where id <= %d", n)},
		} {
			var floor, ours, cpu []float64
			for i := range min(b.rounds, 3) {
				a, c, used, err := w.backlogRound(ctx, conn, shape.fill, i%2 == 0)
				if err != nil {
					return fmt.Errorf("%s, round %d: %w", shape.name, i+1, err)
				}
				floor = append(floor, float64(n)/a.Seconds())
				ours = append(ours, float64(n)/c.Seconds())
				cpu = append(cpu, float64(used.Nanoseconds())/float64(n)/1000)
			}
			rows = append(rows,
				against(fmt.Sprintf("backlog, %s (floor: pg_recvlogical to /dev/null)", shape.name), "rows/s", ours, floor, ratioAtLeast(0.9)),
				row{what: "CPU of it", unit: "µs/row", ours: median(cpu)})
		}
		return nil
	})
	return rows, err
}

// fillTable makes a table of n rows, the slot walkey, and a procedure that changes row after row.
func (w *world) fillTable(ctx context.Context, n int) (*pgx.Conn, error) {
	p, err := w.start(ctx, "invalidator")
	if err != nil {
		return nil, err
	}
	if err := w.caughtUp(ctx, p); err != nil {
		return nil, err
	}
	if err := stop(p.Process); err != nil {
		return nil, err
	}
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range []string{
		"set synchronous_commit = off",
		fmt.Sprintf("insert into materials (title) select 'title ' || i from generate_series(1, %d) i", n),
		`create procedure one_by_one(n int) language plpgsql as $$
			begin for i in 1..n loop update materials set title = 'new' where id = i; commit; end loop; end $$`,
		"vacuum analyze materials",
		"set synchronous_commit = on", // else a commit reaches the stream only when the WAL writer comes round
		"select pg_replication_slot_advance('walkey', pg_current_wal_flush_lsn())",
	} {
		if _, err := conn.Exec(ctx, s); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// backlogRound lets changes pile up, and works them off by the floor and by Walkey, each from the same position.
func (w *world) backlogRound(ctx context.Context, conn *pgx.Conn, fill string, floorFirst bool) (floor, ours, cpu time.Duration, err error) {
	for _, s := range []string{
		"select pg_replication_slot_advance('walkey', pg_current_wal_flush_lsn())",
		"select pg_create_logical_replication_slot('floor', 'pgoutput')",
		"set synchronous_commit = off",
		fill,
		"select pg_logical_emit_message(true, 'end', '')",
		"checkpoint",
	} {
		if _, err := conn.Exec(ctx, s); err != nil {
			return 0, 0, 0, fmt.Errorf("%s: %w", s, err)
		}
	}
	var end string
	if err := conn.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		return 0, 0, 0, err
	}
	for _, isFloor := range []bool{floorFirst, !floorFirst} {
		if isFloor {
			floor, err = w.receive(ctx, end)
		} else {
			ours, cpu, err = w.workOff(ctx, conn, end)
		}
		if err != nil {
			return 0, 0, 0, err
		}
	}
	_, err = conn.Exec(ctx, "select pg_drop_replication_slot('floor')")
	return floor, ours, cpu, err
}

// receive reads up to end with pg_recvlogical.
func (w *world) receive(ctx context.Context, end string) (time.Duration, error) {
	command := exec.CommandContext(ctx, filepath.Join(w.postgres.Bin(), "pg_recvlogical"), "-d", w.postgres.URL(), "-S", "floor", "--start", "--no-loop", "-f", "/dev/null",
		"-E", end, "-o", "proto_version=1", "-o", "publication_names=walkey")
	began := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w\n%s", err, out)
	}
	return time.Since(began), nil
}

// workOff starts an invalidator and waits until it has confirmed end; then it stops it.
func (w *world) workOff(ctx context.Context, conn *pgx.Conn, end string) (took, cpu time.Duration, err error) {
	began := time.Now()
	p, err := w.launch("invalidator")
	if err != nil {
		return 0, 0, err
	}
	if err := w.confirmed(ctx, conn, p, end); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	if cpu, err = cpuTime(p.PID()); err != nil {
		return 0, 0, err
	}
	return took, cpu, stop(p.Process)
}

// confirmed waits until the slot has been confirmed up to end.
func (w *world) confirmed(ctx context.Context, conn *pgx.Conn, p *stack.Program, end string) error {
	return eventually(ctx, "everything is confirmed", p, func() error {
		var done bool
		err := conn.QueryRow(ctx, "select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where slot_name = 'walkey'", end).Scan(&done)
		if err == nil && !done {
			err = errors.New("it is behind")
		}
		return err
	})
}
