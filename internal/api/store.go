package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Material is one material as the API shows it.
type Material struct {
	ID           int64  `json:"id"`
	Title        string `json:"title"`
	Description  string `json:"description"`
	MaterialType string `json:"material_type"`
	IconName     string `json:"icon_name"`
	File         string `json:"file"`
}

// materialList is a list of materials as the API shows it.
type materialList struct {
	Materials []Material `json:"materials" nullable:"false" doc:"Active materials by id."`
}

const materialColumns = `id, title, description, material_type, icon_name, file`

// connectTimeout bounds one attempt to connect where the URL does not.
const connectTimeout = 3 * time.Second

// Store reads and changes the tables. It connects when it is first used, and anew after an outage.
type Store struct {
	pool  *pgxpool.Pool
	lives lives
}

// OpenStore prepares a pool of connections without connecting. The URL's pool_* parameters set its bounds. Of several
// hosts in the URL it uses the primary; a standby counts as unreachable.
func OpenStore(ctx context.Context, databaseURL string) (*Store, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL: %w", err)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "walkey-api"
	}
	// A standby may be behind: what is loaded there and stored would be older than the delete that went before.
	config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	s := &Store{}
	config.AfterConnect = s.lives.connected
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("preparing the connections to the database: %w", err)
	}
	return s, nil
}

// OnNewLife sets what is called when a connection turns out to lead to another server than the one before, or to the same
// after a restart: before anything is asked on it. Set it before the store is used.
func (s *Store) OnNewLife(call func()) { s.lives.changed = call }

// Close ends all connections, once those in use are given back.
func (s *Store) Close() { s.pool.Close() }

// Ping asks the server for a sign of life.
func (s *Store) Ping(ctx context.Context) error { return s.read(ctx, s.pool.Ping) }

// read runs something that may be run twice: again, on a new connection, when the pool's were lost. They were if one of
// them was, as after a restart of the server, so that none of them is worth another attempt.
func (s *Store) read(ctx context.Context, once func(context.Context) error) error {
	err := once(ctx)
	if err == nil || ctx.Err() != nil || !connectionLost(err) {
		return err
	}
	s.pool.Reset()
	return once(ctx)
}

// list loads the active materials that a query asks for, by id. More follow when more is true.
func (s *Store) list(ctx context.Context, q listQuery) (materials []Material, more bool, err error) {
	sql, args := q.sql()
	err = s.read(ctx, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		materials, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Material])
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("loading the list of materials: %w", err)
	}
	if q.limit > 0 && len(materials) > q.limit {
		return materials[:q.limit], true, nil
	}
	return materials, false, nil
}

func (q listQuery) sql() (sql string, args []any) {
	sql = `SELECT ` + materialColumns + ` FROM public.materials WHERE is_active`
	add := func(clause string, arg any) {
		args = append(args, arg)
		sql += fmt.Sprintf(clause, len(args))
	}
	if q.materialType != "" {
		add(` AND material_type = $%d`, q.materialType)
	}
	if q.hasAfter {
		add(` AND id > $%d`, q.after)
	}
	sql += ` ORDER BY id`
	if q.limit > 0 {
		add(` LIMIT $%d`, q.limit+1) // one more than asked for tells whether more follow
	}
	return sql, args
}

// material loads one active material. found is false when there is none.
func (s *Store) material(ctx context.Context, id int64) (m Material, found bool, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT `+materialColumns+` FROM public.materials WHERE id = $1 AND is_active`, id)
		if err != nil {
			return err
		}
		m, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Material])
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Material{}, false, nil
	case err != nil:
		return Material{}, false, fmt.Errorf("loading material %d: %w", id, err)
	}
	return m, true, nil
}

// listBody is a list of materials as the API answers it.
func listBody(materials []Material, more bool) ([]byte, error) {
	if materials == nil {
		materials = []Material{}
	}
	body, err := json.Marshal(materialList{materials})
	if err != nil {
		return nil, fmt.Errorf("encoding the list of materials: %w", err)
	}
	return endPage(body, more), nil
}
