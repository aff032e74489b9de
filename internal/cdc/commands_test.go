package cdc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/embedded/embeddedtest"
)

func (d *database) setupOptions(tables ...string) SetupOptions {
	o := d.options(tables...)
	return SetupOptions{DatabaseURL: d.url, Slot: d.slot, Publication: o.Publication, Tables: o.Tables}
}

// told gives steps as lines.
func told(steps []Step) (lines []string) {
	for _, s := range steps {
		lines = append(lines, strings.TrimSpace(s.State+" "+s.What+" "+s.SQL))
	}
	return lines
}

// TestSetup brings several states into the one that a stream needs; a dry run says the same and does nothing.
func TestSetup(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		setup []string
		want  []string // SQL on the publication
	}{
		{"nothing is there", []string{createTable("t"), createTable("u")}, []string{
			`CREATE PUBLICATION "walkey" FOR TABLE "public"."t", "public"."u" WITH (publish_via_partition_root = true);`,
		}},
		{"a table is missing", []string{createTable("t"), createTable("u"), `CREATE PUBLICATION walkey FOR TABLE u`}, []string{
			`ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`,
		}},
		{"kinds are missing and a filter is there", []string{createTable("t"), createTable("u"), `CREATE PUBLICATION walkey FOR TABLE t WHERE (id > 1), u WITH (publish = 'insert')`}, []string{
			`ALTER PUBLICATION "walkey" SET (publish = 'insert, update, delete, truncate');`,
			`ALTER PUBLICATION "walkey" DROP TABLE "public"."t";`,
			`ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`,
		}},
		{"a partitioned table under its partitions' names", []string{
			`CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)`,
			createTable("u"), `CREATE PUBLICATION walkey FOR TABLE t`,
		}, []string{
			`ALTER PUBLICATION "walkey" SET (publish_via_partition_root = true);`,
			`ALTER PUBLICATION "walkey" ADD TABLE "public"."u";`,
		}},
		{"all tables", []string{createTable("t"), createTable("u"), `CREATE PUBLICATION walkey FOR ALL TABLES`}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := shared(t, test.setup...)
			o := d.setupOptions("t", "u")
			want := func(state string) (lines []string) {
				for _, sql := range test.want {
					lines = append(lines, state+" publication walkey "+sql)
				}
				if test.want == nil {
					lines = append(lines, StepPresent+" publication walkey")
				}
				return append(lines, fmt.Sprintf("%s slot %s SELECT pg_create_logical_replication_slot('%[2]s', 'pgoutput');", state, d.slot))
			}
			o.DryRun = true
			for range 2 { // the first has changed nothing
				steps, err := Setup(t.Context(), o)
				if diff := cmp.Diff(want(StepPlanned), told(steps)); diff != "" || err != nil {
					t.Fatalf("dry run: %v\n%s", err, diff)
				}
			}
			o.DryRun = false
			steps, err := Setup(t.Context(), o)
			if diff := cmp.Diff(want(StepDone), told(steps)); diff != "" || err != nil {
				t.Fatalf("%v\n%s", err, diff)
			}
			if steps, err = Setup(t.Context(), o); err != nil || len(steps) != 2 || steps[0].State != StepPresent || steps[1].State != StepPresent {
				t.Errorf("again: %v, %v", told(steps), err)
			}
			d.open(d.options("t", "u"))
		})
	}
}

func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, problem, sql string
		setup              []string
		change             func(*SetupOptions)
	}{
		{name: "a table that does not exist", problem: "do not exist: public.t", setup: nil},
		{name: "a table that would refuse updates", problem: "no replica identity", sql: "REPLICA IDENTITY FULL", setup: []string{`CREATE TABLE t (id int)`}},
		{
			name: "a role that does not exist", problem: "role nobody_here does not exist", sql: `CREATE ROLE "nobody_here" LOGIN REPLICATION;`,
			setup: []string{createTable("t")}, change: func(o *SetupOptions) { o.Role = "nobody_here" },
		},
		{
			name: "another's slot", problem: "not one of pgoutput", sql: "pg_drop_replication_slot",
			setup: []string{createTable("t"), `SELECT pg_create_logical_replication_slot('SLOT', 'test_decoding')`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := shared(t)
			for _, sql := range test.setup {
				d.run(strings.ReplaceAll(sql, "SLOT", d.slot))
			}
			o := d.setupOptions("t")
			if test.change != nil {
				test.change(&o)
			}
			_, err := Setup(t.Context(), o)
			var e *SetupError
			if !errors.As(err, &e) || !strings.Contains(e.Problem, test.problem) || !strings.Contains(e.SQL, test.sql) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSetupForARole lets a role replicate that could not, and then needs nobody's help.
func TestSetupForARole(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	name, follow := d.role("")
	d.run(fmt.Sprintf(`REVOKE CONNECT ON DATABASE %s FROM PUBLIC`, quote(d.query(`SELECT current_database()`))))
	o := d.setupOptions("t")
	o.Role = name
	steps, err := Setup(t.Context(), o)
	if err != nil || len(steps) != 4 || steps[1].SQL != `ALTER ROLE "`+name+`" REPLICATION;` || !strings.HasPrefix(steps[2].SQL, "GRANT CONNECT ON DATABASE") {
		t.Fatalf("%v, %v", told(steps), err)
	}
	d.open(follow)
}

// TestSetupWithoutRights is the owner's setup: the slot is the invalidator's to make, unless nobody says who that is.
func TestSetupWithoutRights(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"), `CREATE PUBLICATION walkey FOR TABLE t`)
	name, weak := d.role("")
	o := d.setupOptions("t")
	o.DatabaseURL = weak.DatabaseURL
	var e *SetupError
	if steps, err := Setup(t.Context(), o); !errors.As(err, &e) || e.SQL != `ALTER ROLE "`+name+`" REPLICATION;` || len(steps) != 1 {
		t.Errorf("%v, %v", told(steps), err)
	}
	o.Role = "postgres"
	steps, err := Setup(t.Context(), o)
	if err != nil || len(steps) != 3 || steps[2].State != StepLeft || steps[2].Note == "" {
		t.Errorf("%v, %v", told(steps), err)
	}
	o.Role, o.Publication = "", "other"
	if _, err := Setup(t.Context(), o); !errors.As(err, &e) || !strings.HasPrefix(e.SQL, `CREATE PUBLICATION "other"`) {
		t.Errorf("got %v", err)
	}
}

// TestSetupOfALostSlot has a private server, whose WAL limit it breaks.
func TestSetupOfALostSlot(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, embeddedtest.Postgres(t, "max_slot_wal_keep_size=1MB", "max_wal_size=32MB", "min_wal_size=32MB"), createTable("t"))
	o := d.setupOptions("t")
	if _, err := Setup(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		d.run(`SELECT pg_switch_wal()`, `INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t`, `CHECKPOINT`)
	}
	if status := d.query(`SELECT wal_status FROM pg_replication_slots`); status != "lost" {
		t.Fatalf("the slot is %s", status)
	}
	steps, err := Setup(t.Context(), o)
	if err != nil || len(steps) != 3 || steps[1].SQL != dropSlot(d.slot) || steps[2].State != StepDone {
		t.Errorf("%v, %v", told(steps), err)
	}
	d.open(d.options("t"))
}

func TestTeardown(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	f := d.open(d.options("t"))
	asked := 0
	answer := false
	o := TeardownOptions{DatabaseURL: d.url, Slot: d.slot, Publication: "walkey", Confirm: func(steps []Step) (bool, error) {
		asked++
		if len(steps) != 2 || !strings.Contains(steps[0].Note, "keeps") || steps[1].Note != "of public.t" {
			t.Errorf("asked about %+v", steps)
		}
		return answer, nil
	}}
	var e *SetupError
	if _, err := Teardown(t.Context(), o); !errors.As(err, &e) || !strings.Contains(e.Problem, "is held by process") || !strings.Contains(e.Problem, "(walkey)") || asked != 0 {
		t.Errorf("while the slot is held: %v, asked %d times", err, asked)
	}
	f.close()
	eventually(t, "the slot is free", func() bool {
		return d.query(`SELECT active::text FROM pg_replication_slots WHERE slot_name = $1`, d.slot) == "false"
	})
	left := func() string {
		return d.query(`SELECT (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)`, d.slot)
	}
	if _, err := Teardown(t.Context(), o); !errors.Is(err, ErrDeclined) || asked != 1 || left() != "1 1" {
		t.Errorf("after a no: %v, left %s", err, left())
	}
	answer = true
	steps, err := Teardown(t.Context(), o)
	want := []string{"done slot " + d.slot + " " + dropSlot(d.slot), `done publication walkey DROP PUBLICATION "walkey";`}
	if diff := cmp.Diff(want, told(steps)); diff != "" || err != nil || left() != "0 0" {
		t.Errorf("%v, left %s\n%s", err, left(), diff)
	}
	if steps, err := Teardown(t.Context(), o); err != nil || asked != 2 || planned(steps) != 0 {
		t.Errorf("again: %v, %v, asked %d times", told(steps), err, asked)
	}
	d.run(`SELECT pg_create_logical_replication_slot('` + d.slot + `', 'test_decoding')`)
	if _, err := Teardown(t.Context(), o); !errors.As(err, &e) || left() != "0 1" {
		t.Errorf("another's slot: %v, left %s", err, left())
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	if err := Probe(t.Context(), d.url); err != nil {
		t.Error(err)
	}
	name, weak := d.role("")
	var e *SetupError
	if err := Probe(t.Context(), weak.DatabaseURL); !errors.As(err, &e) || e.SQL != `ALTER ROLE "`+name+`" REPLICATION;` {
		t.Errorf("got %v", err)
	}
	if pooled, err := ThroughPooler(t.Context(), d.conn); pooled || err != nil {
		t.Errorf("a direct connection: %t, %v", pooled, err)
	}
}
