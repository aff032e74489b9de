package cdc

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// pollEvery is how often a standby looks whether the slot is free, and Open whether what it waits for is there.
	pollEvery = 200 * time.Millisecond
	// slowSlot is how long the making of a slot may take before somebody asks what it waits for.
	slowSlot = 500 * time.Millisecond
)

// Open makes the publication and the slot when they are missing and the role may, waits while another connection holds
// the slot, takes it and begins to stream. It waits for as long as ctx lives for what passes by itself (see Wait), and
// gives a *SetupError for what a person must mend. Other errors, such as a server that cannot be reached, may be gone
// at the next try.
func Open(ctx context.Context, o Options) (*Stream, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	catalog, err := o.connectCatalog(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { hangUp(catalog.PgConn()) }()
	p := preparation{Options: o, catalog: catalog}
	if p.session, err = p.examine(ctx); err != nil {
		return nil, err
	}
	if pooled, err := ThroughPooler(ctx, catalog); err != nil {
		return nil, err
	} else if pooled {
		o.Logger.Warn("something between here and the server makes up process ids, as a pooler does: let DATABASE_URL name the server itself")
	}
	for {
		if err := p.prepare(ctx); err != nil {
			return nil, err
		}
		s, err := o.start(ctx, catalog, p.session)
		if err == nil {
			return s, nil
		}
		// Between the look and the start somebody else took the slot or dropped it: look again, which waits for the holder.
		if !errors.Is(err, ErrSlotHeld) && !errors.Is(err, ErrSlotMissing) {
			return nil, err
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}

// preparation is what Open has found out and done so far.
type preparation struct {
	Options
	catalog *pgx.Conn
	session Session
	told    Wait
	// published is a WAL position at which the publication existed, when this Open made it: an older slot is of no use.
	published LSN
}

// wait tells what is waited for, when that is news.
func (p *preparation) wait(w Wait) {
	if w != p.told {
		p.told = w
		p.OnWait(w)
	}
}

// examine looks at the server.
func (p *preparation) examine(ctx context.Context) (Session, error) {
	var s Session
	var standby bool
	var level string
	err := p.catalog.QueryRow(ctx, `
		SELECT pg_is_in_recovery(), current_setting('wal_level'), current_setting('server_version_num')::int,
			current_database(), current_setting('wal_block_size')::bigint,
			(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')`).
		Scan(&standby, &level, &s.ServerVersion, &s.Database, &s.BlockSize, &s.SegmentSize)
	switch {
	case err != nil:
		return s, fmt.Errorf("examine the server: %w", err)
	case s.ServerVersion < 140000:
		return s, &SetupError{Problem: fmt.Sprintf("the server's version is %d, but 14 is the oldest that works", s.ServerVersion/10000)}
	case standby:
		return s, ErrNotPrimary
	case level != "logical":
		return s, &SetupError{
			Problem: fmt.Sprintf("wal_level is %s, not logical", level),
			SQL:     "ALTER SYSTEM SET wal_level = 'logical'; -- and restart the server",
		}
	}
	return s, nil
}

// prepare returns when publication and slot exist and the slot is free.
func (p *preparation) prepare(ctx context.Context) error {
	for {
		if err := p.lock(ctx); err != nil {
			return err
		}
		slot, err := p.make(ctx)
		if err != nil {
			return err // Open ends, and the lock goes with its connection
		}
		if err := p.unlock(ctx); err != nil {
			return err
		}
		if !slot.active {
			return nil
		}
		if err := p.standBy(ctx, slot); err != nil {
			return err
		}
	}
}

// make brings publication and slot into being. The lock is held, so no other Walkey does the same.
func (p *preparation) make(ctx context.Context) (*slot, error) {
	if err := p.ensurePublication(ctx); err != nil {
		return nil, err
	}
	return p.ensureSlot(ctx)
}

// standBy waits until the slot is free or gone. It looks instead of trying, since each try that fails leaves an error
// in the server's log.
func (p *preparation) standBy(ctx context.Context, held *slot) error {
	for held != nil && held.active {
		p.wait(Wait{Reason: WaitSlotHeld, Detail: fmt.Sprintf("slot %s, process %d of the server", p.Slot, held.pid)})
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
		// A server that went silent is not a slot that is held.
		look, cancel := context.WithTimeout(ctx, p.SenderTimeout)
		next, err := p.inspect(look, p.catalog)
		cancel()
		if err != nil {
			return err
		}
		held = next
	}
	return nil
}

// lockKey is the advisory lock under which publication and slot are made.
func (p *preparation) lockKey() int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("walkey slot " + p.Slot)) // a hash takes everything
	return int64(h.Sum64())
}

func (p *preparation) lock(ctx context.Context) error {
	for {
		var got bool
		if err := p.catalog.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, p.lockKey()).Scan(&got); err != nil {
			return fmt.Errorf("take the lock for the slot's setup: %w", err)
		}
		if got {
			return nil
		}
		p.wait(Wait{Reason: WaitSetup, Detail: "slot " + p.Slot})
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}

func (p *preparation) unlock(ctx context.Context) error {
	if _, err := p.catalog.Exec(ctx, `SELECT pg_advisory_unlock($1)`, p.lockKey()); err != nil {
		return fmt.Errorf("give the lock for the slot's setup back: %w", err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// quote makes an SQL identifier of a name.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal makes an SQL string of a text.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func (t Table) quoted() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }
