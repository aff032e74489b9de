package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
	"walkey/internal/invalidate"
)

// postgres is what the server said.
type postgres struct {
	user, database string
	remote         bool // reached over a network, not within one machine
	verified       bool // the connection string asks for sslmode=verify-full
	encrypted      bool
	pooled         bool

	version  int // server_version_num
	text     string
	standby  bool
	walLevel string

	slots, maxSlots, senders, maxSenders int

	superuser, replication, create bool

	probe error // what a replication connection ended with

	rules      []hbaRule
	rulesKnown bool // the role may read them

	publication bool
	findings    []invalidate.Finding

	slot        *slot
	keep        int64         // max_slot_wal_keep_size in bytes, -1 is without limit
	growth      float64       // of the WAL, bytes a second
	idleTimeout time.Duration // of slots nobody uses; 0 is none

	skew, skewErr time.Duration
}

// hbaRule is a line of pg_hba.conf that deserves a word.
type hbaRule struct {
	line  int
	text  string // type, databases, roles, address, method
	err   string // why the server can't read it
	trust bool   // lets anybody in from another machine
}

// slot is the slot of the invalidator.
type slot struct {
	plugin, database string
	active           bool
	pid              int    // of the process that holds it; 0 for none
	holder           string // application and role of that process, as far as the role may see
	status           string // wal_status
	reason           string // why it was invalidated, where the server says so
	retained         int64  // bytes of WAL that it keeps
	behind           int64  // bytes of WAL that are not confirmed
	safe             *int64 // bytes until the server gives it up; nil is without limit
}

// examinePostgres asks the server everything. With an error what it gives is not whole; nil when nothing could be asked.
func examinePostgres(ctx context.Context, o Options) (*postgres, error) {
	config, err := pgx.ParseConfig(o.DatabaseURL)
	if err != nil {
		return nil, errors.New("the connection string can't be read") // it may hold a password
	}
	config.RuntimeParams["application_name"] = "walkey doctor"
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // each statement its own, also where a pooler deals them out
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // nothing depends on the farewell
	}()
	p := &postgres{
		user:     config.User,
		remote:   remote(conn.PgConn().Conn().RemoteAddr()),
		verified: config.TLSConfig != nil && !config.TLSConfig.InsecureSkipVerify,
	}
	for _, ask := range []func(context.Context, *pgx.Conn, Options) error{
		p.askServer, p.askRole, p.askRules, p.askPublication, p.askSlot, p.askGrowth,
	} {
		if err := ask(ctx, conn, o); err != nil {
			return p, err
		}
	}
	p.probe = cdc.Probe(ctx, o.DatabaseURL)
	return p, nil
}

// remote tells whether an address is on another machine.
func remote(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

func (p *postgres) askServer(ctx context.Context, conn *pgx.Conn, _ Options) (err error) {
	if p.pooled, err = cdc.ThroughPooler(ctx, conn); err != nil {
		return err
	}
	var now time.Time
	var idle int64 // seconds
	began := time.Now()
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	took := time.Since(began)
	p.skew, p.skewErr = now.Sub(began.Add(took/2)), took/2
	err = conn.QueryRow(ctx, `
		SELECT current_database(), current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
			current_setting('wal_level'), (SELECT count(*)::int FROM pg_replication_slots), current_setting('max_replication_slots')::int,
			(SELECT count(*)::int FROM pg_stat_replication), current_setting('max_wal_senders')::int,
			coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
			(SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
			coalesce((SELECT setting::bigint * CASE unit WHEN 'min' THEN 60 ELSE 1 END FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), 0)`).
		Scan(&p.database, &p.version, &p.text, &p.standby, &p.walLevel, &p.slots, &p.maxSlots, &p.senders, &p.maxSenders, &p.encrypted,
			&p.keep, &idle)
	if err != nil {
		return fmt.Errorf("ask for the settings: %w", err)
	}
	p.idleTimeout = time.Duration(idle) * time.Second
	if p.keep > 0 {
		p.keep <<= 20 // MiB
	}
	return nil
}

func (p *postgres) askRole(ctx context.Context, conn *pgx.Conn, _ Options) error {
	// Amazon RDS has a role of its own in place of the attribute.
	err := conn.QueryRow(ctx, `
		SELECT rolsuper, rolreplication OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'MEMBER')),
			has_database_privilege(current_database(), 'CREATE')
		FROM pg_roles WHERE rolname = current_user`).Scan(&p.superuser, &p.replication, &p.create)
	if err != nil {
		return fmt.Errorf("ask for the role: %w", err)
	}
	return nil
}

// askRules reads pg_hba.conf through the server, which lets superusers and whom they grant it.
func (p *postgres) askRules(ctx context.Context, conn *pgx.Conn, _ Options) error {
	// Asked for first: being refused would leave an error in the server's log.
	err := conn.QueryRow(ctx, `SELECT has_table_privilege('pg_hba_file_rules', 'SELECT') AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE')`).Scan(&p.rulesKnown)
	if err != nil {
		return fmt.Errorf("ask for the rights to pg_hba_file_rules: %w", err)
	}
	if !p.rulesKnown {
		return nil
	}
	rows, err := conn.Query(ctx, `
		SELECT line_number, concat_ws(' ', type, array_to_string(database, ','), array_to_string(user_name, ','), address, auth_method),
			coalesce(error, ''), coalesce(type LIKE 'host%' AND auth_method = 'trust'
				AND address NOT IN ('127.0.0.1', '::1', 'samehost', 'localhost')
				AND (database && array['all', current_database()::text] OR database && array['sameuser', 'samerole']), false)
		FROM pg_hba_file_rules ORDER BY line_number`)
	if err != nil {
		return fmt.Errorf("ask for pg_hba_file_rules: %w", err)
	}
	var r hbaRule
	_, err = pgx.ForEachRow(rows, []any{&r.line, &r.text, &r.err, &r.trust}, func() error {
		p.rules = append(p.rules, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("ask for pg_hba_file_rules: %w", err)
	}
	return nil
}

func (p *postgres) askPublication(ctx context.Context, conn *pgx.Conn, o Options) error {
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`, o.Publication).Scan(&p.publication)
	if err != nil {
		return fmt.Errorf("ask for the publication: %w", err)
	}
	p.findings, err = invalidate.Check(ctx, conn, o.Rules, o.Publication)
	return err
}

func (p *postgres) askSlot(ctx context.Context, conn *pgx.Conn, o Options) error {
	var s slot
	err := conn.QueryRow(ctx, `
		SELECT coalesce(plugin, ''), coalesce(database, ''), active, coalesce(active_pid, 0),
			coalesce((SELECT concat_ws(' of role ', nullif(a.application_name, ''), a.usename) FROM pg_stat_activity a WHERE a.pid = s.active_pid), ''),
			coalesce(wal_status, 'unknown'),
			coalesce(to_jsonb(s)->>'invalidation_reason', ''),
			coalesce(pg_wal_lsn_diff(here, restart_lsn), 0)::bigint, coalesce(pg_wal_lsn_diff(here, confirmed_flush_lsn), 0)::bigint, safe_wal_size
		FROM pg_replication_slots s,
			(SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here) AS w
		WHERE slot_name = $1`, o.Slot).
		Scan(&s.plugin, &s.database, &s.active, &s.pid, &s.holder, &s.status, &s.reason, &s.retained, &s.behind, &s.safe)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the slot: %w", err)
	}
	p.slot = &s
	return nil
}

// askGrowth watches how fast the WAL grows.
func (p *postgres) askGrowth(ctx context.Context, conn *pgx.Conn, o Options) error {
	if p.standby || o.Sample <= 0 {
		return nil
	}
	var from, to string
	began := time.Now()
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&from); err != nil {
		return fmt.Errorf("ask for the WAL position: %w", err)
	}
	select {
	case <-time.After(o.Sample):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&to); err != nil {
		return fmt.Errorf("ask for the WAL position: %w", err)
	}
	took := time.Since(began)
	first, err1 := cdc.ParseLSN(from)
	last, err2 := cdc.ParseLSN(to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	p.growth = float64(last-first) / took.Seconds()
	return nil
}

// badRules gives the texts of the lines of pg_hba.conf that a test picks.
func (p *postgres) badRules(test func(hbaRule) bool) string {
	var lines []string
	for _, r := range p.rules {
		if test(r) {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("line %d: %s %s", r.line, r.text, r.err)))
		}
	}
	return strings.Join(lines, "; ")
}
