package invalidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/pace"
)

const (
	// lookEvery is the time between two looks at the servers.
	lookEvery = 5 * time.Second
	// rateOver is how far back a look goes for the rate at which the slot nears its limit. The slot lets go of WAL in
	// steps, so two looks say little.
	rateOver = time.Minute
)

// lookout asks both servers, every few seconds, for what only they can tell: how much WAL the slot keeps, how full Valkey
// is. It has a connection of its own, so that no delete waits for it, and goes on while the sessions break, which is when
// WAL piles up. What it finds is for /metrics alone; that a server is away the log is told by the sessions.
type lookout struct {
	opts    *Options
	servers *servers
	conn    *pgx.Conn // nil when there is none
	seen    []safeAt  // of the last rateOver, oldest first
}

// safeAt is what was left of the slot's limit at a moment.
type safeAt struct {
	at   time.Time
	safe int64 // bytes
}

// run looks until ctx ends.
func (l *lookout) run(ctx context.Context) {
	defer l.drop(ctx)
	ticker := pace.Every(lookEvery)
	defer ticker.Stop()
	defer context.AfterFunc(ctx, ticker.Stop)()
	for {
		l.look(ctx)
		if !ticker.Wait() {
			return
		}
	}
}

// look asks both once.
func (l *lookout) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	slot, postgresErr := l.askPostgres(ctx)
	nodes, valkeyErr := l.opts.Eraser.Vitals(ctx)
	s := l.servers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postgres = postgresErr == nil; s.postgres {
		s.slot, s.left = slot, l.left(slot, time.Now())
	}
	if s.valkey = valkeyErr == nil; s.valkey {
		s.nodes = nodes
	}
}

// left is how long what is left of the limit lasts at the rate of the last rateOver.
func (l *lookout) left(slot *slotState, now time.Time) time.Duration {
	switch {
	case slot == nil || slot.Safe == nil && !slot.Lost:
		l.seen = nil
		return forever
	case slot.Lost || *slot.Safe <= 0:
		l.seen = nil
		return 0
	}
	for len(l.seen) > 1 && now.Sub(l.seen[0].at) > rateOver {
		l.seen = l.seen[1:]
	}
	l.seen = append(l.seen, safeAt{now, *slot.Safe})
	first := l.seen[0]
	gone, took := first.safe-*slot.Safe, now.Sub(first.at)
	if gone <= 0 || took <= 0 {
		return forever
	}
	seconds := float64(*slot.Safe) / (float64(gone) / took.Seconds())
	if seconds >= forever.Seconds() {
		return forever
	}
	return time.Duration(seconds * float64(time.Second))
}

// askPostgres asks for the slot; nil when there is none.
func (l *lookout) askPostgres(ctx context.Context) (slot *slotState, err error) {
	if l.conn == nil {
		config, err := pgx.ParseConfig(l.opts.DatabaseURL)
		if err != nil {
			return nil, fmt.Errorf("read DATABASE_URL: %w", err)
		}
		config.ConnectTimeout = queryTimeout
		config.RuntimeParams["application_name"] = "walkey invalidator lookout"
		config.RuntimeParams["idle_session_timeout"] = "0"
		config.RuntimeParams["jit"] = "off"
		if l.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			return nil, fmt.Errorf("connect to the primary: %w", err)
		}
	}
	slot = &slotState{}
	// The limit is in MiB. Spills are counted from Postgres 14 on, which is the oldest that works.
	err = l.conn.QueryRow(ctx, `
		SELECT coalesce(pg_wal_lsn_diff(here, s.restart_lsn), 0)::int8, coalesce(pg_wal_lsn_diff(here, s.confirmed_flush_lsn), 0)::int8,
			(SELECT CASE WHEN setting::int8 < 0 THEN -1 ELSE setting::int8 * 1048576 END FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
			s.safe_wal_size, s.active, coalesce(s.wal_status = 'lost', false), coalesce(t.spill_txns, 0), coalesce(t.spill_bytes, 0)
		FROM pg_replication_slots s
		LEFT JOIN LATERAL pg_stat_get_replication_slot(s.slot_name) t ON true,
			(SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here) AS w
		WHERE s.slot_name = $1`, l.opts.Slot).
		Scan(&slot.Retained, &slot.Behind, &slot.Limit, &slot.Safe, &slot.Held, &slot.Lost, &slot.SpilledTxns, &slot.SpilledBytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		l.drop(ctx)
		return nil, fmt.Errorf("ask for the slot: %w", err)
	}
	return slot, nil
}

// drop ends the connection.
func (l *lookout) drop(ctx context.Context) {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx) // nothing depends on the farewell
	l.conn = nil
}
