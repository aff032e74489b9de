package api

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Unreachable tells whether an error means that the database does not answer, or not now, rather than that it was asked
// something wrong.
func Unreachable(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case strings.HasPrefix(server.Code, "08"), // connection exceptions
			strings.HasPrefix(server.Code, "53"),  // too many connections, out of memory or disk
			strings.HasPrefix(server.Code, "57P"): // shutting down, starting up, crashed
			return true
		}
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed)
}

// connectionLost tells whether an error means that a connection which worked before is gone.
func connectionLost(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false // there was none
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(server.Code, "57P")
	}
	if network, ok := errors.AsType[net.Error](err); ok {
		return !network.Timeout()
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
