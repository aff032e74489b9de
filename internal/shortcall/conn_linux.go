package shortcall

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// mostAtOnce bounds one call, as package net does.
const mostAtOnce = 1 << 30

// Conn gives c with reads and writes by short calls. Everything else, deadlines among it, is c's own.
func Conn(c net.Conn) net.Conn {
	under, ok := c.(interface {
		net.Conn
		syscall.Conn
	})
	if !ok {
		return c
	}
	raw, err := under.SyscallConn()
	if err != nil {
		return c
	}
	short := &conn{Conn: c, under: under, raw: raw}
	short.in.try, short.out.try = short.in.read, short.out.write
	return short
}

type conn struct {
	net.Conn
	under   syscall.Conn
	raw     syscall.RawConn
	in, out half
}

// half is one direction of a connection.
type half struct {
	mu    sync.Mutex // one call at a time
	bytes []byte     // guarded by mu, like the following: what is to be read into, or written
	done  int
	errno syscall.Errno
	try   func(fd uintptr) (over bool) // read or write; kept, so that no call allocates
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.under.SyscallConn() }

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.in.call(b, c.raw.Read)
	switch {
	case err != nil:
		return n, c.explain("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.out.call(b, c.raw.Write)
	if err != nil {
		return n, c.explain("write", err)
	}
	return n, nil
}

// explain is an error as package net gives it.
func (c *conn) explain(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
	}
	return err
}

// call waits, by means of wait, until try is over. An Errno is given as it is.
func (h *half) call(b []byte, wait func(func(uintptr) bool) error) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes, h.done, h.errno = b, 0, 0
	err := wait(h.try)
	h.bytes = nil
	if h.errno != 0 {
		return h.done, h.errno
	}
	return h.done, err
}

func (h *half) read(fd uintptr) (over bool) {
	n, errno := h.short(syscall.SYS_READ, fd)
	switch errno {
	case 0:
		h.done = n
	case syscall.EAGAIN:
		return false
	default:
		h.errno = errno
	}
	return true
}

func (h *half) write(fd uintptr) (over bool) {
	for h.done < len(h.bytes) {
		n, errno := h.short(syscall.SYS_WRITE, fd)
		switch errno {
		case 0:
			h.done += n
		case syscall.EAGAIN:
			return false
		default:
			h.errno = errno
			return true
		}
	}
	return true
}

// short makes a call for what is left of bytes, again when a signal came.
func (h *half) short(trap, fd uintptr) (int, syscall.Errno) {
	rest := h.bytes[h.done:]
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(rest))), uintptr(min(len(rest), mostAtOnce)))
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
