package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// slot is a row of pg_replication_slots.
type slot struct {
	plugin, database string
	active           bool
	pid              int32 // of the walsender that holds it
	lost             bool  // its WAL is gone
	twoPhase         bool  // it tells transactions when they are prepared
	confirmed        LSN
}

// inspect looks at the slot; nil means that there is none.
func (o Options) inspect(ctx context.Context, conn *pgx.Conn) (*slot, error) {
	var s slot
	var confirmed string
	err := conn.QueryRow(ctx, `
		SELECT coalesce(plugin, ''), coalesce(database, ''), active, coalesce(active_pid, 0),
			coalesce(wal_status = 'lost', false), coalesce(two_phase, false), coalesce(confirmed_flush_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, o.Slot).
		Scan(&s.plugin, &s.database, &s.active, &s.pid, &s.lost, &s.twoPhase, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at slot %s: %w", o.Slot, err)
	}
	if s.confirmed, err = ParseLSN(confirmed); err != nil {
		return nil, fmt.Errorf("look at slot %s: %w", o.Slot, err)
	}
	return &s, nil
}

// ensureSlot gives the slot, making it when there is none or the one there is of no use.
func (p *preparation) ensureSlot(ctx context.Context) (*slot, error) {
	s, err := p.inspect(ctx, p.catalog)
	if err != nil {
		return nil, err
	}
	if s != nil {
		if s.plugin != "pgoutput" || s.database != p.session.Database {
			kind := fmt.Sprintf("a slot of plugin %q in database %q", s.plugin, s.database)
			if s.plugin == "" {
				kind = "a physical slot"
			}
			return nil, &SetupError{
				Problem: fmt.Sprintf("slot %s is %s, not one of pgoutput in %q; choose another name, or drop it", p.Slot, kind, p.session.Database),
				SQL:     fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(p.Slot)),
			}
		}
		if s.twoPhase {
			// It would deliver what may yet be rolled back, in messages of a later version of the protocol.
			return nil, &SetupError{
				Problem: fmt.Sprintf("slot %s is one for two-phase commits, which tells of transactions before they are committed; choose another name, or drop it", p.Slot),
				SQL:     fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(p.Slot)),
			}
		}
		if s.active {
			return s, nil
		}
		why := ""
		switch {
		case s.lost:
			why = "the server gave its WAL up"
		case s.confirmed < p.published:
			why = "it is older than the publication"
		case p.NewSlot && !p.session.SlotCreated:
			why = "the publication did not exist at its position"
		default:
			return s, nil
		}
		p.Logger.Warn("dropping the replication slot to make it anew", zap.String("slot", p.Slot), zap.String("why", why))
		if _, err := p.catalog.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, p.Slot); err != nil {
			if hasCode(err, codeObjectInUse) {
				return p.again(ctx) // somebody was quicker
			}
			if !hasCode(err, codeUndefinedObject) {
				return nil, p.slotError("drop", err)
			}
		}
		p.session.SlotReason = why
	}
	if err := p.createSlot(ctx); err != nil {
		if hasCode(err, codeDuplicateObject) {
			return p.again(ctx)
		}
		return nil, p.slotError("make", err)
	}
	p.session.SlotCreated = true
	p.session.SlotReason = cmp.Or(p.session.SlotReason, "there was none")
	p.Logger.Info("made the replication slot", zap.String("slot", p.Slot))
	return p.again(ctx)
}

// again looks at a slot that has just been seen.
func (p *preparation) again(ctx context.Context) (*slot, error) {
	s, err := p.inspect(ctx, p.catalog)
	if err == nil && s == nil {
		err = fmt.Errorf("slot %s: %w", p.Slot, ErrSlotMissing)
	}
	return s, err
}

func (p *preparation) slotError(doing string, err error) error {
	switch {
	case hasCode(err, codeInsufficientPrivilege):
		return replicationRight(p.catalog.Config().User, err)
	case hasCode(err, codeConfigurationLimit):
		return &SetupError{
			Problem: "all replication slots of the server are in use",
			SQL:     "ALTER SYSTEM SET max_replication_slots = 20; -- and restart the server; or drop a slot that nobody needs",
			Cause:   err,
		}
	default:
		return fmt.Errorf("%s slot %s: %w", doing, p.Slot, err)
	}
}

// createSlot makes the slot, which waits for every transaction that writes in any database, and tells for which.
func (p *preparation) createSlot(ctx context.Context) error {
	making, stop := context.WithCancel(ctx)
	made := make(chan error, 1)
	go func() {
		defer stop()
		_, err := p.catalog.Exec(ctx, p.slotStatement(), p.Slot)
		made <- err
	}()
	if sleep(making, slowSlot) == nil {
		p.tellBlockers(making)
	}
	return <-made
}

// slotStatement makes the slot. From version 17 on a standby that synchronises slots carries it through a promotion.
func (p *preparation) slotStatement() string {
	if p.session.ServerVersion >= 170000 {
		return `SELECT pg_create_logical_replication_slot($1, 'pgoutput', temporary => false, twophase => false, failover => true)`
	}
	return `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`
}

// tellBlockers tells which transactions the making of the slot waits for, until ctx ends. That it cannot look is no
// reason to give the slot up.
func (p *preparation) tellBlockers(ctx context.Context) {
	conn, err := p.connectCatalog(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.Logger.Warn("cannot see what the slot waits for", zap.Error(err))
		}
		return
	}
	defer func() { hangUp(conn.PgConn()) }()
	for {
		blockers, err := blockers(ctx, conn)
		if err != nil {
			if ctx.Err() == nil {
				p.Logger.Warn("cannot see what the slot waits for", zap.Error(err))
			}
			return
		}
		p.wait(Wait{Reason: WaitTransactions, Detail: strings.Join(blockers, "; ")})
		if sleep(ctx, slowSlot) != nil {
			return
		}
	}
}

// blockers describes the transactions of the cluster that have written, prepared ones included, oldest first.
func blockers(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `
		SELECT format('transaction %s of process %s (%s in database %s%s)%s', backend_xid, pid, usename, datname,
				', ' || state, ', open since ' || to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC')
		FROM (
			SELECT backend_xid, pid::text, usename, datname, state, xact_start FROM pg_stat_activity
			WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
			UNION ALL
			SELECT transaction, 'none', owner, database, 'prepared as ' || gid, prepared FROM pg_prepared_xacts
		) AS open
		ORDER BY xact_start NULLS LAST, backend_xid::text::bigint
		LIMIT 20`)
	if err != nil {
		return nil, fmt.Errorf("list open transactions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list open transactions: %w", err)
	}
	return list, nil
}
