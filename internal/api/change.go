package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	changeTimeout   = 10 * time.Second
	positionTimeout = 2 * time.Second
)

var (
	// errNotAllowed says that who wants to change something is no active editor any more.
	errNotAllowed = errors.New("the editor may not change anything")
	errNoRow      = errors.New("there is no such material")
	// errOutcomeUnknown says that the connection was lost while the change was being committed.
	errOutcomeUnknown = errors.New("it is not known whether the change was made")
)

// change runs do in a transaction of the visitor's, if they still are an editor with the password that they logged in by,
// and gives a position in the WAL behind its commit. It goes on when the client leaves, so that it ends one way or the
// other. position is unknownPosition when the change was made and its position can't be learned.
func (s *Store) change(ctx context.Context, v visitor, do func(ctx context.Context, tx pgx.Tx) error) (position uint64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	ctx, span := startSpan(ctx, "change")
	defer func() { _ = failed(span, err); span.End() }()
	var conn *pgxpool.Conn
	// Until the commit nothing has happened, so a connection that turns out to be dead is replaced.
	err = s.read(ctx, func(ctx context.Context) error {
		if conn != nil {
			conn.Release()
		}
		var err error
		if conn, err = s.pool.Acquire(ctx); err != nil {
			conn = nil
			return err
		}
		return conn.Ping(ctx)
	})
	if conn != nil {
		defer func() { conn.Release() }()
	}
	if err != nil {
		return 0, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // without effect after the commit
	if err := allowed(ctx, tx, v.profile); err != nil {
		return 0, err
	}
	if err := do(ctx, tx); err != nil {
		return 0, err
	}
	leaveTrace(ctx, tx)
	if err := tx.Commit(ctx); err != nil {
		if _, refused := errors.AsType[*pgconn.PgError](err); refused && !connectionLost(err) {
			return 0, err
		}
		return 0, fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	return s.positionNow(ctx, conn), nil
}

// positionNow reads the end of the WAL: every commit that has returned is before it.
func (s *Store) positionNow(ctx context.Context, conn *pgxpool.Conn) uint64 {
	const sql = `SELECT pg_current_wal_insert_lsn()::text`
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), positionTimeout)
	defer cancel()
	var text string
	if err := conn.QueryRow(ctx, sql).Scan(&text); err != nil {
		if err := s.pool.QueryRow(ctx, sql).Scan(&text); err != nil {
			return unknownPosition
		}
	}
	position, ok := parsePosition(text)
	if !ok {
		return unknownPosition
	}
	return position
}

func allowed(ctx context.Context, tx pgx.Tx, p profile) error {
	var hash string
	err := tx.QueryRow(ctx, `SELECT password FROM public.editors WHERE id = $1 AND is_active`, p.ID).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && stampOf(hash) != p.Stamp {
		return errNotAllowed
	}
	return err
}

const rowColumns = materialColumns + `, is_active`

func scanMaterial(r pgx.Row) (m fullMaterial, err error) {
	err = r.Scan(&m.ID, &m.Title, &m.Description, &m.MaterialType, &m.IconName, &m.File, &m.Active)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoRow
	}
	return m, err
}

// Rows that were put in with ids of their own leave the sequence of ids behind them.
const catchUp = `SELECT setval(s, greatest((SELECT max(id) FROM public.materials), pg_sequence_last_value(s)))
	FROM (SELECT pg_get_serial_sequence('public.materials', 'id')::regclass AS s) AS sequence`

// add stores a new material.
func (s *Store) add(ctx context.Context, v visitor, m fullMaterial) (added fullMaterial, position uint64, err error) {
	added, position, err = s.addOnce(ctx, v, m)
	if server, refused := errors.AsType[*pgconn.PgError](err); refused && server.Code == uniqueViolation {
		if _, err := s.pool.Exec(ctx, catchUp); err != nil {
			return fullMaterial{}, 0, fmt.Errorf("finding an id for a material: %w", err)
		}
		return s.addOnce(ctx, v, m)
	}
	return added, position, err
}

func (s *Store) addOnce(ctx context.Context, v visitor, m fullMaterial) (added fullMaterial, position uint64, err error) {
	position, err = s.change(ctx, v, func(ctx context.Context, tx pgx.Tx) (err error) {
		added, err = scanMaterial(tx.QueryRow(ctx, `INSERT INTO public.materials (title, description, material_type, icon_name, file, is_active)
			VALUES ($1, $2, $3, $4, $5, $6) RETURNING `+rowColumns, m.Title, m.Description, m.MaterialType, m.IconName, m.File, m.Active))
		return err
	})
	if err != nil {
		return fullMaterial{}, 0, fmt.Errorf("adding a material: %w", err)
	}
	return added, position, nil
}

// edit changes a material, active or not, to what next makes of it. An error of next leaves it as it is.
func (s *Store) edit(ctx context.Context, v visitor, id int64, next func(fullMaterial) (fullMaterial, error)) (edited fullMaterial, position uint64, err error) {
	position, err = s.change(ctx, v, func(ctx context.Context, tx pgx.Tx) error {
		m, err := lockMaterial(ctx, tx, id)
		if err != nil {
			return err
		}
		if m, err = next(m); err != nil {
			return err
		}
		edited, err = scanMaterial(tx.QueryRow(ctx, `UPDATE public.materials SET title = $2, description = $3, material_type = $4, icon_name = $5,
			file = $6, is_active = $7, updated_at = now() WHERE id = $1 RETURNING `+rowColumns,
			id, m.Title, m.Description, m.MaterialType, m.IconName, m.File, m.Active))
		return err
	})
	if err != nil {
		return fullMaterial{}, 0, fmt.Errorf("editing material %d: %w", id, err)
	}
	return edited, position, nil
}

// remove deletes a material that check has nothing against.
func (s *Store) remove(ctx context.Context, v visitor, id int64, check func(fullMaterial) error) (position uint64, err error) {
	position, err = s.change(ctx, v, func(ctx context.Context, tx pgx.Tx) error {
		m, err := lockMaterial(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := check(m); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM public.materials WHERE id = $1`, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("deleting material %d: %w", id, err)
	}
	return position, nil
}

func lockMaterial(ctx context.Context, tx pgx.Tx, id int64) (fullMaterial, error) {
	return scanMaterial(tx.QueryRow(ctx, `SELECT `+rowColumns+` FROM public.materials WHERE id = $1 FOR UPDATE`, id))
}
