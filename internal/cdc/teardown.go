package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrDeclined: whoever was asked did not want what Teardown would have done.
var ErrDeclined = errors.New("nothing was dropped")

// TeardownOptions say what to drop.
type TeardownOptions struct {
	DatabaseURL       string
	Slot, Publication string
	DryRun            bool // change nothing
	// Confirm is shown the steps before the first is done, and lets them be done or not. It is not called when there is
	// nothing to do.
	Confirm func([]Step) (bool, error)
}

// Teardown drops the slot, which lets go of the WAL that it keeps, and the publication. It does nothing while the slot
// is held, or when it is not one that Setup would have made.
func Teardown(ctx context.Context, o TeardownOptions) ([]Step, error) {
	p, err := prepareOn(ctx, Options{
		DatabaseURL: o.DatabaseURL, Slot: o.Slot, Publication: o.Publication,
		Tables: []Table{{}}, Columns: func(Table) []string { return nil }, // it follows none
	})
	if err != nil {
		return nil, err
	}
	defer func() { hangUp(p.catalog.PgConn()) }()
	steps, err := p.teardownPlan(ctx)
	if err != nil || o.DryRun {
		return steps, err
	}
	if planned(steps) == 0 {
		return steps, nil
	}
	agreed, err := o.Confirm(steps)
	if err != nil {
		return nil, err
	}
	if !agreed {
		return nil, ErrDeclined
	}
	for i := range steps {
		if steps[i].State != StepPlanned {
			continue
		}
		if _, err := p.catalog.Exec(ctx, steps[i].SQL); err != nil {
			switch {
			case hasCode(err, codeObjectInUse):
				return steps, p.held(ctx, err)
			case hasCode(err, codeInsufficientPrivilege):
				return steps, &SetupError{Problem: fmt.Sprintf("%s: role %q may not drop it", steps[i].What, p.catalog.Config().User), SQL: steps[i].SQL, Cause: err}
			}
			return steps, fmt.Errorf("drop %s: %w", steps[i].What, err)
		}
		steps[i].State = StepDone
	}
	return steps, nil
}

func planned(steps []Step) (n int) {
	for _, s := range steps {
		if s.State == StepPlanned {
			n++
		}
	}
	return n
}

// teardownPlan says what there is to drop. The slot comes first: without the publication a stream would break.
func (p *preparation) teardownPlan(ctx context.Context) ([]Step, error) {
	steps := []Step{
		{What: "slot " + p.Slot, State: StepPresent, Note: "does not exist"},
		{What: "publication " + p.Publication, State: StepPresent, Note: "does not exist"},
	}
	s, err := p.inspect(ctx, p.catalog)
	if err != nil {
		return nil, err
	}
	if s != nil {
		if err := p.ours(s); err != nil {
			return nil, err
		}
		if s.active {
			return nil, p.held(ctx, nil)
		}
		var retained string
		err := p.catalog.QueryRow(ctx, `
			SELECT coalesce(pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 'no WAL') FROM pg_replication_slots WHERE slot_name = $1`,
			p.Slot).Scan(&retained)
		if err != nil {
			return nil, fmt.Errorf("look at slot %s: %w", p.Slot, err)
		}
		steps[0] = Step{What: "slot " + p.Slot, State: StepPlanned, SQL: dropSlot(p.Slot), Note: "keeps " + retained + "; changes since its position are lost to the cache"}
	}
	var tables []string
	err = p.catalog.QueryRow(ctx, `
		SELECT array(SELECT format('%s.%s', t.schemaname, t.tablename) FROM pg_publication_tables t WHERE t.pubname = p.pubname ORDER BY 1)
		FROM pg_publication p WHERE p.pubname = $1`, p.Publication).Scan(&tables)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("look at publication %s: %w", p.Publication, err)
	}
	if err == nil {
		steps[1] = Step{What: "publication " + p.Publication, State: StepPlanned, SQL: "DROP PUBLICATION " + quote(p.Publication) + ";", Note: "of " + strings.Join(tables, ", ")}
	}
	return steps, nil
}

// held says who holds the slot.
func (p *preparation) held(ctx context.Context, cause error) error {
	var who string
	err := p.catalog.QueryRow(ctx, `
		SELECT format('process %s of the server, for %s (%s)', s.active_pid, coalesce(nullif(a.usename, ''), 'an unknown role'),
			coalesce(nullif(a.application_name, ''), 'no application name'))
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1`, p.Slot).Scan(&who)
	if err != nil {
		who = "another connection"
	}
	return &SetupError{Problem: fmt.Sprintf("slot %s is held by %s; stop the invalidator first", p.Slot, who), Cause: cause}
}
