package onewrite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
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

// The half of a connection that the server writes can be closed alone, so that a client has the whole answer to a request that was not
// read to the end.
func TestCloseWrite(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := dial(t, l.Addr().String())
	accepted, err := Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	_, err = io.WriteString(accepted, "answer")
	if err = errors.Join(err, accepted.(interface{ CloseWrite() error }).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	rest := make([]byte, len("rest"))
	if _, err = io.WriteString(c, "rest"); err == nil {
		_, err = io.ReadFull(accepted, rest)
	}
	if string(rest) != "rest" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	pipe, _ := net.Pipe()
	if err := (&conn{Conn: pipe}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a connection without halves: %v", err)
	}
}
