package cdc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"
)

const (
	// confirmEvery bounds how often the server is told what was confirmed.
	confirmEvery = 10 * time.Millisecond
	// A crowd is so many messages in so short a time. Behind one, the kernel is given a moment to gather more: the server
	// sends each message by itself, and waking up for each of them costs both sides more than the message.
	crowd, crowdTime = 64, 4 * time.Millisecond
	gatherTime       = time.Millisecond
	gatherBytes      = 256 << 10
	// replayBytes bounds a batch of what was held and is handed over: it comes as fast as it is taken, so that more of it at once
	// would only be more memory on its way to Valkey.
	replayBytes = 2 << 20
	// drainFor bounds the wait for the server to close its side after Close.
	drainFor = time.Second
)

// follower is what the goroutine that owns the connection knows.
type follower struct {
	decoder  *decoder
	position LSN  // the Position of the next batch
	paused   bool // the waiting batch was full when it was last looked at
	told     bool // Early was, since its last Pause

	status   time.Time // when the last status update went out
	turned   time.Time // when the loop last came round
	heard    time.Time // when the last bytes came in
	buffered int       // unread bytes at the last time-out: a large message that grows is a sign of life too
	deadline time.Time // what the read deadline was set to; zero when it may be another now

	messages int       // since counted
	counted  time.Time // when counting them began
}

// crowded counts a message and says whether it ends a crowd.
func (f *follower) crowded(now time.Time) bool {
	f.messages++
	if f.messages < crowd {
		return false
	}
	crowded := now.Sub(f.counted) < crowdTime
	f.messages, f.counted = 0, now
	return crowded
}

// follow reads the stream until it ends.
func (s *Stream) follow() {
	defer close(s.done)
	err := s.run()
	if errors.Is(err, ErrClosed) {
		s.leave()
	}
	_ = s.conn.Close() // why the stream ended is known already
	s.mu.Lock()
	s.ended = err
	s.mu.Unlock()
	s.announce()
}

func (s *Stream) run() error {
	f := &s.follower
	now := time.Now()
	f.turned, f.heard = now, now
	if err := s.sendStatus(now, false); err != nil {
		return err
	}
	gather := false
	for ; ; now = time.Now() {
		if now.Sub(f.turned) > s.timeout {
			f.heard = now // this process stood still, so the server's silence says nothing
		}
		f.turned = now
		if f.told && (f.paused || s.frontend.ReadBufferLen() == 0) {
			f.told = false
			s.early.Pause()
		}
		left, err := s.attend(now)
		if err != nil {
			return err
		}
		next := f.status.Add(s.timeout / 3)
		if left != 0 {
			next = f.status.Add(confirmEvery)
		}
		if f.paused {
			s.pause(next.Sub(now))
			continue
		}
		if f.decoder.replaying != nil {
			f.heard = now // the server is not listened to meanwhile
			s.handOver(f.decoder.more(), now)
			s.countStreams()
			continue
		}
		if silent := f.heard.Add(s.timeout * 3 / 2); silent.Before(next) {
			next = silent
		}
		if f.deadline.IsZero() || next.Before(f.deadline) || !f.deadline.After(now) {
			if err := s.conn.SetReadDeadline(next); err != nil {
				return fmt.Errorf("set the read deadline: %w", err)
			}
			f.deadline = next
			if s.signals.Load()&^left != 0 {
				f.deadline = time.Time{} // a signal came before the deadline was set, which undid its own
				continue
			}
		}
		message, err := s.frontend.Receive()
		now = time.Now()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			f.deadline = time.Time{}
			if err := s.checkSilence(now); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return fmt.Errorf("the server closed the replication connection: %w", err)
		}
		if err != nil {
			return fmt.Errorf("receive from the server: %w", err)
		}
		f.heard, f.buffered = now, 0
		if err := s.handle(message, now); err != nil {
			return err
		}
		gather = f.crowded(now) || gather
		if gather && s.frontend.ReadBufferLen() == 0 {
			gather = false
			setLowWater(s.conn, gatherBytes)
			s.pause(gatherTime)
			setLowWater(s.conn, 1)
			f.counted = time.Now()
		}
	}
}

// attend does what signals and the clock ask for, and gives the signals that have to wait a little.
func (s *Stream) attend(now time.Time) (left uint32, err error) {
	f := &s.follower
	signals := s.signals.Load()
	if signals&signalClose != 0 {
		if err := s.sendStatus(now, false); err != nil {
			return 0, err
		}
		return 0, ErrClosed
	}
	if signals&signalTaken != 0 {
		s.signals.And(^signalTaken)
		if f.paused {
			f.paused = s.isFull()
			f.heard = now // nobody listened while it was full
		}
	}
	const status = signalConfirm | signalAsk
	due := now.Sub(f.status)
	switch {
	case signals&status != 0 && due >= confirmEvery:
		s.signals.And(^status) // before confirmed is read: what rises later signals again
		return 0, s.sendStatus(now, signals&signalAsk != 0)
	case due >= s.timeout/3:
		// The reply that it asks for keeps an idle server from being silent. While nothing is read, none is wanted.
		return signals & status, s.sendStatus(now, !f.paused)
	default:
		return signals & status, nil
	}
}

// pause waits for room or until it is time for a status update: without those the server would give the connection up.
func (s *Stream) pause(most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-s.resume:
	case <-timer.C:
	}
}

func (s *Stream) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// checkSilence is for a read that timed out.
func (s *Stream) checkSilence(now time.Time) error {
	f := &s.follower
	if n := s.frontend.ReadBufferLen(); n != f.buffered {
		f.buffered, f.heard = n, now
		return nil
	}
	if silence := now.Sub(f.heard); silence >= s.timeout*3/2 && now.Sub(f.turned) <= s.timeout {
		return fmt.Errorf("%w: nothing in %s", ErrServerSilent, silence.Round(time.Millisecond))
	}
	return nil
}

func (s *Stream) handle(message pgproto3.BackendMessage, now time.Time) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return s.handleCopyData(m.Data, now)
	case *pgproto3.ErrorResponse:
		return streamError(pgconn.ErrorResponseToPgError(m), s.publication)
	case *pgproto3.NoticeResponse:
		return s.handleNotice(m)
	case *pgproto3.ParameterStatus:
		return nil // the server's configuration was reloaded; nothing that is read depends on it
	case *pgproto3.CopyDone, *pgproto3.CommandComplete:
		return ErrServerEnded
	default:
		return fmt.Errorf("unexpected %T in the replication stream", m)
	}
}

func (s *Stream) handleNotice(m *pgproto3.NoticeResponse) error {
	s.log.Warn("notice from the server in the replication stream",
		zap.String("severity", m.SeverityUnlocalized), zap.String("sqlstate", m.Code), zap.String("message", m.Message))
	// From version 18 on, a publication that is missing at the slot's position is skipped with a warning, and its
	// changes with it. (Older servers end the stream with an error.)
	if m.Code == codeNotInPrerequisiteState || m.Code == codeUndefinedObject {
		return fmt.Errorf("%w: %s", ErrPublicationMissing, m.Message)
	}
	return nil
}

func (s *Stream) handleCopyData(data []byte, now time.Time) error {
	if len(data) == 0 {
		return errors.New("empty CopyData in the replication stream")
	}
	switch data[0] {
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return fmt.Errorf("read XLogData: %w", err)
		}
		return s.handleMessage(x.WALData, LSN(x.WALStart), now)
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return fmt.Errorf("read a keepalive: %w", err)
		}
		return s.handleKeepalive(k, now)
	default:
		return fmt.Errorf("unknown CopyData %q in the replication stream", data[0])
	}
}

func (s *Stream) handleMessage(message []byte, at LSN, now time.Time) error {
	f := &s.follower
	done, err := f.decoder.decode(message, at)
	if err != nil {
		return err
	}
	if f.decoder.streaming {
		s.countStreams()
	}
	if done == endOfPiece || done == endOfTransaction {
		s.handOver(done, now)
	}
	return nil
}

// countStreams keeps what Streamed says.
func (s *Stream) countStreams() {
	d := s.follower.decoder
	s.streams.open.Store(int64(len(d.streams)))
	s.streams.bytes.Store(int64(d.held))
	s.streams.lost.Store(int64(d.losses))
}

// handOver puts the piece that has ended into the waiting batch.
func (s *Stream) handOver(done progress, now time.Time) {
	f := &s.follower
	if done == endOfTransaction {
		f.position = max(f.position, f.decoder.end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.next(now)
	t, slabs, bytes, deliver := f.decoder.cut(b.slabs)
	b.slabs = slabs
	if deliver {
		b.Transactions = append(b.Transactions, t)
		b.bytes += bytes + transactionSize
		if t.Complete && s.early != nil {
			s.early.Committed(&t) // while nobody can take it and release its memory
			f.told = true
		}
	}
	if b.bytes >= s.bound || f.decoder.replaying != nil && b.bytes >= replayBytes {
		s.full, f.paused = true, true
	}
}

func (s *Stream) handleKeepalive(k pglogrepl.PrimaryKeepaliveMessage, now time.Time) error {
	f := &s.follower
	// Inside a transaction the server's position may lie behind its commit already. Between the blocks of one that is streamed
	// it does not: the server has come to no commit of it, and has sent whatever committed before.
	if end := LSN(k.ServerWALEnd); !f.decoder.inTransaction() && end > f.position {
		f.position = end
		s.mu.Lock()
		s.next(now)
		s.mu.Unlock()
	}
	if k.ReplyRequested {
		return s.sendStatus(now, false)
	}
	return nil
}

// next gives the waiting batch, moved to the present position. mu must be held.
func (s *Stream) next(now time.Time) *Batch {
	if s.waiting == nil {
		s.waiting = s.pool.batch()
	}
	s.waiting.Position = s.follower.position
	s.waiting.Received = now
	s.announce()
	return s.waiting
}

// sendStatus tells the server what is confirmed, in all three fields, and that this side lives.
func (s *Stream) sendStatus(now time.Time, reply bool) error {
	if err := s.conn.SetWriteDeadline(now.Add(s.timeout)); err != nil {
		return fmt.Errorf("set the write deadline: %w", err)
	}
	position := pglogrepl.LSN(s.confirmed.Load())
	if err := writeStatus(s.frontend, position, now, reply); err != nil {
		return fmt.Errorf("send a status update: %w", err)
	}
	s.follower.status = now
	return nil
}

// leave ends the connection in good order, so that the server frees the slot at once and reads the last status update
// before it. Reading on until it closes matters: closing a socket with unread bytes resets the connection.
func (s *Stream) leave() {
	now := time.Now()
	if err := s.conn.SetDeadline(now.Add(min(drainFor, s.timeout))); err != nil {
		return
	}
	s.frontend.Send(&pgproto3.Terminate{})
	if err := s.frontend.Flush(); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, s.conn) // ends with the connection or the deadline; either will do
}
