package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	codeProtocolViolation = "08P01"
	codeSyntaxError       = "42601"
)

// ErrPooler: the URL does not lead to the server itself. Only another URL mends it.
var ErrPooler = errors.New("DATABASE_URL leads to a pooler (PgBouncer or the like), which does not let the invalidator through; name the Postgres server's own host and port")

// PoolerRefusal gives ErrPooler for an answer that a pooler brings about, else nil: PgBouncer takes none but a few startup
// parameters, and where it was told to ignore "replication" the server takes the commands of replication for SQL. The
// answer itself is dropped: which parameter it names is chance.
func PoolerRefusal(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return nil
	}
	switch {
	case e.Code == codeProtocolViolation && strings.Contains(e.Message, "unsupported startup parameter"),
		e.Code == codeSyntaxError && strings.Contains(e.Message, "IDENTIFY_SYSTEM"):
		return ErrPooler
	}
	return nil
}

// inForce gives ErrPooler when a setting that the connection began with is not what the server knows. PgBouncer from 1.23 on
// passes replication; where it was told to ignore the settings that it does not know, it drops them: values would come in
// another form than was asked for, and a dead client would keep the slot.
func inForce(ctx context.Context, conn *pgconn.PgConn, settings map[string]string) error {
	results, err := conn.Exec(ctx, `SELECT lower(name), setting FROM pg_catalog.pg_settings
		WHERE name IN ('wal_sender_timeout', 'bytea_output', 'extra_float_digits', 'IntervalStyle')`).ReadAll()
	if pooler := PoolerRefusal(err); pooler != nil {
		return pooler
	}
	if err != nil {
		return fmt.Errorf("ask for the settings: %w", err)
	}
	known := map[string]string{}
	for _, result := range results {
		for _, row := range result.Rows {
			known[string(row[0])] = string(row[1])
		}
	}
	for name, value := range settings {
		if actual, asked := known[strings.ToLower(name)]; asked && actual != value {
			return fmt.Errorf("%w (it drops the setting %s)", ErrPooler, name)
		}
	}
	return nil
}

// ThroughPooler tells whether somebody between us and the server makes up the process ids that clients cancel by, as
// poolers and some providers' proxies do.
func ThroughPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var pid uint32
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()::int8`).Scan(&pid); err != nil {
		return false, fmt.Errorf("ask for the process id: %w", err)
	}
	return pid != conn.PgConn().PID(), nil
}

// Probe opens a replication connection as a stream would and closes it again: whether the role, pg_hba.conf and
// whatever stands between let it. The error is a *SetupError or ErrPooler when a person must mend it.
func Probe(ctx context.Context, databaseURL string) error {
	o, err := Options{
		DatabaseURL: databaseURL, Slot: "probe", Publication: "probe", Tables: []Table{{}}, Columns: func(Table) []string { return nil },
	}.complete()
	if err != nil {
		return err
	}
	conn, err := o.connectReplication(ctx)
	if errors.Is(err, ErrPooler) {
		return ErrPooler
	}
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if _, err := pglogrepl.IdentifySystem(ctx, conn); err != nil {
		if pooler := PoolerRefusal(err); pooler != nil {
			return pooler
		}
		return fmt.Errorf("identify the system: %w", err)
	}
	return nil
}
