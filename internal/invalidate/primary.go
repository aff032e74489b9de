package invalidate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walkey/internal/cdc"
	"walkey/internal/shortcall"
)

// queryTimeout bounds one question to the primary. A primary that is silent for
// longer counts as lost.
const queryTimeout = 5 * time.Second

// primary is the ordinary connection beside the stream: it asks what readers see.
// It is used by one goroutine.
type primary struct {
	conn *pgx.Conn
	// snapshotOID is of pg_current_snapshot(), the one question that deletes wait for.
	snapshotOID uint32
	// walBlock and walSegment are sizes in bytes; see beforeHeader.
	walBlock, walSegment uint64
}

// boot tells one life of Postgres' shared memory from the next. After a crash
// commits that readers have seen may be gone (synchronous_commit=off), and no WAL
// says so. A crash of one backend restarts the server's processes but keeps the
// postmaster and its start time, therefore the auxiliary processes count too.
type boot struct {
	Started   string  `json:"started"`   // pg_postmaster_start_time()
	Processes []int32 `json:"processes"` // pids of checkpointer, WAL writer and the like
}

// same reports whether b and o saw one life of the server. Single auxiliary
// processes may come and go; a crash replaces all of them.
func (b boot) same(o boot) bool {
	return b.Started == o.Started && slices.ContainsFunc(b.Processes, func(pid int32) bool { return slices.Contains(o.Processes, pid) })
}

// connectPrimary connects to the primary, or says that the server is none.
func connectPrimary(ctx context.Context, url string) (*primary, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read DATABASE_URL: %w", err)
	}
	config.ConnectTimeout = queryTimeout
	config.RuntimeParams["application_name"] = "walkey invalidator gate"
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["idle_session_timeout"] = "0"
	config.RuntimeParams["jit"] = "off" // would cost more than any question that is asked here
	// Else statements that are sent together would share the snapshot of the first; see question.
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return shortcall.Conn(c), nil
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if pooler := cdc.PoolerRefusal(err); pooler != nil {
		return nil, pooler
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the primary: %w", err)
	}
	p := &primary{conn: conn}
	var standby bool
	err = p.ask(ctx, `select pg_is_in_recovery(), 'pg_current_snapshot()'::regprocedure::oid,
			(select setting::int8 from pg_settings where name = 'wal_block_size'),
			(select setting::int8 from pg_settings where name = 'wal_segment_size')`,
		&standby, &p.snapshotOID, &p.walBlock, &p.walSegment)
	if err == nil && standby {
		err = errors.New("this server is a standby: DATABASE_URL must name the primary")
	}
	if err != nil {
		p.close(ctx)
		return nil, fmt.Errorf("connect to the primary: %w", err)
	}
	return p, nil
}

func (p *primary) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // nothing depends on the farewell
}

func (p *primary) ask(ctx context.Context, sql string, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return p.conn.QueryRow(ctx, sql).Scan(into...)
}

// snapshot is what a reader that begins now sees.
func (p *primary) snapshot(ctx context.Context) (snapshot, error) {
	text, err := p.call(ctx, p.snapshotOID)
	if err != nil {
		return snapshot{}, fmt.Errorf("ask the primary for its snapshot: %w", err)
	}
	s, err := parseSnapshot(text)
	if err != nil {
		return snapshot{}, fmt.Errorf("ask the primary for its snapshot: %w", err)
	}
	return s, nil
}

// call calls a function without arguments and gives its result as text. It does so by the protocol's function call, which
// needs no statement, no plan and no goroutine that watches ctx: a third of the time of the same by SQL, and every delete
// waits for it.
func (p *primary) call(ctx context.Context, function uint32) (text string, err error) {
	conn := p.conn.PgConn()
	if err := conn.Conn().SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Conn().SetDeadline(time.Unix(1, 0)) })()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	conn.Frontend().Send(&pgproto3.FunctionCall{Function: function})
	if err := conn.Frontend().Flush(); err != nil {
		return "", err
	}
	var refused error
	for {
		message, err := conn.ReceiveMessage(context.Background())
		if err != nil {
			return "", err
		}
		switch m := message.(type) {
		case *pgproto3.FunctionCallResponse:
			text = string(m.Result)
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return text, errors.Join(refused, conn.Conn().SetDeadline(time.Time{}))
		}
	}
}

// Sizes of the headers that begin each WAL page and each segment's first page
// (SizeOfXLogShortPHD and SizeOfXLogLongPHD of xlog_internal.h, 64-bit).
const (
	shortHeader = 24
	longHeader  = 40
)

// beforeHeader rounds an insert position that lies just behind a page's header
// down to the page's start. The stream reports the end of the last record, which
// is the page's start then: on an idle server it would never pass the header.
func beforeHeader(lsn cdc.LSN, block, segment uint64) cdc.LSN {
	switch {
	case uint64(lsn)%segment == longHeader:
		return lsn - longHeader
	case uint64(lsn)%block == shortHeader:
		return lsn - shortHeader
	}
	return lsn
}

// boot asks for the marks of the server's present life, and makes sure that the
// server is the one that the stream comes from.
func (p *primary) boot(ctx context.Context, stream cdc.Session) (boot, error) {
	var b boot
	var system, timeline string
	err := p.ask(ctx, `select pg_postmaster_start_time()::text,
			array(select pid from pg_stat_activity where datid is null and usesysid is null order by pid),
			(select system_identifier::text from pg_control_system()),
			substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)`,
		&b.Started, &b.Processes, &system, &timeline)
	if err != nil {
		return boot{}, fmt.Errorf("ask the primary for its processes: %w", err)
	}
	if system != stream.SystemID || timeline != fmt.Sprintf("%08X", stream.Timeline) {
		return boot{}, fmt.Errorf("the stream comes from system %s timeline %08X, other connections reach system %s timeline %s: DATABASE_URL must name one server",
			stream.SystemID, stream.Timeline, system, timeline)
	}
	return b, nil
}
