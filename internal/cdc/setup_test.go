package cdc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/embedded/embeddedtest"
)

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	good := Options{DatabaseURL: "postgres://127.0.0.1:1/x", Slot: "walkey_1", Publication: "walkey", Tables: []Table{{"public", "t"}}, Columns: idAndTitle}
	if _, err := good.complete(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"an empty slot name", func(o *Options) { o.Slot = "" }, `slot name ""`},
		{"a slot name that would need quotes", func(o *Options) { o.Slot = "Walkey" }, `slot name "Walkey"`},
		{"a slot name that is a command", func(o *Options) { o.Slot = "a LOGICAL b" }, "slot name"},
		{"a slot name that is too long", func(o *Options) { o.Slot = strings.Repeat("a", 64) }, "slot name"},
		{"no publication", func(o *Options) { o.Publication = "" }, "publication name"},
		{"no tables", func(o *Options) { o.Tables = nil }, "no tables"},
		{"no columns", func(o *Options) { o.Columns = nil }, "no columns"},
		{"a timeout that is too short", func(o *Options) { o.SenderTimeout = 1 }, "sender timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := good
			test.change(&o)
			_, err := Open(t.Context(), o)
			var e *SetupError
			if !errors.As(err, &e) || !strings.Contains(e.Problem, test.want) {
				t.Errorf("got %v, want a SetupError about %s", err, test.want)
			}
		})
	}
}

func TestErrorsKeepThePasswordToThemselves(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t"
	for _, u := range []string{
		"postgres://user:" + password + "@127.0.0.1:1/database",
		"postgres://user:" + password + "@127.0.0.1:port/database",
		"postgres://user:" + password + "/word@127.0.0.1/database",
		"postgres://user:%zz" + password + "@127.0.0.1/database",
		"host=127.0.0.1 port=1 password=" + password + " port=x",
		"host=127.0.0.1 'password=" + password,
		"postgres://user:" + password + "@127.0.0.1:1/database?sslmode=sometimes",
	} {
		_, err := Open(t.Context(), Options{DatabaseURL: u, Slot: "s", Publication: "p", Tables: []Table{{"public", "t"}}, Columns: idAndTitle})
		if err == nil {
			t.Errorf("%s was opened", u)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestSetupErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		setup   []string
		tables  []string
		problem string
		sql     string
		mends   bool // the SQL that is given makes Open succeed
	}{{
		name:    "a table without a primary key",
		setup:   []string{`CREATE TABLE t (id int)`},
		problem: "no replica identity, so that a published update or delete would fail: public.t",
		sql:     `ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
		mends:   true,
	}, {
		name:    "a table that asks for no identity",
		setup:   []string{createTable("t"), `ALTER TABLE t REPLICA IDENTITY NOTHING`},
		problem: "no replica identity, so that a published update or delete would fail: public.t",
		sql:     `ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
		mends:   true,
	}, {
		name:    "a slot of another plugin",
		setup:   []string{createTable("t"), `SELECT pg_create_logical_replication_slot('SLOT', 'test_decoding')`},
		problem: `slot SLOT is a slot of plugin "test_decoding"`,
		sql:     `SELECT pg_drop_replication_slot('SLOT');`,
		mends:   true,
	}, {
		name:    "a slot that tells prepared transactions",
		setup:   []string{createTable("t"), `SELECT pg_create_logical_replication_slot('SLOT', 'pgoutput', false, true)`},
		problem: `slot SLOT is one for two-phase commits`,
		sql:     `SELECT pg_drop_replication_slot('SLOT');`,
		mends:   true,
	}, {
		name:    "a physical slot",
		setup:   []string{createTable("t"), `SELECT pg_create_physical_replication_slot('SLOT')`},
		problem: `slot SLOT is a physical slot`,
		sql:     `SELECT pg_drop_replication_slot('SLOT');`,
		mends:   true,
	}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := shared(t)
			for _, sql := range test.setup {
				d.run(strings.ReplaceAll(sql, "SLOT", d.slot))
			}
			if test.tables == nil {
				test.tables = []string{"t"}
			}
			o := d.options(test.tables...)
			e := d.setupError(o)
			if want := strings.ReplaceAll(test.problem, "SLOT", d.slot); !strings.HasPrefix(e.Problem, want) {
				t.Errorf("problem: %s\nwant: %s", e.Problem, want)
			}
			if want := strings.ReplaceAll(test.sql, "SLOT", d.slot); e.SQL != want {
				t.Errorf("SQL: %s\nwant: %s", e.SQL, want)
			}
			if !strings.Contains(e.Error(), e.SQL) {
				t.Errorf("%q does not say the SQL", e)
			}
			if test.mends {
				d.run(e.SQL)
				d.open(o)
			}
		})
	}
}

// role makes a role and gives options that connect as it.
func (d *database) role(attributes string) (name string, o Options) {
	d.t.Helper()
	name = "role_" + d.slot
	d.run(fmt.Sprintf(`CREATE ROLE %s LOGIN %s`, name, attributes))
	d.t.Cleanup(func() {
		if _, err := d.conn.Exec(context.Background(), fmt.Sprintf(`DROP OWNED BY %s; DROP ROLE %[1]s`, name)); err != nil {
			d.t.Error(err)
		}
	})
	u, err := url.Parse(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	u.User = url.User(name)
	o = d.options("t")
	o.DatabaseURL = u.String()
	return name, o
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	t.Run("to replicate, with a slot to make", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"), `CREATE PUBLICATION walkey FOR TABLE t`)
		name, o := d.role("")
		e := d.setupError(o)
		if want := `ALTER ROLE "` + name + `" REPLICATION;`; e.SQL != want {
			t.Errorf("got %v, want the SQL %s", e, want)
		}
		d.run(e.SQL)
		d.open(o).close()
	})
	t.Run("to replicate, with a slot to take", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"))
		d.open(d.options("t")).close()
		name, o := d.role("")
		if e, want := d.setupError(o), `ALTER ROLE "`+name+`" REPLICATION;`; e.SQL != want {
			t.Errorf("got %v, want the SQL %s", e, want)
		}
	})
	t.Run("to make the publication", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"))
		_, o := d.role("REPLICATION")
		e := d.setupError(o)
		if want := `CREATE PUBLICATION "walkey" FOR TABLE "public"."t" WITH (publish_via_partition_root = true);`; e.SQL != want {
			t.Errorf("got %v, want the SQL %s", e, want)
		}
		d.run(e.SQL)
		f := d.open(o)
		d.run(`INSERT INTO t VALUES (1, 'one')`)
		if diff := cmp.Diff([]string{"INSERT public.t new[id=1 title=one]"}, changes(f.until(d.mark()))); diff != "" {
			t.Error(diff)
		}
		f.close()
	})
}

func TestNamesThatNeedQuotes(t *testing.T) {
	t.Parallel()
	d := shared(t, `CREATE SCHEMA "sche'ma"`, `CREATE TABLE "sche'ma"."ta""ble" (id int PRIMARY KEY, title text)`)
	o := d.options()
	o.Publication = `Wal"key's, 100%d publication`
	o.Tables = []Table{{"sche'ma", `ta"ble`}}
	f := d.open(o)
	d.run(`INSERT INTO "sche'ma"."ta""ble" VALUES (1, 'one')`)
	if diff := cmp.Diff([]string{`INSERT sche'ma.ta"ble new[id=1 title=one]`}, changes(f.until(d.mark()))); diff != "" {
		t.Error(diff)
	}
}

func TestOpenWaitsForTables(t *testing.T) {
	t.Parallel()
	d := shared(t)
	w := newWaits()
	o := d.options("t", "u")
	o.OnWait = w.add
	p := d.openLater(o)
	if diff := cmp.Diff(Wait{WaitTables, "public.t, public.u"}, w.next(t)); diff != "" {
		t.Error(diff)
	}
	d.run(createTable("t"))
	if diff := cmp.Diff(Wait{WaitTables, "public.u"}, w.next(t)); diff != "" {
		t.Error(diff)
	}
	d.run(createTable("u"))
	p.wait(t)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	d := shared(t)
	w := newWaits()
	o := d.options("t")
	o.OnWait = w.add
	p := d.openLater(o)
	w.next(t)
	p.stop()
	<-p.done
	if !errors.Is(p.err, context.Canceled) {
		t.Errorf("got %v", p.err)
	}
}

// TestSlotWaitsForOpenTransactions has a private server, for its prepared transaction would hold up every other test.
func TestSlotWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t, "max_prepared_transactions=5"), createTable("t"))
	d.run(`BEGIN; INSERT INTO t VALUES (1, 'one'); PREPARE TRANSACTION 'left behind'`)
	other := d.connect()
	if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (2, 'two')`); err != nil {
		t.Fatal(err)
	}
	var xid string
	if err := other.QueryRow(t.Context(), `SELECT pg_current_xact_id()::xid::text`).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	w := newWaits()
	o := d.options("t")
	o.OnWait = w.add
	p := d.openLater(o)
	got := w.next(t)
	for _, word := range []string{"transaction " + xid, fmt.Sprintf("process %d", other.PgConn().PID()), "idle in transaction", "prepared as left behind", "open since 20"} {
		if got.Reason != WaitTransactions || !strings.Contains(got.Detail, word) {
			t.Errorf("%q does not tell of %q", got, word)
		}
	}
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	for strings.Contains(got.Detail, xid) {
		got = w.next(t)
	}
	d.run(`COMMIT PREPARED 'left behind'`)
	f := p.wait(t)
	if !f.Session().SlotCreated {
		t.Error("the session does not say that the slot was made")
	}
	d.run(`BEGIN; INSERT INTO t VALUES (3, 'three'); PREPARE TRANSACTION 'p'`, `INSERT INTO t VALUES (4, 'four')`, `COMMIT PREPARED 'p'`)
	want := []string{"INSERT public.t new[id=4 title=four]", "INSERT public.t new[id=3 title=three]"}
	if diff := cmp.Diff(want, changes(f.until(d.mark()))); diff != "" {
		t.Error(diff)
	}
}

// TestSlotIsNotLeftBehind gives up while the slot is being made.
func TestSlotIsNotLeftBehind(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t), createTable("t"))
	d.run(`BEGIN; INSERT INTO t VALUES (1, 'one')`)
	other := d.connect()
	w := newWaits()
	o := d.options("t")
	o.OnWait = w.add
	p := d.openLater(o)
	w.next(t)
	p.stop()
	<-p.done
	if !errors.Is(p.err, context.Canceled) {
		t.Errorf("got %v", p.err)
	}
	eventually(t, "the half-made slot goes", func() bool {
		var n int
		if err := other.QueryRow(t.Context(), `SELECT count(*)::int FROM pg_replication_slots`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	d.run(`COMMIT`)
}

func TestServerThatIsNotSetUp(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t, "wal_level=replica"), createTable("t"))
	e := d.setupError(d.options("t"))
	if e.Problem != "wal_level is replica, not logical" || !strings.HasPrefix(e.SQL, "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Errorf("got %+v", e)
	}
}

func TestServerWithoutSlots(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t, "max_replication_slots=1"), createTable("t"))
	d.run(`SELECT pg_create_physical_replication_slot('other')`)
	if e := d.setupError(d.options("t")); e.Problem != "all replication slots of the server are in use" || e.SQL == "" {
		t.Errorf("got %+v", e)
	}
}

func TestSlotOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	one, two := shared(t, createTable("t")), shared(t, createTable("t"))
	one.open(one.options("t"))
	o := two.options("t")
	o.Slot = one.slot
	if e := two.setupError(o); !strings.Contains(e.Problem, "in database "+fmt.Sprintf("%q", one.query(`SELECT current_database()`))) {
		t.Errorf("got %v", e)
	}
}

// TestSecondStreamWaitsForTheFirst is the standby's life.
func TestSecondStreamWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(d *database, f *follow)
	}{
		{"until it closes", func(_ *database, f *follow) { f.close() }},
		{"until it is killed", func(_ *database, f *follow) { _ = f.conn.Close() }},
		{"until it is terminated", func(d *database, f *follow) {
			d.run(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ` + literal(d.slot))
			if err := f.end(); !errors.Is(err, ErrTerminated) {
				t.Errorf("the first ended with %v", err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := shared(t, createTable("t"))
			first := d.open(d.options("t"))
			pid := d.query(`SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = ` + literal(d.slot))
			w := newWaits()
			o := d.options("t")
			o.OnWait = w.add
			second := d.openLater(o)
			if got := w.next(t); got.Reason != WaitSlotHeld || !strings.Contains(got.Detail, "process "+pid) {
				t.Errorf("got %+v, process %s has the slot", got, pid)
			}
			d.run(`INSERT INTO t VALUES (1, 'one')`)
			one := first.until(d.mark())
			first.Confirm(one[0].End)
			eventually(t, "the server knows", func() bool { return d.slotConfirmed() == one[0].End })
			d.run(`INSERT INTO t VALUES (2, 'two')`)
			select {
			case <-second.done:
				t.Fatal("the second did not wait")
			default:
			}
			test.end(d, first)
			f := second.wait(t)
			if f.Session().SlotCreated {
				t.Error("the second says that it made the slot")
			}
			if f.Session().Confirmed != one[0].End {
				t.Errorf("the second begins at %s, confirmed was %s", f.Session().Confirmed, one[0].End)
			}
			if diff := cmp.Diff([]string{"INSERT public.t new[id=2 title=two]"}, changes(f.until(d.mark()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestManyStartTogether starts several on a database that has nothing yet: one makes everything, each gets its turn.
func TestManyStartTogether(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	const n = 4
	opened := make(chan *opening, n)
	for range n {
		p := d.openLater(d.options("t"))
		go func() {
			<-p.done
			opened <- p
		}()
	}
	created := 0
	for range n {
		f := (<-opened).wait(t)
		if f.Session().SlotCreated {
			created++
		}
		d.run(`INSERT INTO t SELECT count(*) FROM t`)
		all := f.until(d.mark())
		if len(all) != 1 {
			t.Errorf("%d transactions", len(all))
		}
		select {
		case <-opened:
			t.Fatal("two have the slot")
		default:
		}
		f.Confirm(f.position)
		f.close()
	}
	if created != 1 {
		t.Errorf("%d made the slot", created)
	}
}

// TestOpenWaitsWhileAnotherSetsUp holds the lock that instances make publication and slot under.
func TestOpenWaitsWhileAnotherSetsUp(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	w := newWaits()
	o := d.options("t")
	o.OnWait = w.add
	key := fmt.Sprint((&preparation{Options: o}).lockKey())
	d.run(`SELECT pg_advisory_lock(` + key + `)`)
	p := d.openLater(o)
	if diff := cmp.Diff(Wait{WaitSetup, "slot " + d.slot}, w.next(t)); diff != "" {
		t.Error(diff)
	}
	if got := d.query(`SELECT count(*)::text FROM pg_publication`); got != "0" {
		t.Error("the publication was made without the lock")
	}
	d.run(`SELECT pg_advisory_unlock(` + key + `)`)
	p.wait(t)
	d.run(`SELECT pg_advisory_lock(` + key + `)`) // a stream does not keep it
}

// TestReplicationSession asks the replication connection for what was set for it.
func TestReplicationSession(t *testing.T) {
	t.Parallel()
	d := shared(t)
	for _, setting := range []string{`client_min_messages = 'error'`, `wal_sender_timeout = 0`, `client_encoding = 'LATIN1'`} {
		d.run(fmt.Sprintf(`ALTER DATABASE %s SET %s`, quote(d.query(`SELECT current_database()`)), setting))
	}
	o := d.options("t")
	o.SenderTimeout, o.DecodingWorkMem = 1500*time.Millisecond, "65MB"
	conn, err := o.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(conn)
	for name, want := range map[string]string{
		"wal_sender_timeout": "1500ms", "logical_decoding_work_mem": "65MB", "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
		"IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex",
		"client_min_messages": "warning", "application_name": "walkey",
	} {
		got, err := conn.Exec(t.Context(), "SHOW "+name).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if value := string(got[0].Rows[0][0]); value != want {
			t.Errorf("%s is %s, want %s", name, value, want)
		}
	}
}

func TestNewSlotOnRequest(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	d.open(d.options("t")).close()
	d.run(`INSERT INTO t VALUES (1)`)
	o := d.options("t")
	o.NewSlot = true
	f := d.open(o)
	if !f.Session().SlotCreated {
		t.Error("the session does not say that the slot was made")
	}
	if got := f.until(d.mark()); len(got) != 0 {
		t.Errorf("got %q", changes(got))
	}
}

// TestPublicationMadeAfterTheSlot is the trap in which a slot never gets past its own position.
func TestPublicationMadeAfterTheSlot(t *testing.T) {
	t.Parallel()
	t.Run("by somebody else", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"))
		d.open(d.options("t")).close()
		d.run(`DROP PUBLICATION walkey`, `INSERT INTO t VALUES (1)`, `CREATE PUBLICATION walkey FOR TABLE t`)
		f := d.open(d.options("t"))
		if err := f.end(); !errors.Is(err, ErrPublicationMissing) {
			t.Fatalf("got %v", err)
		}
		o := d.options("t")
		o.NewSlot = true
		f = d.open(o)
		d.run(`INSERT INTO t VALUES (2)`)
		if diff := cmp.Diff([]string{"INSERT public.t new[id=2 title:null]"}, changes(f.until(d.mark()))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("by Open", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"))
		d.open(d.options("t")).close()
		d.run(`DROP PUBLICATION walkey`, `INSERT INTO t VALUES (1)`)
		f := d.open(d.options("t"))
		if !f.Session().SlotCreated {
			t.Error("the session does not say that the slot was made")
		}
		d.run(`INSERT INTO t VALUES (2)`)
		if diff := cmp.Diff([]string{"INSERT public.t new[id=2 title:null]"}, changes(f.until(d.mark()))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("while it streams", func(t *testing.T) {
		t.Parallel()
		d := shared(t, createTable("t"))
		f := d.open(d.options("t"))
		d.run(`DROP PUBLICATION walkey`, `INSERT INTO t VALUES (1)`)
		if err := f.end(); !errors.Is(err, ErrPublicationMissing) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestSlotThatIsDropped(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	d.open(d.options("t")).close()
	d.run(`SELECT pg_drop_replication_slot(` + literal(d.slot) + `)`)
	if f := d.open(d.options("t")); !f.Session().SlotCreated {
		t.Error("the session does not say that the slot was made")
	}
}
