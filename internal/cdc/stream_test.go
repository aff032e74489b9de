package cdc

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/embedded/embeddedtest"
)

// TestChanges makes changes on a real server and reads the stream's account of them.
func TestChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		setup  []string
		change []string
		want   []string
	}{{
		name:   "insert, update and delete",
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `UPDATE t SET title = 'uno'`, `UPDATE t SET title = NULL`, `DELETE FROM t`},
		want: []string{
			"INSERT public.t new[id=1 title=one]",
			"UPDATE public.t new[id=1 title=uno]",
			"UPDATE public.t new[id=1 title:null]",
			"DELETE public.t old[id=1 title:absent]",
		},
	}, {
		name:   "truncate",
		setup:  []string{`CREATE TABLE child (id int PRIMARY KEY REFERENCES t)`},
		change: []string{`TRUNCATE t, child`, `TRUNCATE t CASCADE`, `TRUNCATE t RESTART IDENTITY CASCADE`},
		want:   []string{"TRUNCATE public.t", "TRUNCATE public.t", "TRUNCATE public.t"},
	}, {
		name:   "a changed primary key",
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `UPDATE t SET id = 2`},
		want:   []string{"INSERT public.t new[id=1 title=one]", "UPDATE public.t old[id=1 title:absent] new[id=2 title=one]"},
	}, {
		name: "rolled back",
		change: []string{
			`BEGIN; INSERT INTO t VALUES (1, 'one'); ROLLBACK`,
			`BEGIN; SAVEPOINT s; INSERT INTO t VALUES (2, 'two'); ROLLBACK TO s; COMMIT`,
			`BEGIN; INSERT INTO t VALUES (3, 'three'); SAVEPOINT s; INSERT INTO t VALUES (4, 'four'); ROLLBACK TO s; INSERT INTO t VALUES (5, 'five'); COMMIT`,
		},
		want: []string{"INSERT public.t new[id=3 title=three], INSERT public.t new[id=5 title=five]"},
	}, {
		name:   "a large value that is not touched",
		setup:  []string{`ALTER TABLE t ALTER title SET STORAGE EXTERNAL`, `INSERT INTO t VALUES (1, repeat('x', 10000))`},
		change: []string{`UPDATE t SET n = 1`, `UPDATE t SET title = repeat('y', 9000)`},
		want:   []string{"UPDATE public.t new[id=1 title:unchanged]", "UPDATE public.t new[id=1 title=yyyyyyyy…(9000)]"},
	}, {
		name:   "a large value that is not touched, under full identity",
		setup:  []string{`ALTER TABLE t REPLICA IDENTITY FULL, ALTER title SET STORAGE EXTERNAL`, `INSERT INTO t VALUES (1, repeat('x', 10000))`},
		change: []string{`UPDATE t SET n = 1`, `DELETE FROM t`},
		want:   []string{"UPDATE public.t old[id=1 title=xxxxxxxx…(10000)] new[id=1 title:unchanged]", "DELETE public.t old[id=1 title=xxxxxxxx…(10000)]"},
	}, {
		name:   "full identity",
		setup:  []string{`ALTER TABLE t REPLICA IDENTITY FULL`},
		change: []string{`INSERT INTO t VALUES (1, NULL)`, `UPDATE t SET title = 'one'`, `DELETE FROM t`},
		want:   []string{"INSERT public.t new[id=1 title:null]", "UPDATE public.t old[id=1 title:null] new[id=1 title=one]", "DELETE public.t old[id=1 title=one]"},
	}, {
		name:   "identity by an index",
		setup:  []string{`ALTER TABLE t ALTER title SET NOT NULL`, `CREATE UNIQUE INDEX i ON t (title)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX i`},
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `UPDATE t SET id = 2`, `UPDATE t SET title = 'two'`, `DELETE FROM t`},
		want: []string{
			"INSERT public.t new[id=1 title=one]", "UPDATE public.t new[id=2 title=one]",
			"UPDATE public.t old[id:absent title=one] new[id=2 title=two]", "DELETE public.t old[id:absent title=two]",
		},
	}, {
		name: "columns come, go and are renamed",
		change: []string{
			`INSERT INTO t VALUES (1, 'one')`,
			`ALTER TABLE t ADD extra int`, `INSERT INTO t VALUES (2, 'two', 2, 3)`,
			`ALTER TABLE t RENAME title TO name`, `INSERT INTO t VALUES (3, 'three')`,
			`BEGIN; INSERT INTO t VALUES (4, 'four'); ALTER TABLE t RENAME name TO title; INSERT INTO t VALUES (5, 'five'); COMMIT`,
			`ALTER TABLE t DROP title`, `INSERT INTO t VALUES (6, 6)`,
		},
		want: []string{
			"INSERT public.t new[id=1 title=one]", "INSERT public.t new[id=2 title=two]", "INSERT public.t new[id=3 ?:absent]",
			"INSERT public.t new[id=4 ?:absent], INSERT public.t new[id=5 title=five]", "INSERT public.t new[id=6 ?:absent]",
		},
	}, {
		name: "a column is retyped inside a transaction",
		change: []string{
			`BEGIN; INSERT INTO t VALUES (1, '7'); ALTER TABLE t ALTER title TYPE int USING title::int + 1; INSERT INTO t VALUES (2, 9); COMMIT`,
		},
		// The rewrite itself is not told.
		want: []string{"INSERT public.t new[id=1 title=7], INSERT public.t new[id=2 title=9]"},
	}, {
		name: "the table is dropped, made again and published again",
		change: []string{
			`INSERT INTO t VALUES (1, 'one')`, `DROP TABLE t`, createTable("t"), `ALTER PUBLICATION walkey ADD TABLE t`, `INSERT INTO t VALUES (2, 'two')`,
		},
		want: []string{"INSERT public.t new[id=1 title=one]", "INSERT public.t new[id=2 title=two]"},
	}, {
		name: "types of all sorts",
		setup: []string{
			`DROP TABLE t`, `CREATE TYPE mood AS ENUM ('so so', 'fine')`, `CREATE DOMAIN short AS text CHECK (length(value) < 9)`, `CREATE TYPE pair AS (a int, b text)`,
			`CREATE TABLE t (id uuid, title mood, n short, list text[], two pair, twice text GENERATED ALWAYS AS (n || n) STORED, PRIMARY KEY (id, n))`,
		},
		change: []string{
			`INSERT INTO t VALUES ('00000000-0000-0000-0000-0000000000AB', 'so so', 'a:b', '{x,"y z"}', '(1,"c d")')`,
			`UPDATE t SET title = 'fine'`, `DELETE FROM t`,
		},
		want: []string{
			`INSERT public.t new[id=00000000-0000-0000-0000-0000000000ab title=so so]`,
			`UPDATE public.t new[id=00000000-0000-0000-0000-0000000000ab title=fine]`,
			`DELETE public.t old[id=00000000-0000-0000-0000-0000000000ab title:absent]`,
		},
	}, {
		name:   "a column list",
		setup:  []string{`CREATE PUBLICATION walkey FOR TABLE t (id)`},
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `UPDATE t SET title = 'uno'`, `DELETE FROM t`},
		want:   []string{"INSERT public.t new[id=1 ?:absent]", "UPDATE public.t new[id=1 ?:absent]", "DELETE public.t old[id=1 ?:absent]"},
	}, {
		name:   "a publication for a schema",
		setup:  []string{`CREATE PUBLICATION walkey FOR TABLES IN SCHEMA public`, createTable("unasked")},
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `ALTER TABLE t RENAME TO gone`, createTable("t"), `INSERT INTO gone VALUES (2, 'two')`, `INSERT INTO t VALUES (3, 'three')`},
		want:   []string{"INSERT public.t new[id=1 title=one]", "INSERT public.gone new[id=2 title=two]", "INSERT public.t new[id=3 title=three]"},
	}, {
		name:   "a publication for all tables",
		setup:  []string{`CREATE PUBLICATION walkey FOR ALL TABLES`},
		change: []string{`INSERT INTO t VALUES (1, 'one')`},
		want:   []string{"INSERT public.t new[id=1 title=one]"},
	}, {
		name:   "a partitioned table under its own name",
		setup:  []string{`DROP TABLE t`, `CREATE TABLE t (id int PRIMARY KEY, title text) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)`, `CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)`},
		change: []string{`INSERT INTO t VALUES (1, 'one')`, `UPDATE t SET id = 11`, `DELETE FROM t2`, `TRUNCATE t`},
		want: []string{
			"INSERT public.t new[id=1 title=one]", "DELETE public.t old[id=1 title:absent], INSERT public.t new[id=11 title=one]",
			"DELETE public.t old[id=11 title:absent]", "TRUNCATE public.t",
		},
	}, {
		name:   "text beyond ASCII",
		change: []string{`INSERT INTO t VALUES (1, 'é ß 日本 🐘')`},
		want:   []string{"INSERT public.t new[id=1 title=é ß 日本 🐘]"},
	}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			embeddedtest.Publishes(t, embeddedtest.SharedPostgres(t), test.setup...)
			d := shared(t, createTable("t"))
			d.run(test.setup...)
			f := d.open(d.options("t"))
			d.run(test.change...)
			if diff := cmp.Diff(test.want, changes(f.until(d.mark()))); diff != "" {
				t.Errorf("changes differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnwantedTableIsNotDelivered(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"), createTable("other"))
	o := d.options("t", "other")
	o.Columns = columnsOf(map[string][]string{"public.t": {"id"}})
	f := d.open(o)
	d.run(`INSERT INTO other VALUES (1)`, `BEGIN; INSERT INTO other VALUES (2); INSERT INTO t VALUES (2); COMMIT`, `TRUNCATE other, t`)
	want := []string{"INSERT public.t new[id=2]", "TRUNCATE public.t"}
	if diff := cmp.Diff(want, changes(f.until(d.mark()))); diff != "" {
		t.Error(diff)
	}
}

// TestTextDoesNotDependOnTheServersSettings has defaults that would change the text of nearly every type.
func TestTextDoesNotDependOnTheServersSettings(t *testing.T) {
	t.Parallel()
	d := shared(t, `CREATE TABLE t (id timestamptz PRIMARY KEY, title bytea, f float8, i interval)`)
	for _, setting := range []string{`DateStyle = 'German'`, `TimeZone = 'Asia/Tokyo'`, `bytea_output = 'escape'`, `extra_float_digits = -10`, `IntervalStyle = 'sql_standard'`, `client_encoding = 'LATIN1'`, `client_min_messages = 'error'`} {
		d.run(fmt.Sprintf(`ALTER DATABASE %s SET %s`, quote(d.query(`SELECT current_database()`)), setting))
	}
	o := d.options("t")
	o.Columns = func(Table) []string { return []string{"id", "title", "f", "i"} }
	f := d.open(o)
	d.run(`INSERT INTO t VALUES ('2026-03-04 05:06:07+00', '\x00ff', 0.1::float8 + 0.2::float8, '1 day 2 hours')`)
	want := []string{`INSERT public.t new[id=2026-03-04 05:06:07+00 title=\x00ff f=0.30000000000000004 i=1 day 02:00:00]`}
	if diff := cmp.Diff(want, changes(f.until(d.mark()))); diff != "" {
		t.Error(diff)
	}
}

func TestTransactionNamesItsCommit(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	xid := d.query(`WITH w AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT pg_current_xact_id()::xid::text FROM w`)
	after := d.lsn(`SELECT pg_current_wal_insert_lsn()::text`)
	got := f.until(d.mark())
	if len(got) != 1 {
		t.Fatalf("%d transactions", len(got))
	}
	tx := got[0]
	if fmt.Sprint(tx.XID) != xid || !tx.Complete || tx.End <= tx.Commit || tx.End > after || tx.CommitTime.IsZero() {
		t.Errorf("xid %s, ended before %s: got %+v", xid, after, tx)
	}
}

func TestSessionDescribesTheServer(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	s := f.Session()
	want := Session{
		SystemID:  d.query(`SELECT system_identifier::text FROM pg_control_system()`),
		Timeline:  1,
		Database:  d.query(`SELECT current_database()`),
		BlockSize: 8192, SegmentSize: 16 << 20, SlotCreated: true, SlotReason: "there was none",
		ServerVersion: s.ServerVersion, WALEnd: s.WALEnd, Confirmed: s.Confirmed,
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if got := d.query(`SHOW server_version_num`); got != fmt.Sprint(s.ServerVersion) {
		t.Errorf("version %d, want %s", s.ServerVersion, got)
	}
	if confirmed := d.slotConfirmed(); s.Confirmed != confirmed {
		t.Errorf("confirmed %s, want %s", s.Confirmed, confirmed)
	}
	if s.WALEnd == 0 || s.WALEnd > d.lsn(`SELECT pg_current_wal_flush_lsn()::text`) {
		t.Errorf("WAL end %s", s.WALEnd)
	}
	f.close()
	if d.open(d.options("t")).Session().SlotCreated {
		t.Error("the second stream says that it made the slot")
	}
}

// TestLargeTransactionFlowsThrough reads a transaction far larger than what may wait, in pieces.
func TestLargeTransactionFlowsThrough(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	o := d.options("t")
	o.BatchBytes = 1 << 20
	f := d.open(o)
	const rows = 100_000
	d.run(fmt.Sprintf(`INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, %d) AS i`, rows))
	mark := d.mark()
	var pieces, seen int
	complete := false
	for f.position <= mark {
		before, inside := f.position, pieces > 0 && !complete
		if err := f.take(); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, tx := range f.transactions {
			if complete {
				t.Fatal("something came behind the last piece")
			}
			pieces++
			complete = tx.Complete
			for _, c := range tx.Changes {
				seen++
				if got := string(c.New[0].Text); got != fmt.Sprint(seen) {
					t.Fatalf("row %d has id %s", seen, got)
				}
				size += len(c.New[1].Text)
			}
		}
		if inside && !complete && f.position != before {
			t.Errorf("position moved from %s to %s inside the transaction", before, f.position)
		}
		if size > o.BatchBytes+pieceBytes {
			t.Errorf("a batch of %d bytes", size)
		}
		f.transactions = nil
	}
	if seen != rows || !complete || pieces < rows/pieceChanges {
		t.Errorf("%d rows in %d pieces, complete: %t", seen, pieces, complete)
	}
}

// TestReleasedMemoryIsUsedAgain releases each batch and still has every later row right.
func TestReleasedMemoryIsUsedAgain(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	const rows = 20_000
	d.run(fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO t VALUES (i, 'title ' || i); IF i %% 3 = 0 THEN COMMIT; END IF; END LOOP; END $$`, rows))
	mark := d.mark()
	seen := 0
	for position := LSN(0); position <= mark; {
		<-f.Ready()
		b, err := f.Take()
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			continue
		}
		position = b.Position
		for _, tx := range b.Transactions {
			for _, c := range tx.Changes {
				seen++
				if got, want := c.story(), fmt.Sprintf("INSERT public.t new[id=%d title=title %[1]d]", seen); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
		}
		f.Release(b)
	}
	if seen != rows {
		t.Errorf("%d rows", seen)
	}
}

// TestNothingIsLostBetweenTwoStreams confirms some transactions and reads the rest on the next connection.
func TestNothingIsLostBetweenTwoStreams(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	// One statement, several transactions, and nothing in between: their records lie side by side, so that the end of
	// one commit is where the next transaction begins.
	const commits = 30
	d.run(fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO t VALUES (i, 'x'); COMMIT; END LOOP; END $$`, commits))
	all := f.until(d.mark())
	if len(all) != commits {
		t.Fatalf("%d transactions", len(all))
	}
	for next := 0; next < commits; next += 7 {
		if next > 0 {
			f.Confirm(all[next-1].End)
		}
		f.close()
		f = d.open(d.options("t"))
		if next > 0 && f.Session().Confirmed != all[next-1].End {
			t.Errorf("the slot's position is %s, confirmed was %s", f.Session().Confirmed, all[next-1].End)
		}
		rest := f.until(d.mark())
		if diff := cmp.Diff(changes(all[next:]), changes(rest)); diff != "" {
			t.Fatalf("after %d confirmed transactions (-want +got):\n%s", next, diff)
		}
	}
}

// TestAdjacentTransactionSurvives makes two commit records that touch each other, the case in which one byte more than
// the end would lose the second.
func TestAdjacentTransactionSurvives(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	other := d.connect()
	for id := 0; ; id += 2 {
		if id > 2000 {
			t.Fatal("no two commits became adjacent")
		}
		// Both have written before either commits, so only the two commit records follow.
		d.run(fmt.Sprintf(`BEGIN; INSERT INTO t VALUES (%d)`, id))
		if _, err := other.Exec(t.Context(), fmt.Sprintf(`BEGIN; INSERT INTO t VALUES (%d)`, id+1)); err != nil {
			t.Fatal(err)
		}
		d.run(`COMMIT`)
		if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		got := f.until(d.mark())
		if len(got) != 2 {
			t.Fatalf("%d transactions", len(got))
		}
		if got[0].End != got[1].Commit {
			f.Confirm(f.position)
			continue
		}
		f.Confirm(got[0].End)
		f.close()
		f = d.open(d.options("t"))
		if diff := cmp.Diff(changes(got[1:]), changes(f.until(d.mark()))); diff != "" {
			t.Errorf("after the first of two adjacent transactions was confirmed (-want +got):\n%s", diff)
		}
		return
	}
}

func TestConfirmIsClampedAndMonotone(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	start := f.Session().Confirmed
	f.Confirm(1 << 60)
	if got := LSN(f.confirmed.Load()); got != start {
		t.Errorf("before anything was taken %s was confirmed, want %s", got, start)
	}
	d.run(`INSERT INTO t VALUES (1)`)
	one := f.until(d.mark())
	d.run(`INSERT INTO t VALUES (2)`)
	d.mark()
	eventually(t, "the second transaction waits to be taken", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.waiting != nil && len(f.waiting.Transactions) == 1
	})
	f.Confirm(1 << 60) // the second has been received, but not taken
	if got := LSN(f.confirmed.Load()); got != f.position {
		t.Errorf("%s was confirmed, taken was %s", got, f.position)
	}
	f.Confirm(one[0].End)
	f.Confirm(0)
	if got := LSN(f.confirmed.Load()); got != f.position {
		t.Errorf("the confirmed position went back to %s", got)
	}
	eventually(t, "the server knows", func() bool { return d.slotConfirmed() == f.position })
	f.close()
	f = d.open(d.options("t"))
	want := []string{"INSERT public.t new[id=2 title:null]"}
	if diff := cmp.Diff(want, changes(f.until(d.mark()))); diff != "" {
		t.Error(diff)
	}
}

// TestPositionMovesBesideABusyTable writes much to a table that is not published: the position must follow, or the
// server would keep all that WAL.
func TestPositionMovesBesideABusyTable(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"), createTable("busy"))
	f := d.open(d.options("t"))
	d.run(`INSERT INTO t VALUES (1)`)
	d.run(`INSERT INTO busy SELECT i, repeat('x', 500) FROM generate_series(1, 20000) AS i`)
	mark := d.lsn(`SELECT pg_current_wal_flush_lsn()::text`)
	for f.position < mark {
		f.AskPosition()
		if err := f.take(); err != nil {
			t.Fatal(err)
		}
		f.Confirm(f.position)
	}
	eventually(t, "the slot follows", func() bool { return d.slotConfirmed() >= mark })
	if got := changes(f.transactions); !slices.Equal(got, []string{"INSERT public.t new[id=1 title:null]"}) {
		t.Errorf("got %q", got)
	}
}

// hearsay is what an Early has heard.
type hearsay struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

func (e *hearsay) add(line string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, line)
}

func (e *hearsay) Committed(t *Transaction) { e.add(strings.Join(changes([]Transaction{*t}), "")) }
func (e *hearsay) Pause()                   { e.add("pause") }

// heard gives what was told, without the pauses.
func (e *hearsay) heard() (transactions []string, ended bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ended = len(e.all) > 0 && e.all[len(e.all)-1] == "pause"
	for _, line := range e.all {
		if line != "pause" {
			transactions = append(transactions, line)
		}
	}
	return transactions, ended
}

// Who wants to hear of transactions early hears of each before it can be taken, and of the end of what has come.
func TestEarly(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"), createTable("other"))
	early := &hearsay{}
	o := d.options("t")
	o.Early = early
	f := d.open(o)
	d.run(`INSERT INTO t VALUES (1, 'one')`, `INSERT INTO other VALUES (1, 'one')`, `BEGIN; INSERT INTO t VALUES (2, 'two'); DELETE FROM t; COMMIT`)
	want := []string{
		"INSERT public.t new[id=1 title=one]",
		"INSERT public.t new[id=2 title=two], DELETE public.t old[id=1 title:absent], DELETE public.t old[id=2 title:absent]",
	}
	if diff := cmp.Diff(want, changes(f.until(d.mark()))); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	got, _ := early.heard()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("heard when they had been taken (-want +got):\n%s", diff)
	}
	eventually(t, "a pause behind them", func() bool { _, ended := early.heard(); return ended })
}
