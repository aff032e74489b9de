package invalidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"walkey/internal/cdc"
)

// Names of prepared statements.
const (
	positionStatement = "walkey_position"
	glanceStatement   = "walkey_glance"
)

// question asks the primary for what a proof begins with, in one round trip: first where WAL is inserted, then the glance at the
// catalog. The order matters: the beat will speak of the moment of the position, so the catalog has to be looked at after it. Each
// statement has a snapshot of its own, because the connection is at READ COMMITTED; see connectPrimary.
//
// An idle server is asked several times a second, so it is done with as little as the protocol takes: no statement cache, no
// decoding, nobody who watches the context from beside.
type question struct {
	primary *primary
	of      [][]byte // the glance's parameters, as text
}

// newQuestion prepares the statements.
func newQuestion(ctx context.Context, p *primary, version int, tables []cdc.Table, publication string) (*question, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	q := &question{primary: p}
	schemas, names := places(tables)
	for _, list := range [][]string{schemas, names} {
		text, err := p.conn.TypeMap().Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, list, nil)
		if err != nil {
			return nil, fmt.Errorf("write down the names of the tables: %w", err)
		}
		q.of = append(q.of, text)
	}
	q.of = append(q.of, []byte(publication))
	// A position that the commit of every transaction which is visible now lies before. It is where WAL is inserted, not where it
	// is flushed: with synchronous_commit=off a commit is visible before it is flushed. On a server where nothing happens the WAL
	// writer soon flushes what is left, and the stream comes up to it.
	_, err := p.conn.PgConn().Prepare(ctx, positionStatement, "select pg_current_wal_insert_lsn()::text", nil)
	if err == nil {
		_, err = p.conn.PgConn().Prepare(ctx, glanceStatement, glanceQuery(version), nil)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare to ask the primary for its WAL position and the catalog: %w", err)
	}
	return q, nil
}

// ask asks once.
func (q *question) ask(ctx context.Context) (insert cdc.LSN, glance string, err error) {
	answers, err := q.exchange(ctx)
	if err != nil {
		return 0, "", fmt.Errorf("ask the primary for its WAL position and the catalog: %w", err)
	}
	if insert, err = cdc.ParseLSN(answers[0]); err != nil {
		return 0, "", fmt.Errorf("ask the primary for its WAL position: %w", err)
	}
	return beforeHeader(insert, q.primary.walBlock, q.primary.walSegment), answers[1], nil
}

// exchange sends both statements and gives the one value of each.
func (q *question) exchange(ctx context.Context) (answers [2]string, err error) {
	conn := q.primary.conn.PgConn()
	if err := conn.Conn().SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return answers, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Conn().SetDeadline(time.Unix(1, 0)) })()
	if err := ctx.Err(); err != nil {
		return answers, err
	}
	frontend := conn.Frontend()
	frontend.SendBind(&pgproto3.Bind{PreparedStatement: positionStatement})
	frontend.SendExecute(&pgproto3.Execute{})
	frontend.SendBind(&pgproto3.Bind{PreparedStatement: glanceStatement, Parameters: q.of})
	frontend.SendExecute(&pgproto3.Execute{})
	frontend.SendSync(&pgproto3.Sync{})
	if err := frontend.Flush(); err != nil {
		return answers, err
	}
	var refused error
	got := 0
	for {
		message, err := conn.ReceiveMessage(context.Background())
		if err != nil {
			return answers, err
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			if got < len(answers) && len(m.Values) == 1 {
				answers[got] = string(m.Values[0])
			}
			got++
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if refused == nil && got != len(answers) {
				refused = errors.New("it gave another number of answers")
			}
			return answers, errors.Join(refused, conn.Conn().SetDeadline(time.Time{}))
		}
	}
}
