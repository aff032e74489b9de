package invalidate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
)

// Severity says how bad a Finding is.
type Severity string

// The severities.
const (
	// Warning: every change still deletes its keys, though with more deletes than would be needed.
	Warning Severity = "warning"
	// Failure: changes do not reach the stream, or the database refuses them, or a rule names what is not there.
	Failure Severity = "failure"
)

// Finding is something between rules, tables and publication that a person should mend.
type Finding struct {
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // a table or the publication, as SQL names it
	Problem  string   `json:"problem"`
	SQL      string   `json:"sql,omitempty"` // mends it; empty when SQL is not what it takes
}

// Check holds the rules against the catalog: whether the publication sends every change of every table, whether the
// columns exist, and whether Postgres will send the old values that the keys are made of. No finding means that all is
// well. It reads only what every role may.
func Check(ctx context.Context, conn *pgx.Conn, rules *Rules, publication string) ([]Finding, error) {
	p, err := lookAtPublication(ctx, conn, publication)
	if err != nil {
		return nil, err
	}
	findings := p.check()
	for _, table := range rules.Tables() {
		t, err := lookAtTable(ctx, conn, table, publication)
		if err != nil {
			return nil, err
		}
		findings = append(findings, t.check(rules.Columns(table), p)...)
	}
	return findings, nil
}

// publicationEntry is a publication in the catalog.
type publicationEntry struct {
	name           string
	exists         bool
	everyKind      bool // insert, update, delete and truncate
	viaRoot        bool
	generatedToo   bool // stored generated columns are sent
	everyGenerated bool // the server can send them at all
}

func lookAtPublication(ctx context.Context, conn *pgx.Conn, name string) (publicationEntry, error) {
	p := publicationEntry{name: name}
	err := conn.QueryRow(ctx, `
		SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot,
			coalesce(to_jsonb(p)->>'pubgencols', 'n') NOT IN ('n', 'false'), to_jsonb(p) ? 'pubgencols'
		FROM pg_publication p WHERE pubname = $1`, name).Scan(&p.everyKind, &p.viaRoot, &p.generatedToo, &p.everyGenerated)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("look at publication %s: %w", name, err)
	}
	p.exists = true
	return p, nil
}

func (p publicationEntry) alter(format string, args ...any) string {
	return "ALTER PUBLICATION " + pgx.Identifier{p.name}.Sanitize() + " " + fmt.Sprintf(format, args...) + ";"
}

func (p publicationEntry) check() []Finding {
	if p.exists && !p.everyKind {
		return []Finding{{
			Severity: Failure, Subject: pgx.Identifier{p.name}.Sanitize(), Problem: "the publication does not send every kind of change",
			SQL: p.alter("SET (publish = 'insert, update, delete, truncate')"),
		}}
	}
	return nil
}

// tableEntry is a table in the catalog, as far as the rules care.
type tableEntry struct {
	table       cdc.Table
	exists      bool
	partitioned bool
	identity    string   // d, f, i or n
	columns     []string // all
	generated   []string
	keyed       []string // columns of the replica identity; not filled for f
	published   bool
	filtered    bool     // by a WHERE of the publication
	sent        []string // the publication's column list; empty: every column
}

func lookAtTable(ctx context.Context, conn *pgx.Conn, table cdc.Table, publication string) (tableEntry, error) {
	t := tableEntry{table: table}
	err := conn.QueryRow(ctx, `
		SELECT c.relkind = 'p', c.relreplident::text,
			array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
			array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated <> ''),
			array(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
				WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
			p.tablename IS NOT NULL, to_jsonb(p)->>'rowfilter' IS NOT NULL,
			coalesce((SELECT array_agg(value) FROM jsonb_array_elements_text(
				CASE jsonb_typeof(to_jsonb(p)->'attnames') WHEN 'array' THEN to_jsonb(p)->'attnames' ELSE '[]' END)), '{}')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_publication_tables p ON p.pubname = $3 AND p.schemaname = n.nspname AND p.tablename = c.relname
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`, table.Schema, table.Name, publication).
		Scan(&t.partitioned, &t.identity, &t.columns, &t.generated, &t.keyed, &t.published, &t.filtered, &t.sent)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("look at table %s: %w", table, err)
	}
	t.exists = true
	return t, nil
}

// check compares the table with the columns that its rule reads.
func (t tableEntry) check(wanted []string, p publicationEntry) []Finding {
	name := pgx.Identifier{t.table.Schema, t.table.Name}.Sanitize()
	var found []Finding
	fatal := func(sql, format string, args ...any) {
		found = append(found, Finding{Severity: Failure, Subject: name, Problem: fmt.Sprintf(format, args...), SQL: sql})
	}
	if !t.exists {
		fatal("", "the rules name it, but it does not exist")
		return found
	}
	if missing := without(wanted, t.columns); len(missing) > 0 {
		fatal("", "the rules name columns that it does not have: %s", strings.Join(missing, ", "))
	}
	wanted = without(wanted, without(wanted, t.columns)) // of those that there are
	full := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", name)
	switch {
	case t.identity == "n":
		fatal(full, "its replica identity is NOTHING, so that the server refuses a published update or delete")
	case t.identity != "f" && len(t.keyed) == 0:
		fatal(full, "it has no replica identity, so that the server refuses a published update or delete")
	case t.identity != "f":
		if outside := without(wanted, t.keyed); len(outside) > 0 {
			found = append(found, Finding{Severity: Warning, Subject: name, SQL: full, Problem: "its replica identity does not hold the old value of " +
				strings.Join(outside, ", ") + ": a change deletes every key of the patterns that need it"})
		}
	}
	if p.exists {
		found = append(found, t.checkPublished(wanted, p, name)...)
	}
	return found
}

// checkPublished compares the table with the publication.
func (t tableEntry) checkPublished(wanted []string, p publicationEntry, name string) (found []Finding) {
	fatal := func(sql, format string, args ...any) {
		found = append(found, Finding{Severity: Failure, Subject: name, Problem: fmt.Sprintf(format, args...), SQL: sql})
	}
	anew := p.alter("DROP TABLE %s", name) + " " + p.alter("ADD TABLE %s", name)
	switch {
	case !t.published && t.partitioned && !p.viaRoot:
		fatal(p.alter("SET (publish_via_partition_root = true)"), "publication %s does not publish it by its own name, as it is partitioned", p.name)
		return found
	case !t.published:
		fatal(p.alter("ADD TABLE %s", name), "publication %s does not contain it", p.name)
		return found
	case t.filtered:
		fatal(anew, "publication %s keeps back some of its rows", p.name)
	}
	generated := without(wanted, without(wanted, t.generated))
	if !p.generatedToo && len(generated) > 0 {
		f := Finding{Severity: Warning, Subject: name, Problem: "generated columns are not sent: " + strings.Join(generated, ", ") + ": a change deletes every key of the patterns that need them"}
		if p.everyGenerated {
			f.SQL = p.alter("SET (publish_generated_columns = stored)")
		}
		found = append(found, f)
	}
	if len(t.sent) > 0 {
		if kept := without(without(wanted, t.sent), generated); len(kept) > 0 {
			fatal(anew, "publication %s keeps back columns that the rules name: %s", p.name, strings.Join(kept, ", "))
		}
	}
	return found
}

// without gives the names that others do not hold.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(others, n) })
}
