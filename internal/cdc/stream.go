package cdc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"
)

// Session describes the connection and what it found.
type Session struct {
	SystemID      string // of the cluster; a restored copy has the same
	Timeline      int32  // rises with each promotion
	Database      string
	ServerVersion int // such as 150018
	// WALEnd is how far the WAL was flushed when the connection began.
	WALEnd LSN
	// Confirmed is the slot's confirmed position when this connection took it: what committed at or before it is not sent.
	Confirmed LSN
	// SlotCreated: Open made the slot, so nothing that committed before it will come.
	SlotCreated bool
	// SlotReason says why, for people: there was none, the server gave its WAL up, and so on.
	SlotReason string
	// Streams: what large transactions change comes before they commit; see Options.Streaming.
	Streams bool
	// BlockSize and SegmentSize are those of the WAL, in bytes.
	BlockSize, SegmentSize uint64
}

// Stream is one replication connection that holds the slot. Its methods may be called from any goroutine; Take and
// Release want one taker.
type Stream struct {
	session Session
	log     *zap.Logger
	// publication is named in some of the server's errors.
	publication string
	timeout     time.Duration // wal_sender_timeout
	bound       int           // of the waiting batch, in bytes
	early       Early         // nil: nobody
	pool        pool

	// The goroutine of follow owns these alone, save that others may set the read deadline of conn into the past.
	conn     net.Conn
	frontend *pgproto3.Frontend
	follower follower

	signals   atomic.Uint32 // what the goroutine is asked for
	confirmed atomic.Uint64 // LSN up to which all is processed
	delivered atomic.Uint64 // Position of the last batch that was taken

	streams struct{ open, bytes, lost atomic.Int64 } // see Streamed

	mu      sync.Mutex
	waiting *Batch // what the next Take gives; nil when there is nothing
	full    bool   // the goroutine does not read until Take
	ended   error  // why the stream is over; nothing is added after it

	ready  chan struct{}
	resume chan struct{} // wakes the goroutine while it does not read
	done   chan struct{} // closed when the goroutine is gone
}

// What the goroutine can be asked for.
const (
	signalConfirm uint32 = 1 << iota // confirmed has risen
	signalAsk                        // a reply of the server is wanted
	signalTaken                      // there is room again
	signalClose                      // end
)

// Session describes the connection.
func (s *Stream) Session() Session { return s.session }

// Streamed says how much is held of transactions that have not ended.
type Streamed struct {
	Transactions int // that are open, and streamed
	Bytes        int // of memory
	Lost         int // how many were given up since the stream began because Options.StreamBytes was reached
}

// Streamed says what is held at the moment.
func (s *Stream) Streamed() Streamed {
	return Streamed{int(s.streams.open.Load()), int(s.streams.bytes.Load()), int(s.streams.lost.Load())}
}

// Ready fires, with room for one signal, when Take has something new or the stream has ended.
func (s *Stream) Ready() <-chan struct{} { return s.ready }

// Take gives all that came since the last Take. It never blocks: when nothing is new it gives (nil, nil), and when the
// stream has ended and everything before the end has been taken, (nil, why). The batch belongs to the caller until
// Release.
func (s *Stream) Take() (*Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.waiting
	if b == nil {
		return nil, s.ended
	}
	s.waiting = nil
	s.delivered.Store(uint64(b.Position))
	if s.full {
		s.full = false
		s.signal(signalTaken)
	}
	if s.ended != nil {
		s.announce()
	}
	return b, nil
}

// Release gives the batch's memory back for re-use; neither it nor any value of it may be used any more. Optional: a
// batch that is not released is garbage.
func (s *Stream) Release(b *Batch) {
	if b != nil {
		s.pool.release(b)
	}
}

// Confirm says that everything which committed at or before position is processed, so that the server need not keep
// it. What this connection has not handed over cannot be confirmed, and a lower position than before changes nothing.
// It never blocks; the server is told within about 10 ms.
func (s *Stream) Confirm(position LSN) {
	p := min(uint64(position), s.delivered.Load())
	for {
		before := s.confirmed.Load()
		if p <= before {
			return
		}
		if s.confirmed.CompareAndSwap(before, p) {
			break
		}
	}
	s.signal(signalConfirm)
}

// AskPosition asks the server how far it has come, which moves Position when nothing else does. It never blocks.
func (s *Stream) AskPosition() { s.signal(signalAsk) }

// Close tells the server what was last confirmed, ends the connection and waits until it is gone, or ctx is; then it is
// cut. What was not taken can still be taken.
func (s *Stream) Close(ctx context.Context) error {
	s.signal(signalClose)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		_ = s.conn.Close() // a connection that is cut has nothing more to tell
		<-s.done
		return ctx.Err()
	}
}

// signal wakes the goroutine wherever it waits. The bit comes first and the deadline after it; the goroutine sets its
// deadline first and looks at the bits after it: whichever way the two interleave, it sees the bit or is woken.
func (s *Stream) signal(bit uint32) {
	if s.signals.Or(bit)&bit != 0 {
		return // known already
	}
	_ = s.conn.SetReadDeadline(longAgo) // fails only when the connection is closed, and then nobody waits on it
	select {
	case s.resume <- struct{}{}:
	default:
	}
}

// longAgo as a deadline ends a read at once.
var longAgo = time.Unix(1, 0)

// announce makes Ready fire.
func (s *Stream) announce() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}
