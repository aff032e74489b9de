package invalidate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
	"walkey/internal/embedded/embeddedtest"
)

// BenchmarkGlance is what each proof pays for the watch on the catalog.
func BenchmarkGlance(b *testing.B) {
	server := embeddedtest.SharedPostgres(b)
	for _, c := range []struct {
		name  string
		setup func() (sql []string, tables []cdc.Table)
	}{
		{"1_table", func() ([]string, []cdc.Table) { return manyTables(1) }},
		{"20_tables", func() ([]string, []cdc.Table) { return manyTables(20) }},
		{"1000_partitions", func() ([]string, []cdc.Table) {
			sql := []string{"create table t (id int primary key, title text) partition by range (id)"}
			for i := range 1000 {
				sql = append(sql, fmt.Sprintf("create table t_%d partition of t for values from (%d) to (%d)", i, i, i+1))
			}
			return append(sql, "create publication walkey for table t"), []cdc.Table{{Schema: "public", Name: "t"}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			conn, err := pgx.Connect(b.Context(), embeddedtest.Database(b, server))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close(b.Context()) }()
			sql, tables := c.setup()
			if _, err := conn.Exec(b.Context(), strings.Join(sql, ";")+"; analyze"); err != nil {
				b.Fatal(err)
			}
			var version int
			if err := conn.QueryRow(b.Context(), "select current_setting('server_version_num')::int").Scan(&version); err != nil {
				b.Fatal(err)
			}
			query := glanceQuery(version)
			schemas, names := places(tables)
			for b.Loop() {
				var glance string
				if err := conn.QueryRow(b.Context(), query, schemas, names, "walkey").Scan(&glance); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyTables makes n tables of six columns and a publication.
func manyTables(n int) (sql []string, tables []cdc.Table) {
	sql = []string{"create publication walkey"}
	for i := range n {
		name := fmt.Sprintf("t_%d", i)
		tables = append(tables, cdc.Table{Schema: "public", Name: name})
		sql = append(sql, fmt.Sprintf("create table %s (id int primary key, a text, b text default 'x', c bool, d timestamptz default now(), e int); alter publication walkey add table %[1]s", name))
	}
	return sql, tables
}
