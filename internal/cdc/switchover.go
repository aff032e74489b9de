package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// switchoverTimeout bounds the reading of the WAL before a promotion.
	switchoverTimeout = 20 * time.Second
	// mostWAL bounds how much of it is read, beside the empty rest of a segment.
	mostWAL = 32 << 20
)

// A Promotion is the end of one timeline and the beginning of the next, on the server that a stream comes from.
type Promotion struct {
	DatabaseURL string
	Session     Session // of the stream
	// Timeline was followed before, up to Position, which was confirmed.
	Timeline int32
	Position LSN
}

// CheckOrderly gives nil when the promotion has taken nothing back that a reader may have seen on the former primary, provided
// that its stream ended with ErrServerEnded, behind Position: that one was not restarted after Position, was shut down in
// order, and everything that it ever wrote is on the promoted server. It looks at the WAL itself: the former timeline ends, on the promoted server, with the checkpoint of a shutdown, which is
// the last that a server writes, after all its clients have gone. An error says what is missing to that, or that it could
// not be looked at.
//
// What nobody can see there: that the former primary (or a third server) was started again as a primary, and took changes
// that the promoted server was never sent. Nor, without the stream's end, that it crashed and wrote nothing after its
// recovery, which ends with a checkpoint of the same kind.
func (p Promotion) CheckOrderly(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, switchoverTimeout)
	defer cancel()
	o := Options{DatabaseURL: p.DatabaseURL, SenderTimeout: switchoverTimeout, DecodingWorkMem: "64kB"}
	conn, err := o.connectReplication(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	history, err := pglogrepl.TimelineHistory(ctx, conn, p.Session.Timeline)
	if err != nil {
		return fmt.Errorf("read the history of timeline %d: %w", p.Session.Timeline, err)
	}
	parent, end, err := parseHistory(history.Content)
	if err != nil {
		return fmt.Errorf("read the history of timeline %d: %w", p.Session.Timeline, err)
	}
	switch {
	case parent != p.Timeline:
		return fmt.Errorf("timeline %d follows timeline %d, not %d", p.Session.Timeline, parent, p.Timeline)
	case end <= p.Position:
		return fmt.Errorf("timeline %d was left at %s, and nothing in it is behind %s, where it was followed to", parent, end, p.Position)
	case uint64(end-p.Position) > p.Session.SegmentSize+mostWAL:
		return fmt.Errorf("timeline %d was left at %s, too far from %s to be looked through", parent, end, p.Position)
	}
	wal, err := readWAL(ctx, conn, p.Timeline, p.Position, end)
	if err != nil {
		return fmt.Errorf("read the end of timeline %d: %w", p.Timeline, err)
	}
	return checkShutdown(wal, p.Position, p.Session.BlockSize, p.Session.SegmentSize)
}

// parseHistory reads the last line of a timeline's history: which timeline it came from, and where.
func parseHistory(content []byte) (parent int32, end LSN, err error) {
	for line := range bytes.Lines(content) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return 0, 0, fmt.Errorf("%q is no line of it", line)
		}
		id, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return 0, 0, fmt.Errorf("%q is no line of it", line)
		}
		if end, err = ParseLSN(fields[1]); err != nil {
			return 0, 0, err
		}
		parent = int32(id)
	}
	if parent == 0 {
		return 0, 0, errors.New("it is empty")
	}
	return parent, end, nil
}

// readWAL reads the bytes of a timeline that has ended. The connection is of no further use.
func readWAL(ctx context.Context, conn *pgconn.PgConn, timeline int32, start, end LSN) ([]byte, error) {
	frontend := conn.Frontend()
	frontend.SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", start, timeline)})
	if err := frontend.Flush(); err != nil {
		return nil, err
	}
	wal := make([]byte, 0, end-start)
	for start+LSN(len(wal)) < end {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyBothResponse, *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		case *pgproto3.CopyData:
			if len(m.Data) == 0 || m.Data[0] != pglogrepl.XLogDataByteID {
				continue // a keepalive; all is over before it has to be answered
			}
			x, err := pglogrepl.ParseXLogData(m.Data[1:])
			if err != nil {
				return nil, err
			}
			if LSN(x.WALStart) != start+LSN(len(wal)) || len(x.WALData) > cap(wal)-len(wal) {
				return nil, fmt.Errorf("%d bytes at %s where %s is due", len(x.WALData), x.WALStart, start+LSN(len(wal)))
			}
			wal = append(wal, x.WALData...)
		default:
			return nil, fmt.Errorf("unexpected %T", m)
		}
	}
	return wal, nil
}
