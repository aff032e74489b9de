package explain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"walkey/internal/cache"
	"walkey/internal/cdc"
	"walkey/internal/doctor"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/invalidate"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

const rules = `
tables:
  pairs:
    keys: ["pair:{b}:{a}", "by:{name}"]
    when: live && weight > 1.5
  '"Odd schema"."Odd.table"':
    keys: ["odd:{Key one}:{raw}"]
  keyless:
    keys: ["keyless:{id}"]
`

// setup gives a database with tables of unusual shapes, and options to ask about them.
func setup(t *testing.T) (Options, *pgx.Conn) {
	t.Helper()
	url := embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, sql := range []string{
		`create table pairs (a int, name text, b uuid, live bool, weight numeric, primary key (b, a))`,
		`insert into pairs values (1, 'x=y', '00000000-0000-0000-0000-000000000001', true, 2), (2, null, '00000000-0000-0000-0000-000000000001', true, 1)`,
		`create schema "Odd schema"`,
		`create table "Odd schema"."Odd.table" ("Key one" timestamptz primary key, raw bytea)`,
		`insert into "Odd schema"."Odd.table" values ('2026-01-02 03:04:05+02', '\x00ff')`,
		`create table keyless (id text)`,
		`insert into keyless values ('twice'), ('twice'), ('once')`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	parsed, err := invalidate.ParseRules([]byte(rules), "p")
	if err != nil {
		t.Fatal(err)
	}
	valkey := embeddedtest.Valkey(t)
	eraser, err := cache.OpenEraser(cache.Options{Host: valkey.Host(), Port: valkey.Port(), Prefix: "p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eraser.Close)
	return Options{DatabaseURL: url, Rules: parsed, Eraser: eraser, Timeout: 20 * time.Second}, conn
}

// Keys are made of the text that the stream sends, for primary keys and types of all sorts, however the row is named.
func TestOfRow(t *testing.T) {
	t.Parallel()
	o, _ := setup(t)
	const id = "00000000-0000-0000-0000-000000000001"
	pairs, odd, keyless := cdc.Table{Schema: "public", Name: "pairs"}, cdc.Table{Schema: "Odd schema", Name: "Odd.table"}, cdc.Table{Schema: "public", Name: "keyless"}
	for _, test := range []struct {
		name   string
		table  cdc.Table
		values []string
		keys   string
		counts bool
		wrong  string
	}{
		{"a key of two, in its order", pairs, []string{id, "1"}, "p:pair:" + id + ":1 p:by:x=y", true, ""},
		{"by columns", pairs, []string{"a=1", "b=" + strings.ToUpper(id)}, "p:pair:" + id + ":1 p:by:x=y", true, ""},
		{"by another column, with an = in it", pairs, []string{"name=x=y"}, "p:pair:" + id + ":1 p:by:x=y", true, ""},
		{"NULL in a key, and the condition does not hold", pairs, []string{id, "2"}, "p:pair:" + id + ":2 p:by:", false, ""},
		{"half of the key", pairs, []string{id}, "", false, "primary key has 2 columns (b, a), not 1"},
		{"more rows than one", pairs, []string{"b=" + id}, "", false, "more than one row"},
		{"no uuid", pairs, []string{"x", "1"}, "", false, "invalid input syntax for type uuid"},
		{"quoted names, the stream's time zone and bytes", odd, []string{"2026-01-02 01:04:05Z"}, `p:odd:2026-01-02 01:04:05+00:\x00ff`, true, ""},
		{"a table without a key", keyless, []string{"once"}, "", false, "has 0 columns"},
		{"a table without a key, by column", keyless, []string{"id=once"}, "p:keyless:once", true, ""},
		{"nothing given", keyless, nil, "", false, "give the value of a column"},
		{"a row that is not there", keyless, []string{"id=never"}, "p:keyless:never", true, ""},
	} {
		r, err := OfRow(t.Context(), o, test.table, test.values)
		if test.wrong != "" {
			if !errors.Is(err, ErrRow) || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, k.Key)
		}
		if diff := cmp.Diff(test.keys, strings.Join(keys, " ")); diff != "" || r.Counts != test.counts {
			t.Errorf("%s: counts %t, keys (-want +got):\n%s", test.name, r.Counts, diff)
		}
	}
}

// What is wrong with the servers is told, what is right is not; and a read is all that happens to the table.
func TestFindingsAndNothingWritten(t *testing.T) {
	t.Parallel()
	o, conn := setup(t)
	o.Findings = func(context.Context) []doctor.Result {
		return []doctor.Result{{Check: "a", Status: doctor.Pass}, {Check: "b", Status: doctor.Fail, Mend: "m"}, {Check: "c", Status: doctor.Skip}, {Check: "d", Status: doctor.Warn}}
	}
	var before, after string
	const version = `select string_agg(xmin::text || ctid::text, ' ') from keyless`
	if err := conn.QueryRow(t.Context(), version).Scan(&before); err != nil {
		t.Fatal(err)
	}
	r, err := OfRow(t.Context(), o, cdc.Table{Schema: "public", Name: "keyless"}, []string{"id=once"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 2 || r.Findings[0].Check != "b" || r.Findings[1].Check != "d" {
		t.Errorf("findings %+v", r.Findings)
	}
	if err := conn.QueryRow(t.Context(), version).Scan(&after); err != nil || after != before {
		t.Errorf("%v; before %s, after %s", err, before, after)
	}
	if r, err := OfKey(t.Context(), o, "p:strange"); err != nil || r.Counts || len(r.Advice) != 1 || !strings.Contains(r.Advice[0], "no rule names it") {
		t.Errorf("%v, %+v", err, r)
	}
}
