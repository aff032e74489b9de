package api

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// lives tells one life of the database's server from the next: with each, what was seen in the one before may be gone.
type lives struct {
	mu      sync.Mutex
	changed func() // guarded by mu; may be nil
	known   bool   // guarded by mu
	last    string // guarded by mu
}

// connected looks where a new connection leads.
func (l *lives) connected(ctx context.Context, conn *pgx.Conn) error {
	var life string
	if err := conn.QueryRow(ctx, `SELECT extract(epoch FROM pg_postmaster_start_time())::text`, pgx.QueryExecModeSimpleProtocol).Scan(&life); err != nil {
		return fmt.Errorf("asking when the server started: %w", err)
	}
	l.mu.Lock()
	anew := l.known && l.last != life
	l.known, l.last = true, life
	changed := l.changed
	l.mu.Unlock()
	if anew && changed != nil {
		changed()
	}
	return nil
}
