package cdc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded/embeddedtest"
)

// streaming are options of a stream that takes open transactions as early as the server sends them.
func (d *database) streaming(tables ...string) Options {
	o := d.options(tables...)
	o.Streaming, o.StreamingWorkMem, o.DecodingWorkMem = true, "64kB", "64kB"
	o.MessagePrefix = "walkey"
	return o
}

// many inserts rows whose ids lie between the two, enough for the server to stream the transaction.
func many(from, to int) string {
	return fmt.Sprintf(`INSERT INTO t SELECT i, 'title ' || i, 0 FROM generate_series(%d, %d) i`, from, to)
}

// wholes joins the pieces of each transaction to one line for each of its changes.
func wholes(transactions []Transaction) [][]string {
	var all [][]string
	var open []string
	for _, t := range transactions {
		if open == nil {
			open = []string{fmt.Sprintf("%d at %s %s", t.XID, t.Commit, t.CommitTime)}
		}
		for _, c := range t.Changes {
			open = append(open, c.story())
		}
		if t.Complete {
			all = append(all, append(open, "message "+t.Message, "end "+t.End.String()))
			open = nil
		}
	}
	return all
}

// hasStreamed waits until so many open transactions are held.
func (f *follow) hasStreamed(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%d open transactions are streamed", n), func() bool { return f.Streamed().Transactions == n })
}

// TestStreamedAsUnstreamed lets two streams follow the same changes, one of which is sent open transactions, and wants them to
// tell the same.
func TestStreamedAsUnstreamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		setup  []string
		change []string
	}{
		{"insert, update, delete", nil, []string{many(1, 3000), `UPDATE t SET title = 'new' WHERE id > 500`, `UPDATE t SET id = -id`, `DELETE FROM t`}},
		{"rolled back", nil, []string{`BEGIN; ` + many(1, 3000) + `; ROLLBACK`, `INSERT INTO t VALUES (1)`}},
		{"a savepoint that is rolled back", nil, []string{
			`BEGIN; ` + many(1, 2000) + `; SAVEPOINT a; ` + many(2001, 4000) + `; ROLLBACK TO a; ` + many(3001, 5000) + `; COMMIT`,
			`UPDATE t SET n = 1 WHERE id < 10`,
		}},
		{"savepoints within savepoints", nil, []string{
			`BEGIN; SAVEPOINT a; ` + many(1, 2000) + `; SAVEPOINT b; ` + many(2001, 4000) + `; RELEASE b; SAVEPOINT c; ` + many(4001, 6000) +
				`; ROLLBACK TO c; ` + many(6001, 8000) + `; ROLLBACK TO a; ` + many(1, 10) + `; SAVEPOINT d; ` + many(11, 3000) + `; RELEASE d; COMMIT`,
		}},
		{"exceptions that PL/pgSQL catches", nil, []string{
			`DO $$ BEGIN FOR i IN 1..3000 LOOP
				BEGIN
					INSERT INTO t VALUES (i, 'kept');
					IF i % 3 = 0 THEN INSERT INTO t VALUES (i, 'twice'); END IF;
				EXCEPTION WHEN unique_violation THEN INSERT INTO t VALUES (-i, 'caught');
				END;
			END LOOP; END $$`,
			`DO $$ BEGIN
				BEGIN
					FOR i IN 10001..13000 LOOP BEGIN INSERT INTO t VALUES (i, 'inner'); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP;
					PERFORM 1 / 0;
				EXCEPTION WHEN division_by_zero THEN INSERT INTO t VALUES (10001, 'outer');
				END;
				INSERT INTO t SELECT i, 'more' FROM generate_series(20000, 22000) i;
			END $$`,
		}},
		{"truncated in the midst", []string{createTable("u")}, []string{
			`BEGIN; ` + many(1, 3000) + `; TRUNCATE t, u; ` + many(1, 3000) + `; SAVEPOINT s; TRUNCATE t; ` + many(1, 3000) + `; ROLLBACK TO s; COMMIT`,
			`BEGIN; ` + many(3001, 6000) + `; TRUNCATE t; COMMIT`,
		}},
		{"columns that come and go in the midst", nil, []string{
			`BEGIN; ` + many(1, 2000) + `; ALTER TABLE t ADD extra text DEFAULT 'x'; ` + many(2001, 4000) + `; ALTER TABLE t DROP title; ` +
				`INSERT INTO t (id) SELECT generate_series(4001, 6000); COMMIT`,
			`UPDATE t SET n = 1 WHERE id < 10`,
		}},
		{"a shape that is rolled back", nil, []string{
			`INSERT INTO t VALUES (0, 'before')`,
			`BEGIN; ` + many(1, 2000) + `; SAVEPOINT s; ALTER TABLE t RENAME title TO name; ALTER TABLE t DROP n; INSERT INTO t SELECT generate_series(2001, 4000); ROLLBACK TO s; ` + many(2001, 4000) + `; COMMIT`,
			`UPDATE t SET n = 1 WHERE id < 10`,
			`BEGIN; ALTER TABLE t DROP n; INSERT INTO t SELECT generate_series(5001, 8000); ROLLBACK`,
			`UPDATE t SET n = 1 WHERE id < 10`,
		}},
		{"whole old rows, and large values", []string{`ALTER TABLE t REPLICA IDENTITY FULL, ALTER title SET STORAGE EXTERNAL`}, []string{
			`INSERT INTO t SELECT i, repeat('x', 3000), 0 FROM generate_series(1, 200) i`,
			`BEGIN; UPDATE t SET n = 1; UPDATE t SET title = repeat('y', 3000) WHERE id < 20; UPDATE t SET title = NULL; DELETE FROM t; COMMIT`,
		}},
		{"large values that are not touched", []string{`ALTER TABLE t ALTER title SET STORAGE EXTERNAL`}, []string{
			`INSERT INTO t SELECT i, repeat('x', 3000), 0 FROM generate_series(1, 2000) i`, `UPDATE t SET n = 1`, `UPDATE t SET title = repeat('y', 200000) WHERE id = 1`,
		}},
		{"identity by an index", []string{`ALTER TABLE t ALTER title SET NOT NULL`, `CREATE UNIQUE INDEX i ON t (title)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX i`}, []string{
			many(1, 3000), `UPDATE t SET n = 1`, `UPDATE t SET title = title || '.'`, `DELETE FROM t`,
		}},
		{"partitions under their root", []string{
			`DROP TABLE t`, `CREATE TABLE t (id int PRIMARY KEY, title text, n int) PARTITION BY RANGE (id)`,
			`CREATE TABLE low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (1000)`, `CREATE TABLE high (n int, title text, id int PRIMARY KEY)`,
			`ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (1000) TO (MAXVALUE)`,
			`CREATE PUBLICATION walkey FOR TABLE t WITH (publish_via_partition_root = true)`,
		}, []string{many(1, 3000), `UPDATE t SET id = id + 5000`, `BEGIN; ` + many(10000, 12000) + `; TRUNCATE t; COMMIT`}},
		{"partitions by their own names", []string{
			`DROP TABLE t`, `CREATE TABLE t (id int PRIMARY KEY, title text, n int) PARTITION BY RANGE (id)`,
			`CREATE TABLE low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (1000)`, `CREATE TABLE high PARTITION OF t FOR VALUES FROM (1000) TO (MAXVALUE)`,
		}, []string{many(1, 3000), `UPDATE t SET id = id + 5000`}},
		{"messages", nil, []string{
			`BEGIN; ` + many(1, 2000) + `; SELECT pg_logical_emit_message(true, 'walkey', 'kept'); ` + many(2001, 4000) +
				`; SAVEPOINT s; ` + many(4001, 6000) + `; ROLLBACK TO s; SELECT pg_logical_emit_message(false, 'walkey', 'beside'); COMMIT`,
		}},
		{"types of their own", []string{`CREATE TYPE mood AS ENUM ('so so', 'fine')`, `ALTER TABLE t ADD mood mood DEFAULT 'fine'`}, []string{many(1, 3000)}},
		{"an origin", nil, []string{
			`SELECT pg_replication_origin_create(current_database())`, `SELECT pg_replication_origin_session_setup(current_database())`,
			many(1, 3000), `SELECT pg_replication_origin_session_reset()`, `SELECT pg_replication_origin_drop(current_database())`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := shared(t, append([]string{createTable("t")}, test.setup...)...)
			o := d.streaming("t")
			streamed := d.open(o)
			if !streamed.Session().Streams {
				t.Fatal("it is not streamed")
			}
			plain := o
			plain.Slot, plain.Streaming = d.slot+"_plain", false
			unstreamed := d.open(plain)
			d.run(test.change...)
			mark := d.mark()
			want, got := wholes(unstreamed.until(mark)), wholes(streamed.until(mark))
			if len(want) == 0 {
				t.Fatal("nothing came")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("streamed transactions tell another story (-unstreamed +streamed):\n%s", diff)
			}
			if now := streamed.Streamed(); now != (Streamed{}) {
				t.Errorf("still held: %+v", now)
			}
			if test.name == "rolled back" {
				return // from version 18 on a server that finds it rolled back already does not stream it
			}
			eventually(t, "the server has streamed", func() bool {
				return d.query(`SELECT stream_txns::text FROM pg_stat_replication_slots WHERE slot_name = $1`, d.slot) != "0"
			})
		})
	}
}

// begun is a transaction of a connection of its own.
func (d *database) begun(sql ...string) *pgx.Conn {
	d.t.Helper()
	conn := d.connect()
	for _, s := range append([]string{`BEGIN`}, sql...) {
		if _, err := conn.Exec(d.t.Context(), s); err != nil {
			d.t.Fatalf("%s: %v", s, err)
		}
	}
	return conn
}

func (d *database) on(conn *pgx.Conn, sql ...string) {
	d.t.Helper()
	for _, s := range sql {
		if _, err := conn.Exec(d.t.Context(), s); err != nil {
			d.t.Fatalf("%s: %v", s, err)
		}
	}
}

// What commits while transactions are streamed comes at once, and moves the position; they come when they commit, in that order.
func TestStreamedByTurns(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.streaming("t"))
	a := d.begun(many(1, 2000))
	f.hasStreamed(1)
	b := d.begun(many(10001, 12000))
	f.hasStreamed(2)
	c := d.begun(many(20001, 22000))
	f.hasStreamed(3)
	d.run(`INSERT INTO t VALUES (-1, 'small')`)
	if got, want := changes(f.until(d.mark())), []string{"INSERT public.t new[id=-1 title=small]"}; !slices.Equal(got, want) {
		t.Errorf("while three are open came %q", got)
	}
	// A position behind what is open is no word of it, and may be confirmed.
	f.Confirm(f.position)
	eventually(t, "the position is confirmed", func() bool { return d.slotConfirmed() >= f.position })
	d.on(a, many(2001, 4000))
	d.on(b, many(12001, 14000))
	d.on(a, many(4001, 6000))
	d.on(c, `ROLLBACK`)
	f.hasStreamed(2)
	d.on(b, `COMMIT`)
	f.hasStreamed(1)
	d.on(a, `COMMIT`)
	got := wholes(f.until(d.mark()))
	if len(got) != 2 || len(got[0]) != 4000+3 || len(got[1]) != 6000+3 || got[0][1] != "INSERT public.t new[id=10001 title=title 10001]" {
		t.Errorf("got %d transactions", len(got))
	}
	if now := f.Streamed(); now != (Streamed{}) {
		t.Errorf("still held: %+v", now)
	}
}

// A connection that ends in the midst of a transaction leaves nothing behind: the next one gets all of it, whatever was confirmed.
func TestStreamedOnceMoreAfterACut(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.streaming("t"))
	a := d.begun(many(1, 2000))
	f.hasStreamed(1)
	d.run(`INSERT INTO t VALUES (-1, 'small')`)
	f.until(d.mark())
	f.Confirm(f.position)
	eventually(t, "the position is confirmed", func() bool { return d.slotConfirmed() >= f.position })
	d.run(`CHECKPOINT`)
	d.on(a, many(2001, 4000))
	_ = f.conn.Close() // as a cut does
	if err := f.end(); err == nil {
		t.Error("the stream goes on")
	}
	for _, stream := range []bool{true, false} {
		o := d.streaming("t")
		o.Streaming = stream
		f = d.open(o)
		if stream {
			d.on(a, many(4001, 6000))
			f.hasStreamed(1)
			f.close()
		}
	}
	d.on(a, `COMMIT`)
	if got := wholes(f.until(d.mark())); len(got) != 1 || len(got[0]) != 6000+3 {
		t.Errorf("got %d transactions of %d changes", len(got), len(slices.Concat(got...)))
	}
}

// A prepared transaction comes when it is committed.
func TestStreamedAndPrepared(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t, "max_prepared_transactions=5"), createTable("t"))
	f := d.open(d.streaming("t"))
	d.run(`BEGIN; `+many(1, 3000)+`; PREPARE TRANSACTION 'one'`, `BEGIN; `+many(3001, 6000)+`; PREPARE TRANSACTION 'two'`, `INSERT INTO t VALUES (-1, 'small')`)
	f.hasStreamed(2)
	if got := wholes(f.until(d.mark())); len(got) != 1 || len(got[0]) != 1+3 {
		t.Errorf("got %d transactions", len(got))
	}
	d.run(`ROLLBACK PREPARED 'two'`, `COMMIT PREPARED 'one'`)
	if got := wholes(f.until(d.mark())); len(got) != 1 || len(got[0]) != 3000+3 {
		t.Errorf("got %d transactions", len(got))
	}
}

// Of open transactions no more is held than is allowed. The largest is given up, which changes nothing when it is rolled back; when it
// commits, the stream ends, and one that does not stream brings it.
func TestStreamedTooLarge(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	o := d.streaming("t")
	o.StreamBytes = 150_000
	f := d.open(o)
	small := d.begun(many(-2000, -1))
	f.hasStreamed(1)
	for _, end := range []string{`ROLLBACK`, `COMMIT`} {
		lost := f.Streamed().Lost
		large := d.begun(many(1, 20_000))
		eventually(t, "it is given up", func() bool { return f.Streamed().Lost == lost+1 })
		if n := f.Streamed().Bytes; n > o.StreamBytes {
			t.Errorf("%d bytes are held", n)
		}
		if end == `COMMIT` {
			d.on(small, `COMMIT`)
			if got := wholes(f.until(d.mark())); len(got) != 1 || len(got[0]) != 2000+3 {
				t.Errorf("got %d transactions beside the large one", len(got))
			}
			f.Confirm(f.position)
		}
		d.on(large, end)
	}
	var tooLarge *TooLargeError
	if err := f.end(); !errors.As(err, &tooLarge) || !strings.Contains(err.Error(), fmt.Sprint(o.StreamBytes)) {
		t.Fatalf("the stream ended by %v", err)
	}
	f.close()
	o.Streaming = false
	f = d.open(o)
	if got := wholes(f.until(tooLarge.End - 1)); len(got) != 1 || len(got[0]) != 20_000+3 || got[0][20_002] != "end "+tooLarge.End.String() {
		t.Errorf("got %d transactions", len(got))
	}
}

// A stream that begins far behind is sent what has committed already as ever.
func TestFarBehindIsNotStreamed(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	d.open(d.streaming("t")).close()
	d.run(`INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 60000) i`)
	f := d.open(d.streaming("t"))
	if f.Session().Streams {
		t.Error("it is streamed")
	}
	f.until(d.mark())
	f.Confirm(f.position)
	f.close()
	if f = d.open(d.streaming("t")); !f.Session().Streams {
		t.Error("it is not streamed when it has caught up")
	}
}

// A server that shuts down ends the transactions first, and the stream behind them.
func TestShutdownWhileStreamed(t *testing.T) {
	t.Parallel()
	server := embeddedtest.Postgres(t)
	d := newDatabase(t, server, createTable("t"))
	f := d.open(d.streaming("t"))
	d.begun(many(1, 3000))
	f.hasStreamed(1)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context(), "fast") }()
	for {
		err := f.take()
		f.Confirm(f.position)
		if errors.Is(err, ErrServerEnded) {
			break
		}
		if err != nil {
			t.Fatalf("the stream ended by %v", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if len(f.transactions) != 0 {
		t.Errorf("came %v", changes(f.transactions))
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
