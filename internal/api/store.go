package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"walkey/internal/cache"
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

// besideLoads is how many connections there are for what is no load, where the URL does not say how many there are.
const besideLoads = 4

// Store reads and changes the tables. It connects when it is first used, and anew after an outage.
type Store struct {
	pool    *pgxpool.Pool
	lives   lives
	standby *standby // nil without
}

// StoreOptions say where the tables are.
type StoreOptions struct {
	// URL leads to the primary. Its pool_* parameters set the bounds of the pool of connections. Of several hosts in it the primary
	// is used; a standby counts as unreachable.
	URL string
	// ReplicaURL leads to a hot standby that loads may come from; empty without.
	ReplicaURL string
	// Loads is how many loads there are at the same time: where a URL does not say how large its pool is, there are connections for
	// them and some more.
	Loads  int
	Logger *zap.Logger // nil logs nothing

	// NoStandbyLSN loads from the standby however far it is. It is for tests alone: old values are stored then.
	NoStandbyLSN bool
}

// OpenStore prepares pools of connections without connecting. With a standby, it looks at that from now on.
func OpenStore(ctx context.Context, o StoreOptions) (*Store, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL: %w", err)
	}
	prepareConfig(config, o.URL, o.Loads)
	// A standby may be behind: what is loaded there and stored would be older than the delete that went before.
	config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	s := &Store{}
	config.AfterConnect = s.lives.connected
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("preparing the connections to the database: %w", err)
	}
	if o.ReplicaURL != "" {
		if s.standby, err = openStandby(ctx, s.pool, o); err != nil {
			s.pool.Close()
			return nil, err
		}
	}
	return s, nil
}

// prepareConfig sets what a URL leaves open.
func prepareConfig(config *pgxpool.Config, databaseURL string, loads int) {
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "walkey-api"
	}
	if given, err := pgx.ParseConfig(databaseURL); err == nil && given.RuntimeParams["pool_max_conns"] == "" {
		config.MaxConns = max(config.MaxConns, int32(loads+besideLoads))
	}
}

// OnNewLife sets what is called when a connection turns out to lead to another server than the one before, or to the same
// after a restart: before anything is asked on it.
func (s *Store) OnNewLife(call func()) {
	s.lives.mu.Lock()
	defer s.lives.mu.Unlock()
	s.lives.changed = call
}

// Close ends all connections, once those in use are given back.
func (s *Store) Close() {
	if s.standby != nil {
		s.standby.close()
	}
	s.pool.Close()
}

// Standby says why loads do not come from the standby; nil when they do. there is false without one.
func (s *Store) Standby() (reason error, there bool) {
	if s.standby == nil {
		return nil, false
	}
	return s.standby.usable(), true
}

// Position is the end of the WAL: every change that could be seen before the call is before it.
func (s *Store) Position(ctx context.Context) (position uint64, err error) {
	var text string
	if err := s.pool.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		return 0, fmt.Errorf("asking for the end of the WAL: %w", err)
	}
	position, ok := parsePosition(text)
	if !ok {
		return 0, fmt.Errorf("asking for the end of the WAL: %q is no position", text)
	}
	return position, nil
}

// load reads rows from the standby, where that is as good, or from the primary.
func load[T any](ctx context.Context, s *Store, row pgx.RowToFunc[T], sql string, args ...any) (all []T, err error) {
	q := question{sql: sql, args: args, collect: func(rows pgx.Rows) (err error) {
		all, err = pgx.CollectRows(rows, row)
		return err
	}}
	if s.standby != nil && !cache.Audits(ctx) && s.standby.load(ctx, q) {
		return all, nil
	}
	err = s.read(ctx, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		return q.collect(rows)
	})
	return all, err
}

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
	materials, err = load(ctx, s, pgx.RowToStructByPos[Material], sql, args...)
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
	rows, err := load(ctx, s, pgx.RowToStructByPos[Material],
		`SELECT `+materialColumns+` FROM public.materials WHERE id = $1 AND is_active`, id)
	if err != nil {
		return Material{}, false, fmt.Errorf("loading material %d: %w", id, err)
	}
	if len(rows) == 0 {
		return Material{}, false, nil
	}
	return rows[0], true, nil
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
