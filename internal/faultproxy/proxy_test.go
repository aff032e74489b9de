package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// quiet is how long a test watches that nothing happens, outer how long it waits for what must happen.
const (
	quiet = 50 * time.Millisecond
	outer = 20 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that answers every byte with itself, and remembers what reached it.
type echo struct {
	net.Listener
	mu  sync.Mutex
	got bytes.Buffer
}

func (e *echo) received() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

func (e *echo) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.Write(b)
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{Listener: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, io.TeeReader(conn, e))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return e
}

func setup(t *testing.T) (*Proxy, *echo) {
	t.Helper()
	e := startEcho(t)
	p, err := Listen(t.Context(), e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, e
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Addr(), outer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// want reads exactly that text.
func want(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(outer)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q (%v), want %q", got[:n], err, text)
	}
}

// wantNothing watches for a moment that nothing comes, the end of the connection included.
func wantNothing(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	var timeout net.Error
	if n, err := conn.Read(b[:]); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("read %q, %v; want silence", b[:n], err)
	}
}

func wantClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(outer)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	var timeout net.Error
	if n, err := conn.Read(b[:]); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("read %q, %v; want the end of the connection", b[:n], err)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(outer)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func waitHeld(t *testing.T, p *Proxy) {
	t.Helper()
	select {
	case <-p.Held():
	case <-time.After(outer):
		t.Fatal("nothing was held")
	}
}

func contains(text string) func([]byte) bool {
	return func(b []byte) bool { return bytes.Contains(b, []byte(text)) }
}

func TestForwardsBothWaysAndCounts(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	a, b := dial(t, p), dial(t, p)
	send(t, a, "one")
	want(t, a, "one")
	send(t, b, "two")
	want(t, b, "two")
	if n := p.Connections(); n != 2 {
		t.Errorf("connections: %d, want 2", n)
	}
	if err := a.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, a)
	eventually(t, "one connection less", func() bool { return p.Connections() == 1 })
}

func TestSilenceHoldsBothWaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	before := dial(t, p)
	send(t, before, "1")
	want(t, before, "1")

	p.Silence()
	send(t, before, "2")
	during := dial(t, p)
	send(t, during, "3")
	wantNothing(t, before)
	wantNothing(t, during)
	if got := e.received(); got != "1" {
		t.Errorf("the server got %q while the link was silent, want only the first byte", got)
	}
	send(t, before, "4")

	p.Heal()
	want(t, before, "24")
	want(t, during, "3")
}

func TestSilenceHoldsTheEndOfAConnection(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	conn := dial(t, p)
	send(t, conn, "1")
	want(t, conn, "1")
	p.Silence()
	if err := e.Close(); err != nil { // new connections to the server fail from now on
		t.Fatal(err)
	}
	late := dial(t, p)
	wantNothing(t, late)
	p.Heal()
	wantClosed(t, late)
	send(t, conn, "2")
	want(t, conn, "2")
}

func TestSilenceBreaksOffAWriteThatHangs(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	// The echo of this fills every buffer on the way, because nobody reads it.
	text := strings.Repeat("0123456789", 2<<20)
	var sender sync.WaitGroup
	sender.Go(func() {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "a write that hangs", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for l := range p.links {
			return l.replies.out != nil && l.requests.out != nil
		}
		return false
	})
	p.Silence() // hangs for ever when it does not break the write off
	p.Heal()
	want(t, conn, text)
	sender.Wait()
}

func TestSilenceRepliesLetsRequestsThrough(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	conn := dial(t, p)
	p.SilenceReplies()
	send(t, conn, "1")
	eventually(t, "the request at the server", func() bool { return e.received() == "1" })
	wantNothing(t, conn)
	p.Heal()
	want(t, conn, "1")
}

func TestCutRefusesUntilHeal(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	send(t, conn, "1")
	want(t, conn, "1")
	addr := p.Addr()
	p.Cut()
	wantClosed(t, conn)
	if conn, err := net.DialTimeout("tcp", addr, outer); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dialled a cut proxy: %v, %v; want it refused", conn, err)
	}
	p.Heal()
	if p.Addr() != addr {
		t.Errorf("address %s after Heal, want %s", p.Addr(), addr)
	}
	again := dial(t, p)
	send(t, again, "2")
	want(t, again, "2")
}

func TestCutEndsSilentConnectionsAndTheirBytes(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	conn := dial(t, p)
	send(t, conn, "1")
	want(t, conn, "1")
	p.Silence()
	send(t, conn, "2")
	p.Cut()
	wantClosed(t, conn)
	p.Heal()
	again := dial(t, p)
	send(t, again, "3")
	want(t, again, "3")
	if got := e.received(); got != "13" {
		t.Errorf("the server got %q, want what was sent outside the silence", got)
	}
}

func TestBreakClosesPresentConnectionsOnly(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	send(t, conn, "1")
	want(t, conn, "1")
	p.Break()
	wantClosed(t, conn)
	again := dial(t, p)
	send(t, again, "2")
	want(t, again, "2")
}

func TestHoldRepliesOfTheFirstMatch(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	held, other := dial(t, p), dial(t, p)
	p.HoldReplies(contains("select"))
	send(t, held, "begin")
	want(t, held, "begin")
	send(t, held, "select 1")
	waitHeld(t, p)
	if got := e.received(); got != "beginselect 1" {
		t.Errorf("the server got %q when Held told, want the whole request", got)
	}
	wantNothing(t, held)
	send(t, other, "select 2") // the match is used up
	want(t, other, "select 2")
	p.Release()
	want(t, held, "select 1")
	send(t, held, "select 3")
	want(t, held, "select 3")
}

func TestHoldRequestsAndWhatFollows(t *testing.T) {
	t.Parallel()
	p, e := setup(t)
	held, other := dial(t, p), dial(t, p)
	p.HoldRequests(contains("beat"))
	send(t, held, "beat 1")
	waitHeld(t, p)
	send(t, held, ";")
	send(t, other, "beat 2")
	want(t, other, "beat 2")
	if got := e.received(); got != "beat 2" {
		t.Errorf("the server got %q, want only what was not held", got)
	}
	// The client gives up; what it had sent arrives all the same.
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	p.Release()
	eventually(t, "the held request at the server", func() bool { return e.received() == "beat 2beat 1;" })
}

func TestReleaseEndsAHoldThatCaughtNothing(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	p.HoldRequests(contains("beat"))
	p.HoldReplies(contains("beat"))
	p.Release()
	send(t, conn, "beat")
	want(t, conn, "beat")
}

func TestDelayKeepsBytesAWhile(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	const delay = 100 * time.Millisecond
	p.Delay(delay)
	began := time.Now()
	send(t, conn, "1")
	want(t, conn, "1")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("there and back took %v, want at least %v", took, 2*delay)
	}
}

func TestCloseEndsASilentProxy(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	conn := dial(t, p)
	p.Silence()
	send(t, conn, "1")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, conn)
	p.Heal() // must not open it again
	if _, err := net.DialTimeout("tcp", p.Addr(), outer); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialled a closed proxy: %v", err)
	}
}

func TestEndOfTheContextClosesTheProxy(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Listen(ctx, e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, p)
	send(t, conn, "1")
	want(t, conn, "1")
	cancel()
	wantClosed(t, conn)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
