package cdc

import (
	"errors"
	"fmt"
	"strings"
)

// Why a stream ended, or could not begin. All but ErrClosed are mended by opening again after a pause, unless said
// otherwise; errors.Is finds them under the server's own words.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the stream is closed")
	// ErrPublicationMissing: at the slot's position the publication did not exist (it was dropped, or made later than
	// the slot). Changes may have been missed, and the slot will never get past it: open with Options.NewSlot.
	ErrPublicationMissing = errors.New("the publication did not exist at the slot's position")
	// ErrSlotInvalid: the server gave the slot's WAL up. Open makes a new slot.
	ErrSlotInvalid = errors.New("the replication slot has been invalidated")
	// ErrSlotMissing: the slot is gone. Open makes a new one.
	ErrSlotMissing = errors.New("the replication slot does not exist")
	// ErrSlotHeld: another connection has the slot. Open waits for it.
	ErrSlotHeld = errors.New("the replication slot is held by another connection")
	// ErrTerminated: the server ended the connection on purpose: its shutdown, an administrator or a taker of the slot, an invalidated slot.
	ErrTerminated = errors.New("the server terminated the replication connection")
	// ErrServerEnded: the server ended the stream in good order, as it does when it shuts down.
	ErrServerEnded = errors.New("the server ended the stream")
	// ErrServerSilent: nothing was heard for one and a half times Options.SenderTimeout though a reply had been asked for.
	ErrServerSilent = errors.New("the server is silent")
	// ErrNotPrimary: the server is a standby. After a failover the address may soon lead to the new primary.
	ErrNotPrimary = errors.New("the server is a standby, not the primary")
)

// SetupError is what a person must mend before Open can succeed. Trying again alone does not help.
type SetupError struct {
	// Problem says what is wrong.
	Problem string
	// SQL mends it, run by somebody who may; empty when SQL is not what it takes.
	SQL string
	// Cause is the server's answer, when there was one.
	Cause error
}

// Error gives the problem, the server's words and the SQL.
func (e *SetupError) Error() string {
	var b strings.Builder
	b.WriteString(e.Problem)
	if e.Cause != nil {
		fmt.Fprintf(&b, " (%v)", e.Cause)
	}
	if e.SQL != "" {
		fmt.Fprintf(&b, "; to mend it: %s", e.SQL)
	}
	return b.String()
}

// Unwrap gives the server's answer.
func (e *SetupError) Unwrap() error { return e.Cause }

// TooLargeError ends a stream when a transaction has committed of which more came before than Options.StreamBytes let be
// held. Nothing is lost: opened again without Options.Streaming, the stream brings it from the server, which has it still.
type TooLargeError struct {
	XID   uint32
	End   LSN // of its commit record: once the stream's Position has reached it, it has come
	Bound int // bytes
}

// Error names the transaction and the bound.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("transaction %d, which ended at %s, changed more before it committed than the %d bytes that are held", e.XID, e.End, e.Bound)
}

// DecodeError is a message of the stream that is not what the protocol allows. The stream stops at it: skipping it
// would lose a change.
type DecodeError struct {
	// Message is the type byte of the message, 0 when it was empty.
	Message byte
	// Offset is where in the message reading stopped, from its type byte on.
	Offset int
	// Relation is the OID that the message named, 0 when it has none or reading did not come so far; Table its name if known.
	Relation uint32
	Table    Table
	// LSN is the commit position of the transaction that it came in, else the position that came with the message.
	LSN LSN
	// Reason says what was wrong there.
	Reason string
}

// Error names message, offset, relation, position and reason.
func (e *DecodeError) Error() string {
	relation := "no relation"
	if e.Relation != 0 {
		relation = fmt.Sprintf("relation %d", e.Relation)
		if e.Table != (Table{}) {
			relation += " (" + e.Table.String() + ")"
		}
	}
	return fmt.Sprintf("decode %s message at offset %d, %s, position %s: %s", MessageName(e.Message), e.Offset, relation, e.LSN, e.Reason)
}

// MessageName names a pgoutput message by its type byte, for people.
func MessageName(kind byte) string {
	switch kind {
	case 'B':
		return "Begin"
	case 'C':
		return "Commit"
	case 'O':
		return "Origin"
	case 'R':
		return "Relation"
	case 'Y':
		return "Type"
	case 'I':
		return "Insert"
	case 'U':
		return "Update"
	case 'D':
		return "Delete"
	case 'T':
		return "Truncate"
	case 'M':
		return "Message"
	case 'S':
		return "Stream Start"
	case 'E':
		return "Stream Stop"
	case 'c':
		return "Stream Commit"
	case 'A':
		return "Stream Abort"
	case 'p':
		return "Stream Prepare"
	case 'b':
		return "Begin Prepare"
	case 'P':
		return "Prepare"
	case 'K':
		return "Commit Prepared"
	case 'r':
		return "Rollback Prepared"
	case 0:
		return "empty"
	default:
		return fmt.Sprintf("unknown (%q)", rune(kind))
	}
}
