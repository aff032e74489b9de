package onewrite

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sunk is a connection that tells what arrives.
type sunk struct {
	net.Conn
	writes []int
}

func (s *sunk) Write(p []byte) (int, error) {
	s.writes = append(s.writes, len(p))
	return len(p), nil
}

// partly is a ResponseWriter below which each part is a write.
type partly struct {
	to     *conn
	parts  []int
	behind func(part int)
}

func (w partly) Write(p []byte) (int, error) {
	for i, length := range w.parts {
		if n, err := w.to.Write(p[:length]); n != length || err != nil {
			return 0, fmt.Errorf("%d of %d, %w", n, length, err)
		}
		w.behind(i)
	}
	return len(p), nil
}

func TestHeldBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		parts []int
		out   []int // how many writes have gone on behind each part, and in the end
	}{
		{"two", []int{buffered, Least}, []int{0, 2, 2}},
		{"one", []int{buffered}, []int{0, 1}},
		{"too long to be the first of two", []int{buffered + 1, 1}, []int{1, 1, 2}},
		{"three", []int{1, 1, 1}, []int{0, 2, 2, 3}},
		{"four", []int{1, 1, 1, 1}, []int{0, 2, 2, 4, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inner := &sunk{}
			c := &conn{Conn: inner}
			ctx := Context(t.Context(), c)
			var out []int
			w := partly{c, tt.parts, func(int) { out = append(out, len(inner.writes)) }}
			if _, err := Write(ctx, w, body(2*Least)); err != nil {
				t.Fatal(err)
			}
			out = append(out, len(inner.writes))
			if diff := cmp.Diff(tt.out, out); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.parts, inner.writes); diff != "" {
				t.Errorf("their lengths (-want +got):\n%s", diff)
			}
			if _, err := c.Write(nil); err != nil || len(inner.writes) != len(tt.parts)+1 {
				t.Errorf("a write behind it: %v, %v", inner.writes, err)
			}
		})
	}
}

// together is a connection that passes parts on together.
type together struct {
	sunk
	parts [][]byte
}

func (c *together) WriteBuffers(parts *net.Buffers) (n int64, err error) {
	for _, part := range *parts {
		c.parts, n = append(c.parts, bytes.Clone(part)), n+int64(len(part))
	}
	*parts = nil
	return n, nil
}

// A connection in between that can pass both parts on together is given them so.
func TestWrittenTogether(t *testing.T) {
	t.Parallel()
	inner := &together{}
	c := &conn{Conn: inner}
	if _, err := Write(Context(t.Context(), c), partly{c, []int{buffered, Least}, func(int) {}}, body(2*Least)); err != nil {
		t.Fatal(err)
	}
	want := [][]byte{body(2 * Least)[:buffered], body(2 * Least)[:Least]}
	if diff := cmp.Diff(want, inner.parts); diff != "" || len(inner.writes) != 0 {
		t.Errorf("parts (-want +got):\n%s\nand writes: %v", diff, inner.writes)
	}
}

// Without a connection of ours, and for what fits in fewer writes, Write is the ResponseWriter's own.
func TestNotHeldBack(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	if n, err := Write(context.Background(), rec, body(Least)); n != Least || err != nil || rec.Body.Len() != Least {
		t.Errorf("%d bytes, %v", n, err)
	}
	inner := &sunk{}
	c := &conn{Conn: inner}
	w := partly{c, []int{1, 1}, func(i int) {
		if len(inner.writes) != i+1 {
			t.Errorf("%d writes behind part %d", len(inner.writes), i)
		}
	}}
	if _, err := Write(Context(t.Context(), c), w, body(Least-1)); err != nil {
		t.Fatal(err)
	}
}
