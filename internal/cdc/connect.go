package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The server's error codes that are told apart.
const (
	codeDuplicateObject        = "42710"
	codeInsufficientPrivilege  = "42501"
	codeUndefinedObject        = "42704"
	codeNotInPrerequisiteState = "55000"
	codeObjectInUse            = "55006"
	codeConfigurationLimit     = "53400"
	codeAdminShutdown          = "57P01"
)

// connectTimeout is what a connection may take at least, however short the sender's time-out is.
const connectTimeout = 5 * time.Second

func hasCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// parseURL reads the database URL. Its errors say nothing of the URL, which may hold a password in a place where
// nobody expects one.
func (o Options) parseURL() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(o.DatabaseURL)
	if err != nil {
		return nil, &SetupError{Problem: "the database URL is not of the form postgres://user:password@host:port/database"}
	}
	// For a connection the server has to start a process, which takes longer than a sign of life on a busy machine.
	if most := max(o.SenderTimeout, connectTimeout); config.ConnectTimeout == 0 || config.ConnectTimeout > most {
		config.ConnectTimeout = most
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walkey"
	}
	return config, nil
}

// connectCatalog opens the ordinary connection on which Open looks around, makes things and waits.
func (o Options) connectCatalog(ctx context.Context) (*pgx.Conn, error) {
	config, err := o.parseURL()
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // few statements, each its own
	// A limit that was set for the role's other work must not cut short the wait for open transactions.
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["lock_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, config)
	if pooler := PoolerRefusal(err); pooler != nil {
		return nil, pooler
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}

// connectReplication opens the connection that will carry the stream.
func (o Options) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := o.parseURL()
	if err != nil {
		return nil, err
	}
	settings := config.RuntimeParams
	settings["replication"] = "database"
	settings["wal_sender_timeout"] = strconv.FormatInt(o.SenderTimeout.Milliseconds(), 10)
	settings["logical_decoding_work_mem"] = o.DecodingWorkMem
	if o.Streaming {
		settings["logical_decoding_work_mem"] = o.StreamingWorkMem
	}
	// Values come as text in the format of the session; pinned, so that the same row always gives the same text.
	settings["client_encoding"] = "UTF8"
	settings["DateStyle"] = "ISO"
	settings["IntervalStyle"] = "postgres"
	settings["TimeZone"] = "UTC"
	settings["extra_float_digits"] = "3"
	settings["bytea_output"] = "hex"
	settings["client_min_messages"] = "warning" // a skipped publication is told by a warning
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if hasCode(err, codeInsufficientPrivilege) {
		return nil, replicationRight(config.User, err)
	}
	if pooler := PoolerRefusal(err); pooler != nil {
		return nil, pooler
	}
	if err != nil {
		return nil, fmt.Errorf("open the replication connection: %w", err)
	}
	if err := inForce(ctx, conn, settings); err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("open the replication connection: %w", err)
	}
	return conn, nil
}

func replicationRight(user string, err error) error {
	return &SetupError{
		Problem: fmt.Sprintf("role %q may not replicate", user),
		SQL:     fmt.Sprintf("ALTER ROLE %s REPLICATION;", quote(user)),
		Cause:   err,
	}
}

// start takes the slot. On success the connection has become the stream's.
func (o Options) start(ctx context.Context, catalog *pgx.Conn, session Session) (*Stream, error) {
	if o.Streaming {
		far, err := o.farBehind(ctx, catalog)
		if err != nil {
			return nil, err
		}
		o.Streaming = !far
	}
	conn, err := o.connectReplication(ctx)
	if err != nil {
		return nil, err
	}
	s, err := o.startOn(ctx, conn, catalog, session)
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	return s, nil
}

// fewBehind is how much WAL behind the server's end a stream may begin for it to be worth streaming.
const fewBehind = 16 << 20

// farBehind says whether much of what comes first has committed already.
func (o Options) farBehind(ctx context.Context, catalog *pgx.Conn) (far bool, err error) {
	err = catalog.QueryRow(ctx, `SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn) > $2, false)
		FROM pg_replication_slots WHERE slot_name = $1`, o.Slot, fewBehind).Scan(&far)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, ErrSlotMissing
	}
	if err != nil {
		return false, fmt.Errorf("ask how far slot %s is behind: %w", o.Slot, err)
	}
	return far, nil
}

func (o Options) startOn(ctx context.Context, conn *pgconn.PgConn, catalog *pgx.Conn, session Session) (*Stream, error) {
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if pooler := PoolerRefusal(err); pooler != nil {
		return nil, pooler
	}
	if err != nil {
		return nil, fmt.Errorf("identify the system: %w", err)
	}
	session.SystemID, session.Timeline, session.WALEnd = system.SystemID, system.Timeline, LSN(system.XLogPos)
	session.Streams = o.Streaming
	options := []string{"proto_version '1'", "publication_names " + literal(quote(o.Publication))}
	if o.Streaming {
		options[0] = "proto_version '2'"
		options = append(options, "streaming 'on'")
	}
	if o.MessagePrefix != "" {
		options = append(options, "messages 'true'")
	}
	err = pglogrepl.StartReplication(ctx, conn, o.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: options,
	})
	if err != nil {
		return nil, startError(err)
	}
	// Only now that the slot is ours is its position what it will stay.
	slot, err := o.inspect(ctx, catalog)
	if err != nil {
		return nil, err
	}
	if slot == nil {
		return nil, ErrSlotMissing
	}
	session.Confirmed = slot.confirmed
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	if err := hijacked.Conn.SetDeadline(time.Time{}); err != nil {
		_ = hijacked.Conn.Close()
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	s := &Stream{
		session:     session,
		log:         o.Logger,
		publication: o.Publication,
		timeout:     o.SenderTimeout,
		bound:       o.BatchBytes,
		early:       o.Early,
		conn:        hijacked.Conn,
		frontend:    hijacked.Frontend,
		ready:       make(chan struct{}, 1),
		resume:      make(chan struct{}, 1),
		done:        make(chan struct{}),
	}
	s.pool.most = 2*o.BatchBytes/slabSize + 2
	s.confirmed.Store(uint64(session.Confirmed))
	s.follower.position = session.Confirmed
	s.follower.decoder = newDecoder(o.Columns, &s.pool)
	if o.Streaming {
		s.follower.decoder.stream(o.StreamBytes)
	}
	s.follower.decoder.roots = o.Roots
	s.follower.decoder.prefix = []byte(o.MessagePrefix)
	go s.follow()
	return s, nil
}

// startError tells apart why START_REPLICATION was refused.
func startError(err error) error {
	const doing = "start replication"
	switch {
	case hasCode(err, codeObjectInUse):
		return fmt.Errorf("%s: %w: %w", doing, ErrSlotHeld, err)
	case hasCode(err, codeUndefinedObject):
		return fmt.Errorf("%s: %w: %w", doing, ErrSlotMissing, err)
	case hasCode(err, codeNotInPrerequisiteState):
		return fmt.Errorf("%s: %w: %w", doing, ErrSlotInvalid, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// streamError tells apart why the server ended a stream.
func streamError(err *pgconn.PgError, publication string) error {
	switch err.Code {
	case codeUndefinedObject:
		return fmt.Errorf("%w: publication %q: %w", ErrPublicationMissing, publication, err)
	case codeNotInPrerequisiteState:
		return fmt.Errorf("%w: %w", ErrSlotInvalid, err)
	case codeObjectInUse:
		return fmt.Errorf("%w: %w", ErrSlotHeld, err)
	case codeAdminShutdown:
		return fmt.Errorf("%w: %w", ErrTerminated, err)
	default:
		return fmt.Errorf("the server ended the stream: %w", err)
	}
}

// hangUp closes a connection of Open whatever state it is in, and waits for what pgx does about it in the background,
// though not for a server that does not answer.
func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is left to be said on it
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}
