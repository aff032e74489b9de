package cdc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// postgresEpoch is where Postgres begins to count, in Unix seconds.
const postgresEpoch = 946684800

func postgresTime(microseconds int64) time.Time {
	return time.Unix(postgresEpoch+microseconds/1e6, microseconds%1e6*1e3).UTC()
}

// reader takes one message apart. The first failure sticks: everything read after it is zero, so that a decoder may
// read on and look at the error once. Nothing it returns reaches beyond the message, and no count from the wire is
// believed before it is compared with what is left.
type reader struct {
	message []byte
	at      int
	reason  string // of the first failure
	failed  bool
}

func (r *reader) fail(format string, args ...any) {
	if !r.failed {
		r.failed = true
		r.reason = fmt.Sprintf(format, args...)
	}
}

// failAt fails with the offset of what was wrong, which has been read already.
func (r *reader) failAt(at int, format string, args ...any) {
	if !r.failed {
		r.fail(format, args...)
		r.at = at
	}
}

func (r *reader) left() int { return len(r.message) - r.at }

// take gives the next n bytes, which alias the message. The offset stays where it was when they are not there.
func (r *reader) take(n int, what string) []byte {
	if r.failed {
		return nil
	}
	if n < 0 || n > r.left() {
		r.fail("%s needs %d bytes, %d are left", what, n, r.left())
		return nil
	}
	b := r.message[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) byte(what string) byte {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64(what string) uint64 {
	if b := r.take(8, what); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// xid reads the id of a transaction.
func (r *reader) xid() uint32 {
	xid := r.uint32("the transaction id")
	if xid == 0 {
		r.failAt(max(0, r.at-4), "the transaction id is 0")
	}
	return xid
}

// fits takes a count that was read from the wire, as n things of at least least bytes each, and fails with the offset at
// when so many cannot be there.
func (r *reader) fits(n, least, at int, what string) int {
	if n < 0 || n > r.left()/least {
		r.failAt(at, "%s is %d, but %d bytes are left", what, n, r.left())
	}
	if r.failed {
		return 0
	}
	return n
}

// time reads a time as Postgres sends it: microseconds since the year 2000.
func (r *reader) time(what string) time.Time {
	return postgresTime(int64(r.uint64(what)))
}

// text reads a string that ends with a zero byte.
func (r *reader) text(what string) string { return string(r.bytes(what)) }

// bytes is text without a copy.
func (r *reader) bytes(what string) []byte {
	if r.failed {
		return nil
	}
	n := bytes.IndexByte(r.message[r.at:], 0)
	if n < 0 {
		r.fail("%s has no end", what)
		return nil
	}
	s := r.message[r.at : r.at+n : r.at+n]
	r.at += n + 1
	return s
}

// end fails unless the whole message has been read.
func (r *reader) end() {
	if !r.failed && r.left() != 0 {
		r.fail("%d bytes too many", r.left())
	}
}
