package shortcall

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair gives both ends of a TCP connection, the first with short calls.
func pair(t *testing.T) (short net.Conn, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	plain, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	short = Conn(plain)
	t.Cleanup(func() { _, _ = short.Close(), accepted.Close() })
	return short, accepted.(*net.TCPConn)
}

// What does not fit into the kernel's buffers comes whole and in order, in both directions at a time.
func TestLargeInBothDirections(t *testing.T) {
	t.Parallel()
	short, other := pair(t)
	want := make([]byte, 32<<20)
	_, _ = rand.Read(want)
	var all sync.WaitGroup
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"written by short calls", short, other}, {"read by short calls", other, short}} {
		all.Go(func() {
			if n, err := way.from.Write(want); n != len(want) || err != nil {
				t.Errorf("%s: wrote %d of %d bytes: %v", way.name, n, len(want), err)
			}
		})
		all.Go(func() {
			got := make([]byte, len(want))
			if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: other bytes came, or %v", way.name, err)
			}
		})
	}
	all.Wait()
}

// An end and a failure are what package net says of them.
func TestErrors(t *testing.T) {
	t.Parallel()
	b := make([]byte, 10)
	for _, c := range []struct {
		name string
		act  func(short net.Conn, other *net.TCPConn) error
		want error
	}{
		{"the other side ends", func(short net.Conn, other *net.TCPConn) error {
			_ = other.Close()
			_, err := short.Read(b)
			return err
		}, io.EOF},
		{"the other side resets, reading", func(short net.Conn, other *net.TCPConn) error {
			_, _ = other.SetLinger(0), other.Close()
			_, err := short.Read(b)
			return err
		}, syscall.ECONNRESET},
		{"the other side resets, writing", func(short net.Conn, other *net.TCPConn) error {
			_, _ = other.SetLinger(0), other.Close()
			_, _ = short.Read(b)
			_, err := short.Write(b)
			return err
		}, syscall.EPIPE},
		{"a deadline is over, reading", func(short net.Conn, _ *net.TCPConn) error {
			_ = short.SetReadDeadline(time.Now())
			_, err := short.Read(b)
			return err
		}, os.ErrDeadlineExceeded},
		{"a deadline ends a read that waits", func(short net.Conn, _ *net.TCPConn) error {
			time.AfterFunc(10*time.Millisecond, func() { _ = short.SetReadDeadline(time.Unix(1, 0)) })
			_, err := short.Read(b)
			return err
		}, os.ErrDeadlineExceeded},
		{"a deadline is over, writing", func(short net.Conn, _ *net.TCPConn) error {
			_ = short.SetWriteDeadline(time.Now())
			_, err := short.Write(b)
			return err
		}, os.ErrDeadlineExceeded},
		{"closed before a read", func(short net.Conn, _ *net.TCPConn) error {
			_ = short.Close()
			_, err := short.Read(b)
			return err
		}, net.ErrClosed},
		{"closed while a read waits", func(short net.Conn, _ *net.TCPConn) error {
			time.AfterFunc(10*time.Millisecond, func() { _ = short.Close() })
			_, err := short.Read(b)
			return err
		}, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			short, other := pair(t)
			err := c.act(short, other)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want == os.ErrDeadlineExceeded {
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() {
					t.Errorf("%v does not say that it is a timeout", err)
				}
			}
		})
	}
}

// A connection can be used again after a deadline has ended a read.
func TestAfterADeadline(t *testing.T) {
	t.Parallel()
	short, other := pair(t)
	b := make([]byte, 10)
	_ = short.SetReadDeadline(time.Unix(1, 0))
	if _, err := short.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	_ = short.SetReadDeadline(time.Time{})
	if _, err := other.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if n, err := short.Read(b); err != nil || string(b[:n]) != "late" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

// What is no socket of the system's stays as it is.
func TestOthersStayAsTheyAre(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if Conn(a) != a {
		t.Error("a pipe was changed")
	}
}

func TestNoAllocations(t *testing.T) {
	short, other := pair(t)
	b := make([]byte, 4)
	n := testing.AllocsPerRun(100, func() {
		_, err1 := short.Write(b)
		_, err2 := io.ReadFull(other, b)
		_, err3 := other.Write(b)
		_, err4 := short.Read(b)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Error(err)
		}
	})
	if n > 0 {
		t.Errorf("%.1f allocations", n)
	}
}
