package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// publication is a row of pg_publication with its tables.
type publication struct {
	allTables, insert, update, delete, truncate bool
	viaRoot                                     bool
}

// ensurePublication makes the publication when it is missing, and checks that it sends every change of every table.
func (p *preparation) ensurePublication(ctx context.Context) error {
	if err := p.awaitTables(ctx); err != nil {
		return err
	}
	if err := p.checkIdentities(ctx); err != nil {
		return err
	}
	var one publication
	rows, err := p.catalog.Query(ctx, `
		SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1`, p.Publication)
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", p.Publication, err)
	}
	found := false
	_, err = pgx.ForEachRow(rows, []any{&one.allTables, &one.insert, &one.update, &one.delete, &one.truncate, &one.viaRoot}, func() error {
		found = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", p.Publication, err)
	}
	if !found {
		return p.createPublication(ctx)
	}
	if !one.insert || !one.update || !one.delete || !one.truncate {
		return &SetupError{
			Problem: fmt.Sprintf("publication %s does not publish every kind of change", p.Publication),
			SQL:     fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate');", quote(p.Publication)),
		}
	}
	return p.checkPublished(ctx)
}

func (p *preparation) createPublication(ctx context.Context) error {
	tables := make([]string, len(p.Tables))
	for i, t := range p.Tables {
		tables[i] = t.quoted()
	}
	// By the root, so that changes of partitions come under the name that was asked for.
	sql := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true)",
		quote(p.Publication), strings.Join(tables, ", "))
	_, err := p.catalog.Exec(ctx, sql)
	if hasCode(err, codeInsufficientPrivilege) {
		return &SetupError{Problem: fmt.Sprintf("publication %s does not exist and may not be made here", p.Publication), SQL: sql + ";", Cause: err}
	}
	if err != nil {
		return fmt.Errorf("make publication %s: %w", p.Publication, err)
	}
	p.Logger.Info("made the publication", zap.String("publication", p.Publication), zap.Strings("tables", tables))
	var position string
	if err := p.catalog.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&position); err != nil {
		return fmt.Errorf("read the WAL position: %w", err)
	}
	if p.published, err = ParseLSN(position); err != nil {
		return fmt.Errorf("read the WAL position: %w", err)
	}
	return nil
}

// names gives the tables as two arrays for unnest.
func (p *preparation) names() (schemas, names []string) {
	for _, t := range p.Tables {
		schemas = append(schemas, t.Schema)
		names = append(names, t.Name)
	}
	return schemas, names
}

// awaitTables waits until all tables exist: the program that makes them may start at the same time.
func (p *preparation) awaitTables(ctx context.Context) error {
	schemas, names := p.names()
	for {
		missing, err := p.tables(ctx, `
			SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
			WHERE NOT EXISTS (
				SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE n.nspname = w.schema AND c.relname = w.name AND c.relkind IN ('r', 'p'))`, schemas, names)
		if err != nil {
			return fmt.Errorf("look for the tables: %w", err)
		}
		if len(missing) == 0 {
			return nil
		}
		p.wait(Wait{Reason: WaitTables, Detail: join(missing)})
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// checkIdentities looks for tables whose updates and deletes the server would refuse once they are published.
func (p *preparation) checkIdentities(ctx context.Context) error {
	schemas, names := p.names()
	bad, err := p.tables(ctx, `
		SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
		WHERE c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)`, schemas, names)
	if err != nil {
		return fmt.Errorf("look at the replica identities: %w", err)
	}
	if len(bad) == 0 {
		return nil
	}
	return &SetupError{
		Problem: "no replica identity, so that a published update or delete would fail: " + join(bad),
		SQL:     forEach(bad, "ALTER TABLE %s REPLICA IDENTITY FULL;"),
	}
}

// checkPublished looks for tables that the publication does not contain or does not contain whole.
func (p *preparation) checkPublished(ctx context.Context) error {
	schemas, names := p.names()
	missing, err := p.tables(ctx, `
		SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		WHERE NOT EXISTS (
			SELECT FROM pg_publication_tables p WHERE p.pubname = $3 AND p.schemaname = w.schema AND p.tablename = w.name)`,
		schemas, names, p.Publication)
	if err != nil {
		return fmt.Errorf("look at the tables of publication %s: %w", p.Publication, err)
	}
	if len(missing) > 0 {
		return p.notPublished(ctx, missing)
	}
	if p.session.ServerVersion < 150000 {
		return nil // no row filters yet
	}
	filtered, err := p.tables(ctx, `
		SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		JOIN pg_publication_tables p ON p.schemaname = w.schema AND p.tablename = w.name
		WHERE p.pubname = $3 AND p.rowfilter IS NOT NULL`, schemas, names, p.Publication)
	if err != nil {
		return fmt.Errorf("look at the row filters of publication %s: %w", p.Publication, err)
	}
	if len(filtered) > 0 {
		publication := quote(p.Publication)
		return &SetupError{
			Problem: fmt.Sprintf("publication %s keeps back some rows of %s", p.Publication, join(filtered)),
			SQL: forEach(filtered, "ALTER PUBLICATION "+escape(publication)+" DROP TABLE %s;") + " " +
				forEach(filtered, "ALTER PUBLICATION "+escape(publication)+" ADD TABLE %s;"),
		}
	}
	return nil
}

// notPublished tells why tables are not in the publication.
func (p *preparation) notPublished(ctx context.Context, missing []Table) error {
	// A partitioned table can be a member and still not be found: its partitions are published under their own names.
	var schemas, names []string
	for _, t := range missing {
		schemas = append(schemas, t.Schema)
		names = append(names, t.Name)
	}
	byPartition, err := p.tables(ctx, `
		SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'p'
		JOIN pg_publication p ON p.pubname = $3 AND NOT p.pubviaroot
		WHERE p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)`,
		schemas, names, p.Publication)
	if err != nil {
		return fmt.Errorf("look at the partitioned tables of publication %s: %w", p.Publication, err)
	}
	if len(byPartition) > 0 {
		return &SetupError{
			Problem: fmt.Sprintf("publication %s publishes the partitions of %s under their own names", p.Publication, join(byPartition)),
			SQL:     fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true);", quote(p.Publication)),
		}
	}
	return &SetupError{
		Problem: fmt.Sprintf("publication %s does not contain %s", p.Publication, join(missing)),
		SQL:     forEach(missing, "ALTER PUBLICATION "+escape(quote(p.Publication))+" ADD TABLE %s;"),
	}
}

func (p *preparation) tables(ctx context.Context, sql string, args ...any) ([]Table, error) {
	rows, err := p.catalog.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Table])
}

func join(tables []Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.String()
	}
	return strings.Join(names, ", ")
}

// forEach puts each table's quoted name into the statement.
func forEach(tables []Table, statement string) string {
	statements := make([]string, len(tables))
	for i, t := range tables {
		statements[i] = fmt.Sprintf(statement, t.quoted())
	}
	return strings.Join(statements, " ")
}

// escape keeps a name from being read as a format.
func escape(name string) string { return strings.ReplaceAll(name, "%", "%%") }
