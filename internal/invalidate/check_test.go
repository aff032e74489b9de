package invalidate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded/embeddedtest"
)

// Each row is a catalog, what is found in it, and that the SQL of the findings mends them.
func TestCheck(t *testing.T) {
	t.Parallel()
	const table = `create table t (id int primary key, code text, n int)`
	for _, test := range []struct {
		name  string
		setup []string
		rule  string
		want  []string // severity, subject and a word of the problem
	}{
		{"all is well", []string{table, `create publication walkey for table t`}, `keys: ["t:{id}"]`, nil},
		{"no table", []string{`create publication walkey`}, `keys: [t]`, []string{`failure "public"."t" exist`}},
		{"no column", []string{table, `create publication walkey for table t`}, `keys: ["t:{nothing}"]`, []string{`failure "public"."t" nothing`}},
		{"not published", []string{table, `create publication walkey`}, `keys: [t]`, []string{`failure "public"."t" publication`}},
		{"kinds of change", []string{table, `create publication walkey for table t with (publish = 'insert, truncate')`}, `keys: [t]`, []string{`failure "walkey" every kind`}},
		{"row filter", []string{table, `create publication walkey for table t where (id > 1)`}, `keys: [t]`, []string{`failure "public"."t" rows`}},
		{"no primary key", []string{`create table t (id int)`, `create publication walkey for table t`}, `keys: [t]`, []string{`failure "public"."t" identity`}},
		{"identity nothing", []string{table, `alter table t replica identity nothing`, `create publication walkey for table t`}, `keys: [t]`, []string{`failure "public"."t" identity`}},
		{"a key outside the identity", []string{table, `create publication walkey for table t`}, `keys: ["t:{id}:{code}"]`, []string{`warning "public"."t" code`}},
		{"an identity by index", []string{
			`create table t (id int primary key, code text not null unique)`, `alter table t replica identity using index t_code_key`, `create publication walkey for table t`,
		}, `keys: ["t:{code}"]`, nil},
		{"identity full", []string{table, `alter table t replica identity full`, `create publication walkey for table t`}, `keys: ["t:{code}"]`, nil},
		{"a partitioned table", []string{
			`create table t (id int primary key) partition by range (id)`, `create table t1 partition of t for values from (0) to (9)`,
			`create publication walkey for table t with (publish_via_partition_root = true)`,
		}, `keys: ["t:{id}"]`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), embeddedtest.Database(t, embeddedtest.SharedPostgres(t)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			for _, sql := range test.setup {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			rules, err := ParseRules([]byte("tables:\n  public.t:\n    "+test.rule+"\n"), "p")
			if err != nil {
				t.Fatal(err)
			}
			check := func() []Finding {
				t.Helper()
				findings, err := Check(t.Context(), conn, rules, "walkey")
				if err != nil {
					t.Fatal(err)
				}
				return findings
			}
			var got []string
			unmendable := false
			for i, f := range check() {
				line := string(f.Severity) + " " + f.Subject
				if i < len(test.want) && strings.HasPrefix(test.want[i], line+" ") && strings.Contains(f.Problem, strings.TrimPrefix(test.want[i], line+" ")) {
					line = test.want[i]
				} else {
					line += " " + f.Problem
				}
				got = append(got, line)
				unmendable = unmendable || f.SQL == ""
				if _, err := conn.Exec(t.Context(), f.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Errorf("%s: %v", f.SQL, err)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if left := check(); len(left) > 0 && !unmendable {
				t.Errorf("after the SQL: %+v", left)
			}
		})
	}
}
