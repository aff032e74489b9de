package status

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
)

// server is what Postgres said.
type server struct {
	version           string
	walEnd, confirmed cdc.LSN
	slot              Slot
}

// postgres is a connection that is made when it is needed.
type postgres struct {
	url  string
	conn *pgx.Conn
}

func (p *postgres) close() {
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // nothing depends on the farewell
	p.conn = nil
}

// ask asks for everything in one question. What breaks is connected anew the next time.
func (p *postgres) ask(ctx context.Context, slot string) (server, error) {
	if p.conn == nil {
		config, err := pgx.ParseConfig(p.url)
		if err != nil {
			return server{}, errors.New("the connection string can't be read") // it may hold a password
		}
		config.RuntimeParams["application_name"] = "walkey status"
		config.DefaultQueryExecMode = pgx.QueryExecModeExec // each statement its own, also where a pooler deals them out
		if p.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
			p.conn = nil
			return server{}, err
		}
	}
	s, err := query(ctx, p.conn, slot)
	if err != nil {
		p.close()
	}
	return s, err
}

func query(ctx context.Context, conn *pgx.Conn, name string) (server, error) {
	var s server
	var standby bool
	var walEnd string
	var confirmed *string
	var pid *int32
	err := conn.QueryRow(ctx, `
		SELECT pg_is_in_recovery(), current_setting('server_version'), here::text, s.slot_name IS NOT NULL, coalesce(s.active, false), s.active_pid,
			coalesce(s.wal_status, ''), coalesce(pg_wal_lsn_diff(here, s.restart_lsn), 0)::bigint, s.safe_wal_size, s.confirmed_flush_lsn::text
		FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here) w
			LEFT JOIN pg_replication_slots s ON s.slot_name = $1`, name).
		Scan(&standby, &s.version, &walEnd, &s.slot.Exists, &s.slot.Active, &pid, &s.slot.Status, &s.slot.Retained, &s.slot.Safe, &confirmed)
	if err != nil {
		return s, fmt.Errorf("ask for the slot: %w", err)
	}
	s.version, _, _ = strings.Cut(s.version, " ") // the distribution's own is of no interest
	if standby {
		return s, errors.New("a standby answers: DATABASE_URL must name the primary")
	}
	if pid != nil {
		s.slot.PID = *pid
	}
	s.slot.Retained = max(0, s.slot.Retained)
	if s.walEnd, err = cdc.ParseLSN(walEnd); err != nil {
		return s, fmt.Errorf("ask for the WAL's end: %w", err)
	}
	if confirmed != nil {
		if s.confirmed, err = cdc.ParseLSN(*confirmed); err != nil {
			return s, fmt.Errorf("ask for the slot's position: %w", err)
		}
	}
	return s, nil
}
