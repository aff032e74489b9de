package patient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Requests of many connections at once, several on each, and some sent before the answer to the one before: each gets its own answer.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	server := &http.Server{
		ReadHeaderTimeout: time.Hour, ReadTimeout: 2 * time.Hour, WriteTimeout: time.Hour, IdleTimeout: time.Hour,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }),
	}
	addr := serve(t, server)
	var clients sync.WaitGroup
	for n := range 16 {
		c := dial(t, addr)
		clients.Go(func() {
			for i := range 200 {
				var requests, want []string
				for k := range 1 + i%3 {
					path := fmt.Sprintf("/%d/%d/%d", n, i, k)
					requests, want = append(requests, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"), append(want, path)
				}
				if _, err := io.WriteString(c, strings.Join(requests, "")); err != nil {
					t.Error(err)
					return
				}
				for _, path := range want {
					answer, err := http.ReadResponse(c.answers, nil)
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(answer.Body)
					if err = errors.Join(err, answer.Body.Close()); err != nil || string(body) != path {
						t.Errorf("%q for %s, %v", body, path, err)
						return
					}
				}
			}
		})
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil { // it closes the idle ones, which wait in a read
		t.Error(err)
	}
}

// Parts that are written together arrive in order, whole.
func TestWriteBuffers(t *testing.T) {
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
	head, body := []byte("head"), bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	wrote := make(chan error, 1)
	go func() {
		parts := net.Buffers{head, body}
		n, err := accepted.(*conn).WriteBuffers(&parts)
		if err == nil && (n != int64(len(head)+len(body)) || len(parts) != 0) {
			err = fmt.Errorf("%d bytes written, %d parts left", n, len(parts))
		}
		wrote <- errors.Join(err, accepted.Close())
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, append(head, body...)) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
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
