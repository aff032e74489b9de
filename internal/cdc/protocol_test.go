package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"
)

// script is a server whose every word a test chooses. It lives in a synctest bubble, so the clock is the test's, too.
type script struct {
	t      *testing.T
	conn   net.Conn
	stream *Stream
	heard  chan status
}

// status is a status update that the client sent.
type status struct {
	written, flushed, applied LSN
	reply                     bool
}

const scriptTimeout = 9 * time.Second

// play starts a stream, confirmed up to 50, on a scripted server.
func play(t *testing.T) *script {
	t.Helper()
	client, server := net.Pipe()
	s := &Stream{
		log: zap.NewNop(), publication: "walkey", timeout: scriptTimeout, bound: 1 << 20,
		session: Session{Confirmed: 50},
		conn:    client, frontend: pgproto3.NewFrontend(client, client),
		ready: make(chan struct{}, 1), resume: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.confirmed.Store(50)
	s.follower.position = 50
	s.follower.decoder = newDecoder(idAndTitle, &s.pool)
	c := &script{t: t, conn: server, stream: s, heard: make(chan status, 1000)}
	go s.follow()
	go c.listen()
	if got, want := c.next(), (status{50, 50, 50, false}); got != want {
		t.Fatalf("the first status update is %+v, want %+v", got, want)
	}
	return c
}

// listen hears status updates until the client is gone.
func (c *script) listen() {
	defer close(c.heard)
	defer func() { _ = c.conn.Close() }()
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(c.conn, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(c.conn, body); err != nil || head[0] == 'X' {
			return
		}
		if head[0] != 'd' || len(body) != 34 || body[0] != 'r' {
			c.t.Errorf("the client said %q %q", head[0], body)
			return
		}
		position := func(at int) LSN { return LSN(binary.BigEndian.Uint64(body[at:])) }
		if got, want := postgresTime(int64(position(25))), time.Now(); got.Sub(want).Abs() > time.Second {
			c.t.Errorf("the client's clock is %s, want %s", got, want)
		}
		c.heard <- status{position(1), position(9), position(17), body[33] == 1}
	}
}

func (c *script) next() status {
	c.t.Helper()
	s, open := <-c.heard
	if !open {
		c.t.Fatal("the client is gone")
	}
	return s
}

func (c *script) say(messages ...pgproto3.BackendMessage) {
	c.t.Helper()
	for _, m := range messages {
		b, err := m.Encode(nil)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.conn.Write(b); err != nil {
			c.t.Fatalf("say %T: %v", m, err)
		}
	}
	synctest.Wait()
}

func data(w wire) *pgproto3.CopyData { return &pgproto3.CopyData{Data: w} }

func keepalive(end LSN, reply byte) *pgproto3.CopyData {
	return data(wire{'k'}.u64(uint64(end)).u64(0).u8(reply))
}

func xlog(w wire) *pgproto3.CopyData {
	return data(append(wire{'w'}.u64(1).u64(1).u64(0), w...))
}

// end wants the stream to have ended.
func (c *script) end() error {
	c.t.Helper()
	<-c.stream.done
	for {
		b, err := c.stream.Take()
		if err != nil {
			return err
		}
		if b == nil {
			c.t.Fatal("the stream is done and does not say why")
		}
	}
}

func (c *script) close() {
	c.t.Helper()
	if err := c.stream.Close(c.t.Context()); err != nil {
		c.t.Error(err)
	}
	for range c.heard { // what was heard last
	}
}

// take gives what there is.
func (c *script) take() *Batch {
	c.t.Helper()
	b, err := c.stream.Take()
	if err != nil {
		c.t.Fatal(err)
	}
	if b == nil {
		return &Batch{}
	}
	return b
}

func TestKeepaliveThatWantsAReplyGetsOneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		before := time.Now()
		c.say(keepalive(90, 1))
		if got, want := c.next(), (status{50, 50, 50, false}); got != want {
			t.Errorf("got %+v, want %+v: what was not taken is not confirmed", got, want)
		}
		if b := c.take(); b.Position != 90 || len(b.Transactions) != 0 {
			t.Errorf("got %+v", b)
		}
		c.say(keepalive(90, 1))
		c.next()
		if time.Since(before) != 0 {
			t.Errorf("it took %s", time.Since(before))
		}
		if b := c.take(); b.Position != 0 {
			t.Errorf("the same position came again: %+v", b)
		}
	})
}

func TestPositionStaysInsideATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		c.say(xlog(begin(100, 5)), xlog(relation(7, "public.t", 'd', "*id", "title")), xlog(insert(7, "1", "a")), keepalive(95, 0), keepalive(130, 0))
		if b := c.take(); b.Position != 0 || b.Transactions != nil {
			t.Errorf("got %+v inside a transaction", b)
		}
		c.say(xlog(commit(100, 120)), keepalive(110, 0))
		b := c.take()
		if b.Position != 120 || !b.Received.Equal(time.Now()) {
			t.Errorf("position %s, received %s", b.Position, b.Received)
		}
		want := []string{"begin 5 at 0/64", "  INSERT public.t new[id=1 title=a]", "end 0/78"}
		if diff := cmp.Diff(want, stories(b.Transactions)); diff != "" {
			t.Error(diff)
		}
		c.say(xlog(begin(130, 6)), xlog(commit(130, 150)))
		if b := c.take(); b.Position != 150 || len(b.Transactions) != 0 {
			t.Errorf("a transaction without changes came as %+v", b)
		}
	})
}

func TestConfirmGoesOutSoonAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		time.Sleep(time.Second) // of the bubble's clock
		c.say(keepalive(200, 0))
		c.take()
		before := time.Now()
		c.stream.Confirm(101)
		if got, want := c.next(), (status{101, 101, 101, false}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if time.Since(before) != 0 {
			t.Errorf("the first took %s", time.Since(before))
		}
		for p := LSN(102); p <= 150; p++ {
			c.stream.Confirm(p)
			synctest.Wait()
		}
		if got, want := c.next(), (status{150, 150, 150, false}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := time.Since(before); got != confirmEvery {
			t.Errorf("the second came after %s", got)
		}
	})
}

func TestAskPositionAsksForAReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		time.Sleep(time.Second)
		before := time.Now()
		c.stream.AskPosition()
		if got, want := c.next(), (status{50, 50, 50, true}); got != want || time.Since(before) != 0 {
			t.Errorf("got %+v after %s", got, time.Since(before))
		}
	})
}

func TestIdleStreamSpeaksAThirdOfTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		for range 10 {
			before := time.Now()
			if got, want := c.next(), (status{50, 50, 50, true}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got := time.Since(before); got != scriptTimeout/3 {
				t.Errorf("after %s", got)
			}
			c.say(keepalive(50, 0))
		}
	})
}

func TestSilentServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		before := time.Now()
		if err := c.end(); !errors.Is(err, ErrServerSilent) {
			t.Errorf("got %v", err)
		}
		if got := time.Since(before); got != scriptTimeout*3/2 {
			t.Errorf("after %s", got)
		}
	})
}

// TestSlowMessageIsNoSilence sends one large message in small parts over a long time.
func TestSlowMessageIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		c.say(xlog(begin(100, 5)), xlog(relation(7, "public.t", 'd', "*id", "title")))
		b, err := xlog(insert(7, "1", strings.Repeat("x", 1000))).Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(b, 100) {
			time.Sleep(scriptTimeout * 4 / 5)
			if _, err := c.conn.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		c.say(xlog(commit(100, 120)))
		if got := c.take(); len(got.Transactions) != 1 || len(got.Transactions[0].Changes[0].New[1].Text) != 1000 {
			t.Errorf("got %+v", got)
		}
	})
}

// TestFullMailboxStopsReadingButNotSpeaking fills the mailbox and leaves it so for many time-outs.
func TestFullMailboxStopsReadingButNotSpeaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		defer c.close()
		c.say(xlog(begin(100, 5)), xlog(relation(7, "public.t", 'd', "*id", "title")))
		for range 2 {
			c.say(xlog(insert(7, "1", strings.Repeat("x", 600_000))))
		}
		written := make(chan error, 1)
		go func() {
			b, err := xlog(commit(100, 120)).Encode(nil)
			if err == nil {
				_, err = c.conn.Write(b)
			}
			written <- err
		}()
		for range 30 {
			before := time.Now()
			if got, want := c.next(), (status{50, 50, 50, false}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got := time.Since(before); got != scriptTimeout/3 {
				t.Errorf("after %s", got)
			}
		}
		select {
		case err := <-written:
			t.Fatalf("something was read from the server though the mailbox is full: %v", err)
		default:
		}
		if b := c.take(); len(b.Transactions) != 1 || b.Transactions[0].Complete || b.Position != 50 {
			t.Errorf("got %+v", b)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b := c.take(); len(b.Transactions) != 1 || !b.Transactions[0].Complete || b.Position != 120 {
			t.Errorf("got %+v", b)
		}
	})
}

func TestCloseSpeaksLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		c.say(keepalive(200, 0))
		c.take()
		time.Sleep(time.Second)
		c.stream.Confirm(150)
		c.next()
		c.stream.Confirm(160) // too soon to go out by itself
		if err := c.stream.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := c.next(), (status{160, 160, 160, false}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := c.end(); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatComesBeforeTheEndIsTakenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := play(t)
		c.say(keepalive(90, 0), &pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
		<-c.stream.done
		<-c.stream.Ready()
		if b, err := c.stream.Take(); err != nil || b.Position != 90 {
			t.Errorf("got %+v, %v", b, err)
		}
		<-c.stream.Ready()
		for range 2 {
			if b, err := c.stream.Take(); b != nil || !errors.Is(err, ErrServerEnded) {
				t.Errorf("got %+v, %v", b, err)
			}
		}
	})
}

// TestEndings has every message that a server can end a stream with, and those that must not end it.
func TestEndings(t *testing.T) {
	refusal := func(code string) pgproto3.BackendMessage {
		return &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: "the server's words"}
	}
	for _, test := range []struct {
		name  string
		says  pgproto3.BackendMessage
		want  error  // nil: the stream goes on, unless words is set
		words string // in the error
	}{
		{"the publication is missing", refusal("42704"), ErrPublicationMissing, "the server's words"},
		{"the slot is invalid", refusal("55000"), ErrSlotInvalid, "the server's words"},
		{"the slot is held", refusal("55006"), ErrSlotHeld, "the server's words"},
		{"the connection is terminated", refusal("57P01"), ErrTerminated, "the server's words"},
		{"another error", refusal("58P01"), nil, "the server ended the stream: ERROR: the server's words (SQLSTATE 58P01)"},
		{"the copy is done", &pgproto3.CopyDone{}, ErrServerEnded, ""},
		{"the command is complete", &pgproto3.CommandComplete{CommandTag: []byte("COPY 0")}, ErrServerEnded, ""},
		{"a publication is skipped with a warning", &pgproto3.NoticeResponse{Severity: "WARNING", Code: "55000", Message: `skipped loading publication "walkey"`}, ErrPublicationMissing, "skipped"},
		{"a notice of something else", &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "by the way"}, nil, ""},
		{"the server's configuration changes", &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}, nil, ""},
		{"an unexpected message", &pgproto3.DataRow{}, nil, "unexpected *pgproto3.DataRow"},
		{"unknown copy data", data(wire{'z'}), nil, "unknown CopyData 'z'"},
		{"empty copy data", data(wire{}), nil, "empty CopyData"},
		{"a keepalive that is cut off", data(wire{'k', 0}), nil, "read a keepalive"},
		{"data that is cut off", data(wire{'w', 0}), nil, "read XLogData"},
		{"what cannot be decoded", xlog(insert(7, "1")), nil, "decode Insert message at offset 0, relation 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := play(t)
				c.say(test.says)
				if test.want == nil && test.words == "" {
					c.say(keepalive(90, 0))
					if b := c.take(); b.Position != 90 {
						t.Errorf("got %+v", b)
					}
					c.close()
					return
				}
				err := c.end()
				if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.words) {
					t.Errorf("got %v, want %v with %q", err, test.want, test.words)
				}
			})
		})
	}
	t.Run("the connection is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := play(t)
			synctest.Wait() // until the client reads
			_ = c.conn.Close()
			if err := c.end(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
		})
	})
}
