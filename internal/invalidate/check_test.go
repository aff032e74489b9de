package invalidate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each finding is told with SQL that mends it.
func TestCheck(t *testing.T) {
	t.Parallel()
	const table = `create table t (id int primary key, name text, title text)`
	const published = `create publication walkey for table t with (publish_via_partition_root = true)`
	const parts = `create table t (id int primary key, name text, title text) partition by range (id); create table t_low partition of t for values from (0) to (10)`
	for _, c := range []struct {
		name  string
		setup []string
		rule  string // keys of the rule of t; default t:{id}
		want  []Finding
		left  []string // problems that the SQL does not mend
	}{{
		name: "nothing", setup: []string{table, published},
	}, {
		name: "no table", want: []Finding{
			{Failure, `"walkey"`, "the publication does not exist", `CREATE PUBLICATION "walkey" FOR TABLE "public"."t" WITH (publish_via_partition_root = true);`},
			{Failure, `"public"."t"`, "the table does not exist", ""},
		}, left: []string{"the publication does not exist", "the table does not exist"},
	}, {
		name: "no publication", setup: []string{table}, want: []Finding{
			{Failure, `"walkey"`, "the publication does not exist", `CREATE PUBLICATION "walkey" FOR TABLE "public"."t" WITH (publish_via_partition_root = true);`},
		},
	}, {
		name: "not in the publication", setup: []string{table, `create publication walkey`}, want: []Finding{
			{Failure, `"public"."t"`, `the table is not in publication "walkey"`, `ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`},
		},
	}, {
		name: "partitions not in the publication", setup: []string{parts, `create publication walkey`}, want: []Finding{
			{Failure, `"public"."t_low"`, `the table is not in publication "walkey"`, `ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`},
		},
	}, {
		name: "kinds of change", setup: []string{table, `create publication walkey for table t with (publish = 'insert')`}, want: []Finding{
			{Failure, `"walkey"`, "the publication does not send every kind of change", `ALTER PUBLICATION "walkey" SET (publish = 'insert, update, delete, truncate');`},
		},
	}, {
		name: "no truncate", setup: []string{table, `create publication walkey for table t with (publish = 'insert, update, delete')`}, want: []Finding{
			{
				Warning, `"walkey"`, "the publication does not send TRUNCATE, which is noticed by looking at the catalog alone",
				`ALTER PUBLICATION "walkey" SET (publish = 'insert, update, delete, truncate');`,
			},
		},
	}, {
		name: "row filter", setup: []string{table, `create publication walkey for table t where (id > 1)`}, want: []Finding{
			{
				Failure, `"public"."t"`, `publication "walkey" keeps back rows of it (WHERE)`,
				`ALTER PUBLICATION "walkey" DROP TABLE "public"."t"; ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`,
			},
		},
	}, {
		name: "column list", setup: []string{table, `alter table t alter name set not null, drop constraint t_pkey, add primary key (id, name)`, `create publication walkey for table t (id)`},
		rule: `"t:{id}:{title}"`, want: []Finding{
			{
				Failure, `"public"."t"`, `the column list in publication "walkey" lacks "name", so that the database refuses updates and deletes`,
				`ALTER PUBLICATION "walkey" DROP TABLE "public"."t"; ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`,
			},
			{
				Warning, `"public"."t"`, `the column list in publication "walkey" lacks "title": each change deletes every key that the rule makes of it`,
				`ALTER PUBLICATION "walkey" DROP TABLE "public"."t"; ALTER PUBLICATION "walkey" ADD TABLE "public"."t";`,
			},
			{
				Warning, `"public"."t"`, `column "title" is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it`,
				`ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
			},
		},
	}, {
		name: "column outside the identity", setup: []string{table, published}, rule: `"t:{name}"`, want: []Finding{
			{
				Warning, `"public"."t"`, `column "name" is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it`,
				`ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
			},
		},
	}, {
		name: "no identity", setup: []string{table, published, `alter table t replica identity nothing`}, want: []Finding{
			{
				Failure, `"public"."t"`, "the table has no replica identity: the database refuses its updates and deletes as long as it is published",
				`ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
			},
		},
	}, {
		name: "no such column", setup: []string{table, published}, rule: `"t:{nothing}"`, want: []Finding{
			{Failure, `"public"."t"`, `the table has no column "nothing", which a rule reads`, ""},
		}, left: []string{`the table has no column "nothing", which a rule reads`},
	}, {
		name: "unlogged", setup: []string{`create unlogged table t (id int primary key)`, `create publication walkey for all tables`}, want: []Finding{
			{Failure, `"public"."t"`, "the table is unlogged, so that its changes are never sent", `ALTER TABLE "public"."t" SET LOGGED;`},
		},
	}, {
		name: "partition of a published root", setup: []string{
			`create table root (id int primary key) partition by range (id); create table t partition of root for values from (0) to (10)`,
			`create publication walkey for table root with (publish_via_partition_root = true)`,
		}, want: []Finding{
			{
				Failure, `"public"."t"`, `its changes do not come under the name of "public"."t", but of another table`,
				`ALTER PUBLICATION "walkey" SET (publish_via_partition_root = false);`,
			},
		},
	}, {
		name: "partition with less identity", setup: []string{parts, published, `alter table t replica identity full`}, rule: `"t:{title}"`, want: []Finding{
			{
				Failure, `"public"."t_low"`, `the partition's replica identity lacks column "title", which that of "public"."t" has: old values come as NULL`,
				`ALTER TABLE "public"."t_low" REPLICA IDENTITY FULL;`,
			},
			{
				Warning, `"public"."t_low"`, `column "title" is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it`,
				`ALTER TABLE "public"."t_low" REPLICA IDENTITY FULL;`,
			},
		},
	}, {
		name: "many partitions", setup: []string{
			parts, `create table t_2 partition of t for values from (10) to (20); create table t_3 partition of t for values from (20) to (30)`,
			`create table t_4 partition of t for values from (30) to (40); create table t_5 partition of t for values from (40) to (50)`, published,
		}, rule: `"t:{title}"`, want: []Finding{
			{
				Warning, `"public"."t_low", "public"."t_2", "public"."t_3" and 2 more`,
				`column "title" is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it`,
				`ALTER TABLE "public"."t_low" REPLICA IDENTITY FULL; ALTER TABLE "public"."t_2" REPLICA IDENTITY FULL; ` +
					`ALTER TABLE "public"."t_3" REPLICA IDENTITY FULL; ALTER TABLE "public"."t_4" REPLICA IDENTITY FULL; ALTER TABLE "public"."t_5" REPLICA IDENTITY FULL;`,
			},
		},
	}, {
		name: "names that need quotes", setup: []string{table, `drop table t; create table t (id int primary key, "Na""me" text)`, published}, rule: `'t:{Na"me}'`, want: []Finding{
			{
				Warning, `"public"."t"`, `column "Na""me" is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it`,
				`ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`,
			},
		},
	}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := database(t, c.setup...)
			if c.rule == "" {
				c.rule = `"t:{id}"`
			}
			rules := mustParse(t, "tables: {t: {keys: ["+c.rule+"]}}")
			check := func() []Finding {
				t.Helper()
				findings, err := Check(t.Context(), b.conn, rules, "walkey")
				if err != nil {
					t.Fatal(err)
				}
				return findings
			}
			got := check()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			var left []string
			done := map[string]bool{}
			for _, f := range got {
				if f.SQL != "" && !done[f.SQL] && !strings.Contains(strings.Join(c.left, "\n"), f.Problem) {
					b.exec(f.SQL)
					done[f.SQL] = true
				}
			}
			for _, f := range check() {
				left = append(left, f.Problem)
			}
			if diff := cmp.Diff(c.left, left); diff != "" {
				t.Errorf("after the SQL (-want +got):\n%s", diff)
			}
		})
	}
}
