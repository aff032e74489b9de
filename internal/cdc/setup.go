package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// What has become of a step of Setup or Teardown.
const (
	StepPresent = "present" // nothing to do
	StepPlanned = "planned" // would be done; a dry run did not
	StepDone    = "done"
	StepLeft    = "left" // not possible here, and not needed: the note says who does it
)

// A Step is one thing that Setup or Teardown does.
type Step struct {
	What  string `json:"what"` // "publication walkey"
	State string `json:"state"`
	SQL   string `json:"sql,omitempty"`  // what does it; empty when it is present
	Note  string `json:"note,omitempty"` // more, for people
}

// SetupOptions say what to bring into being. The slot, the publication and the tables are those of Options.
type SetupOptions struct {
	DatabaseURL       string
	Slot, Publication string
	Tables            []Table
	// Role is the role that the invalidator will connect as, which gets what it needs; empty is the one of DatabaseURL.
	Role   string
	DryRun bool       // change nothing
	OnWait func(Wait) // told what Setup waits for
}

// Setup makes the publication and the slot, brings a publication that is not as the tables need it into that state, and
// lets the role replicate. What is there already stays as it is, so that it can be repeated. It gives the steps taken
// also with an error, which is a *SetupError for what a person must mend.
func Setup(ctx context.Context, o SetupOptions) ([]Step, error) {
	p, err := prepareOn(ctx, Options{
		DatabaseURL: o.DatabaseURL, Slot: o.Slot, Publication: o.Publication, Tables: o.Tables, OnWait: o.OnWait,
		Columns: func(Table) []string { return []string{} },
	})
	if err != nil {
		return nil, err
	}
	defer func() { hangUp(p.catalog.PgConn()) }()
	s := setup{preparation: p, role: o.Role, dry: o.DryRun}
	if !s.dry {
		if err := p.lock(ctx); err != nil {
			return nil, err
		}
	}
	for _, part := range []func(context.Context) error{s.publish, s.grant, s.slot} {
		if err := part(ctx); err != nil {
			return s.steps, err
		}
	}
	return s.steps, nil
}

// prepareOn connects and looks at the server.
func prepareOn(ctx context.Context, o Options) (*preparation, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	catalog, err := o.connectCatalog(ctx)
	if err != nil {
		return nil, err
	}
	p := &preparation{Options: o, catalog: catalog}
	if p.session, err = p.examine(ctx); err != nil {
		hangUp(catalog.PgConn())
		return nil, err
	}
	return p, nil
}

// setup is one Setup under way.
type setup struct {
	*preparation
	role  string
	dry   bool
	steps []Step
}

// do runs a statement, unless nothing is to be changed, and keeps the step.
func (s *setup) do(ctx context.Context, what, sql string) error {
	if s.dry {
		s.steps = append(s.steps, Step{What: what, State: StepPlanned, SQL: sql})
		return nil
	}
	if _, err := s.catalog.Exec(ctx, sql); err != nil {
		if hasCode(err, codeInsufficientPrivilege) {
			return &SetupError{Problem: fmt.Sprintf("%s: role %q may not do this", what, s.catalog.Config().User), SQL: sql, Cause: err}
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	s.steps = append(s.steps, Step{What: what, State: StepDone, SQL: sql})
	return nil
}

func (s *setup) present(what string) { s.steps = append(s.steps, Step{What: what, State: StepPresent}) }

// publish makes the publication, or adds what it lacks.
func (s *setup) publish(ctx context.Context) error {
	what := "publication " + s.Publication
	schemas, names := s.names()
	missing, err := s.tables(ctx, `
		SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		WHERE NOT EXISTS (
			SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = w.schema AND c.relname = w.name AND c.relkind IN ('r', 'p'))`, schemas, names)
	if err != nil {
		return fmt.Errorf("look for the tables: %w", err)
	}
	if len(missing) > 0 {
		return &SetupError{Problem: "the rules name tables that do not exist: " + join(missing) + "; migrate first, or mend the rules"}
	}
	// A published table without an identity would refuse the application's updates.
	if err := s.checkIdentities(ctx); err != nil {
		return err
	}
	statements, err := s.publicationPlan(ctx)
	if err != nil {
		return err
	}
	if len(statements) == 0 {
		s.present(what)
		return nil
	}
	for _, sql := range statements {
		if err := s.do(ctx, what, sql); err != nil {
			return err
		}
	}
	return nil
}

// publicationPlan gives the statements after which the publication sends every change of every table.
func (s *setup) publicationPlan(ctx context.Context) ([]string, error) {
	var viaRoot, everyKind bool
	err := s.catalog.QueryRow(ctx, `SELECT pubviaroot, pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = $1`,
		s.Publication).Scan(&viaRoot, &everyKind)
	if errors.Is(err, pgx.ErrNoRows) {
		return []string{createPublication(s.Publication, s.Tables)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at publication %s: %w", s.Publication, err)
	}
	var plan []string
	add := func(format string, args ...any) {
		plan = append(plan, "ALTER PUBLICATION "+quote(s.Publication)+" "+fmt.Sprintf(format, args...)+";")
	}
	if !everyKind {
		add("SET (publish = 'insert, update, delete, truncate')")
	}
	schemas, names := s.names()
	rows, err := s.catalog.Query(ctx, `
		SELECT w.schema, w.name, c.relkind = 'p',
			p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
				OR EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname AND t.schemaname = w.schema AND t.tablename = w.name),
			EXISTS (SELECT FROM pg_publication_tables t
				WHERE t.pubname = p.pubname AND t.schemaname = w.schema AND t.tablename = w.name AND to_jsonb(t)->>'rowfilter' IS NOT NULL)
		FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
		JOIN pg_publication p ON p.pubname = $3
		ORDER BY 1, 2`, schemas, names, s.Publication)
	if err != nil {
		return nil, fmt.Errorf("look at the tables of publication %s: %w", s.Publication, err)
	}
	var table Table
	var partitioned, member, filtered bool
	rooted := viaRoot
	_, err = pgx.ForEachRow(rows, []any{&table.Schema, &table.Name, &partitioned, &member, &filtered}, func() error {
		if partitioned && !rooted {
			add("SET (publish_via_partition_root = true)")
			rooted = true
		}
		if filtered {
			add("DROP TABLE %s", table.quoted())
		}
		if filtered || !member {
			add("ADD TABLE %s", table.quoted())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the tables of publication %s: %w", s.Publication, err)
	}
	return plan, nil
}

// createPublication publishes by the root, so that changes of partitions come under the name that was asked for.
func createPublication(name string, tables []Table) string {
	list := make([]string, len(tables))
	for i, t := range tables {
		list[i] = t.quoted()
	}
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true);", quote(name), strings.Join(list, ", "))
}

// grant gives the role what the invalidator needs: to log in to the database and to replicate.
func (s *setup) grant(ctx context.Context) error {
	if s.role == "" {
		return nil
	}
	what := "role " + s.role
	var replicates, connects bool
	err := s.catalog.QueryRow(ctx, `SELECT rolreplication OR rolsuper, has_database_privilege(rolname, current_database(), 'CONNECT') FROM pg_roles WHERE rolname = $1`,
		s.role).Scan(&replicates, &connects)
	if errors.Is(err, pgx.ErrNoRows) {
		return &SetupError{Problem: what + " does not exist", SQL: fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION;", quote(s.role))}
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", what, err)
	}
	if !replicates {
		if err := s.do(ctx, what, fmt.Sprintf("ALTER ROLE %s REPLICATION;", quote(s.role))); err != nil {
			return err
		}
	}
	if !connects {
		if err := s.do(ctx, what, fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s;", quote(s.session.Database), quote(s.role))); err != nil {
			return err
		}
	}
	if replicates && connects {
		s.present(what)
	}
	return nil
}

// slot makes the slot when there is none, or the one there is of no use any more.
func (s *setup) slot(ctx context.Context) error {
	what := "slot " + s.Slot
	found, err := s.inspect(ctx, s.catalog)
	if err != nil {
		return err
	}
	if found != nil {
		if err := s.ours(found); err != nil {
			return err
		}
		if !found.lost {
			s.present(what)
			return nil
		}
		if err := s.do(ctx, what, dropSlot(s.Slot)); err != nil {
			return err
		}
	}
	sql := strings.Replace(s.slotStatement(), "$1", literal(s.Slot), 1) + ";"
	if s.dry {
		return s.do(ctx, what, sql)
	}
	err = s.createSlot(ctx)
	switch {
	case err == nil:
		s.steps = append(s.steps, Step{What: what, State: StepDone, SQL: sql})
		return nil
	case hasCode(err, codeInsufficientPrivilege) && s.role != "":
		s.steps = append(s.steps, Step{What: what, State: StepLeft, SQL: sql, Note: "the invalidator makes it when it starts as " + s.role})
		return nil
	default:
		return s.slotError("make", err)
	}
}

// ours reports a slot that is not one of pgoutput in this database.
func (p *preparation) ours(s *slot) error {
	if s.plugin == "pgoutput" && s.database == p.session.Database {
		return nil
	}
	kind := fmt.Sprintf("one of plugin %q in database %q", s.plugin, s.database)
	if s.plugin == "" {
		kind = "a physical one"
	}
	return &SetupError{
		Problem: fmt.Sprintf("slot %s is %s, not one of pgoutput in %q; choose another name, or drop it", p.Slot, kind, p.session.Database),
		SQL:     dropSlot(p.Slot),
	}
}

func dropSlot(name string) string {
	return fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(name))
}
