package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// ensurePublication makes the publication when it is missing. What one that exists sends and what it does not is for the
// caller to judge: it may know another way to learn of the rest.
func (p *preparation) ensurePublication(ctx context.Context) error {
	if err := p.awaitTables(ctx); err != nil {
		return err
	}
	var found bool
	err := p.catalog.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`, p.Publication).Scan(&found)
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", p.Publication, err)
	}
	if found {
		return nil
	}
	if err := p.checkIdentities(ctx); err != nil {
		return err
	}
	return p.createPublication(ctx)
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

// checkIdentities looks for tables, partitions included, whose updates and deletes the server would refuse once they are
// published.
func (p *preparation) checkIdentities(ctx context.Context) error {
	schemas, names := p.names()
	bad, err := p.tables(ctx, `
		WITH RECURSIVE tree(oid) AS (
			SELECT c.oid FROM unnest($1::text[], $2::text[]) AS w(schema, name)
			JOIN pg_namespace n ON n.nspname = w.schema
			JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
			UNION
			SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
		)
		SELECT n.nspname, c.relname FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
		ORDER BY n.nspname, c.relname`, schemas, names)
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
