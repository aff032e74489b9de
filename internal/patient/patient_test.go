package patient

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is a limit that a test waits for.
const short = 30 * time.Millisecond

// serve starts a server on patient connections and gives its address.
func serve(t *testing.T, server *http.Server) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- server.Serve(Listener(l)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// client is one that sends what it likes, when it likes.
type client struct {
	net.Conn
	answers *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &client{c, bufio.NewReader(c)}
}

func (c *client) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request and reads the answer.
func (c *client) ask() error {
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return errors.Join(err, answer.Body.Close())
}

// answered gives a client that has had an answer. The limits of the server may be short enough to cut one that is as fast as it can.
func answered(t *testing.T, addr string) *client {
	t.Helper()
	for {
		c := dial(t, addr)
		if c.ask() == nil {
			return c
		}
		if t.Context().Err() != nil {
			t.Fatal("no answer came in time")
		}
	}
}

// closed reads until the server closes the connection.
func (c *client) closed(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c.answers); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was not closed")
	}
}

func nothing(http.ResponseWriter, *http.Request) {}

// Each limit of a server ends the connection of a client that is too slow, also where a longer one was armed for the request before.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const long = time.Hour
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		c := answered(t, serve(t, &http.Server{Handler: http.HandlerFunc(nothing), ReadHeaderTimeout: short, ReadTimeout: long, WriteTimeout: long, IdleTimeout: long}))
		c.send(t, "GET / HTTP/1.1\r\nHo")
		c.closed(t)
	})
	t.Run("first header", func(t *testing.T) {
		t.Parallel()
		c := dial(t, serve(t, &http.Server{Handler: http.HandlerFunc(nothing), ReadHeaderTimeout: short, IdleTimeout: long}))
		c.closed(t)
	})
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		read := make(chan error, 1)
		c := answered(t, serve(t, &http.Server{ReadTimeout: short, IdleTimeout: long, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				_, err := io.ReadAll(r.Body)
				read <- err
			}
		})}))
		c.send(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf ")
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading the body: %v", err)
		}
		c.closed(t)
	})
	t.Run("reader", func(t *testing.T) {
		t.Parallel()
		wrote := make(chan error, 1)
		c := dial(t, serve(t, &http.Server{ReadTimeout: long, WriteTimeout: short, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 64<<20))
			wrote <- err
		})}))
		c.send(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing the answer: %v", err)
		}
		c.closed(t)
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		c := answered(t, serve(t, &http.Server{Handler: http.HandlerFunc(nothing), ReadHeaderTimeout: long, ReadTimeout: long, IdleTimeout: short}))
		c.closed(t)
	})
}

// A handler's own limit holds in the middle of a request, and is over when it is lifted.
func TestLimitOfAHandler(t *testing.T) {
	t.Parallel()
	read := make(chan error, 1)
	c := answered(t, serve(t, &http.Server{IdleTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			return
		}
		control := http.NewResponseController(w)
		err := control.SetReadDeadline(time.Now().Add(short))
		var body []byte
		if err == nil {
			body, err = io.ReadAll(r.Body)
		}
		if string(body) != "half " || !errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("read %q, %w", body, err)
		} else {
			err = nil
		}
		read <- errors.Join(err, control.SetReadDeadline(time.Time{}))
	})}))
	c.send(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf ")
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// A client that leaves ends the context of its request, whatever was answered before on the connection.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}, 1), make(chan struct{})
	c := answered(t, serve(t, &http.Server{ReadTimeout: time.Hour, WriteTimeout: time.Hour, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		entered <- struct{}{}
		<-r.Context().Done()
		close(left)
	})}))
	c.send(t, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-left
}

// A write that the client takes slowly goes on beyond the deadline of an answer before, and comes whole.
func TestSlowButInTime(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	wrote := make(chan error, 1)
	addr := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.URL.Path == "/" {
			_ = control.SetWriteDeadline(time.Now().Add(short))
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(time.Hour))
		_, err := w.Write(body)
		wrote <- err
	})})
	c := answered(t, addr)
	over := time.NewTimer(short)
	c.send(t, "GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	<-over.C // the kernel has taken what it can, and the first deadline is over
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(answer.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(body), err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
