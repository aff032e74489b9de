// Package onewrite lets net/http send an answer by one system call where it would make two: a server's connection gathers the
// header and the beginning of a body in 4 KiB and writes them, and then what is left of the body.
//
// It guarantees that the bytes and their order are those of net/http, and that nothing is held back beyond the call of Write that
// it comes from: whatever a handler does before or after that call, fails to do, or panics with, is sent as without it. Who uses
// neither Listener nor Context gets net/http's own writes.
package onewrite

import (
	"context"
	"errors"
	"io"
	"net"
)

const (
	// buffered is how much net/http gathers before it writes.
	buffered = 4 << 10
	// Least is the length from which a body leaves more than net/http gathers behind the first part, so that the rest is
	// written at once, and from there.
	Least = 2 * buffered
)

// conn is a connection that can hold one part back. All but Conn belongs to the goroutine of the handler: nothing else writes
// while a handler does.
type conn struct {
	net.Conn
	holding bool
	length  int            // of the part that is held
	part    [buffered]byte // the part
	both    [2][]byte      // for parts
	parts   net.Buffers    // of which WriteTo takes away
}

// Listener gives a listener whose connections can hold back.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

type connKey struct{}

// Context is an http.Server's ConnContext: it lets Write find the connection.
func Context(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// Write writes a part of a body, or all of it, to the ResponseWriter of the request with this context.
func Write(ctx context.Context, w io.Writer, body []byte) (int, error) {
	if len(body) < Least {
		return w.Write(body)
	}
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return w.Write(body)
	}
	c.holding = true
	defer c.release()
	return w.Write(body)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	switch {
	case !c.holding:
		return c.Conn.Write(p)
	case c.length == 0 && len(p) <= buffered:
		c.length = copy(c.part[:], p) // net/http uses its buffer again
		return len(p), nil
	case c.length == 0:
		return c.Conn.Write(p)
	}
	length := c.length
	c.length = 0
	c.both = [2][]byte{c.part[:length], p}
	c.parts = c.both[:]
	n, err := writeBuffers(c.Conn, &c.parts)
	c.both, c.parts = [2][]byte{}, nil
	return max(int(n)-length, 0), err
}

// writeBuffers writes both parts by one system call, also where another connection is in between that passes them on together.
func writeBuffers(to net.Conn, parts *net.Buffers) (int64, error) {
	if to, ok := to.(interface {
		WriteBuffers(*net.Buffers) (int64, error)
	}); ok {
		return to.WriteBuffers(parts)
	}
	return parts.WriteTo(to)
}

// release ends the holding back. An error is not lost: the next write meets it again.
func (c *conn) release() {
	c.holding = false
	if length := c.length; length > 0 {
		c.length = 0
		_, _ = c.Conn.Write(c.part[:length])
	}
}

// CloseWrite tells the client that nothing more comes, while what it sends can still be read: net/http ends a connection so whose
// request it has not read to the end.
func (c *conn) CloseWrite() error {
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return errors.ErrUnsupported
}
