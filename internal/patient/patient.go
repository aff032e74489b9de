// Package patient gives a server connections that put off what mostly need not be done at all. For each request net/http sets nine
// deadlines, each of which arms or stops a timer, and a client that is neither slow nor gone lives to see none of them. And behind each
// answer it asks the kernel at once for the next request, which is not there yet.
//
// It guarantees that a read or a write ends at the deadline that was asked for last, no earlier and no later, also when that is asked for while
// it is under way; and that the bytes are those of the connection below. Setting a deadline never fails: a connection that is closed says so
// when it is read or written.
package patient

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Listener gives a listener whose connections are patient.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c), nil
}

type conn struct {
	net.Conn
	wrote atomic.Bool // since it was last read

	mu      sync.Mutex
	in, out side // guarded by mu
}

func newConn(c net.Conn) *conn {
	now := time.Now()
	return &conn{Conn: c, in: side{opened: now, set: c.SetReadDeadline}, out: side{opened: now, set: c.SetWriteDeadline}}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		armed, err := c.begin(&c.in)
		if err != nil {
			return 0, err
		}
		if c.wrote.Load() {
			// The client has its answer, but hardly has the next request come. Let other connections have their turn first: with
			// luck it is there then, and need not be waited for.
			c.wrote.Store(false)
			runtime.Gosched()
		}
		n, err := c.Conn.Read(p)
		if !c.end(&c.in, armed, err) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (written int, err error) {
	for {
		armed, err := c.begin(&c.out)
		if err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		written += n
		c.wrote.Store(true)
		if !c.end(&c.out, armed, err) {
			return written, err
		}
	}
}

// WriteBuffers writes parts by one call to the system, where the connection below can, and takes from parts what was written.
func (c *conn) WriteBuffers(parts *net.Buffers) (written int64, err error) {
	for {
		armed, err := c.begin(&c.out)
		if err != nil {
			return written, err
		}
		n, err := parts.WriteTo(c.Conn)
		written += n
		c.wrote.Store(true)
		if !c.end(&c.out, armed, err) {
			return written, err
		}
	}
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.ask(&c.in, t) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.ask(&c.out, t) }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.ask(&c.in, t)
	return c.ask(&c.out, t)
}

// CloseWrite tells the client that nothing more comes, while what it sends can still be read: net/http ends a connection so whose
// request it has not read to the end.
func (c *conn) CloseWrite() error {
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return errors.ErrUnsupported
}
