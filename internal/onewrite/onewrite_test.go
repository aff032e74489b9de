package onewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answering starts a server, with connections that hold back or without, and gives its address.
func answering(t *testing.T, held bool, h http.HandlerFunc) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	if held {
		listener, server.ConnContext = Listener(listener), Context
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// raw sends requests over one connection and gives all bytes that come back until the server closes it.
func raw(t *testing.T, addr, requests string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, requests); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// body is one of which every part differs from every other.
func body(length int) []byte {
	var b []byte
	for len(b) < length {
		b = append(b, strconv.Itoa(len(b))...)
	}
	return b[:length]
}

// Whatever a handler does, the client gets the very bytes that net/http sends by itself.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	const get, next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	sized := func(length, said int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(said))
			_, _ = Write(r.Context(), w, body(length))
		}
	}
	type row struct {
		name, requests string
		handler        http.HandlerFunc
	}
	rows := []row{
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + next, sized(Least, Least)},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", sized(Least, Least)},
		{"HTTP/1.0 kept alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", sized(Least, Least)},
		{"pipelined", get + get + next, sized(5*Least, 5*Least)},
		{"less than said", get, sized(Least, Least+1)},
		{"more than said", next, sized(Least+1, Least)},
		{"chunked", get + next, func(w http.ResponseWriter, r *http.Request) { _, _ = Write(r.Context(), w, body(Least)) }},
		{"error", get + next, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = Write(r.Context(), w, body(Least))
		}},
		{"304", get + next, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotModified)
			if _, err := Write(r.Context(), w, body(Least)); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		}},
		{"panic behind a part", get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = Write(r.Context(), w, body(Least))
			panic("as a test")
		}},
		{"parts", get + next, func(w http.ResponseWriter, r *http.Request) {
			for _, length := range []int{1, Least, 100, 2 * Least, Least - 1} {
				_, _ = Write(r.Context(), w, body(length))
				_ = http.NewResponseController(w).Flush()
				_, _ = w.Write(body(3 * length))
			}
		}},
		{"hijacked", get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = Write(r.Context(), w, body(Least))
			c, out, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = out.Write(body(100))
			_ = out.Flush()
			_, _ = c.Write(body(buffered))
			_ = c.Close()
		}},
	}
	for _, length := range []int{0, 1, buffered - 1, buffered, buffered + 1, Least - 1, Least, Least + 1, 45_000, 1 << 20} {
		rows = append(rows, row{fmt.Sprint(length), get + next, sized(length, length)})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dated := func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Date"] = []string{"Tue, 01 Jan 2030 00:00:00 GMT"}
				tt.handler(w, r)
			}
			want, got := raw(t, answering(t, false, dated), tt.requests), raw(t, answering(t, true, dated), tt.requests)
			if diff := cmp.Diff(want, got); diff != "" || got == "" {
				t.Errorf("%d bytes, want %d (-want +got):\n%.2000s", len(got), len(want), diff)
			}
		})
	}
}

// What is longer than the kernel takes at once waits for the client, and comes whole.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const length = 16 << 20
	wrote := make(chan error, 1)
	c := dial(t, answering(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(length))
		_, err := Write(r.Context(), w, body(length))
		wrote <- err
	}))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for part := int64(1); ; part = min(2*part, 1<<20) {
		_, err := io.CopyN(&got, c, part)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if _, answer, _ := bytes.Cut(got.Bytes(), []byte("\r\n\r\n")); !bytes.Equal(answer, body(length)) {
		t.Errorf("%d bytes came, %d of the body", got.Len(), len(answer))
	}
}

// A client that leaves in the middle is an error of the handler's Write, as without.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	const length = 16 << 20
	wrote := make(chan error, 1)
	c := dial(t, answering(t, true, func(w http.ResponseWriter, r *http.Request) {
		n, err := Write(r.Context(), w, body(length))
		if err != nil && n >= length {
			err = nil // it may not count what has not gone
		}
		wrote <- err
	}))
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err == nil {
		_, err = io.CopyN(io.Discard, c, 1)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err == nil {
		t.Error("no error, or everything counted as written")
	}
}

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
