package cdc

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"
)

// Options say what to follow, and how.
type Options struct {
	// DatabaseURL leads to the primary, directly (a pooler gets in the way of replication). It is an ordinary URL; the
	// settings of a replication connection are added here.
	DatabaseURL string
	// Slot names the replication slot: up to 63 of a–z, 0–9 and _. Publication names the publication.
	Slot, Publication string
	// Tables is what the publication is made for when it is missing, and what it must contain. At least one.
	Tables []Table
	// Columns gives the columns of a table that a Change carries, in this order. A nil result means that the table is
	// not wanted: its changes are not delivered. It is called when the stream describes the table, from a goroutine of
	// the stream.
	Columns func(Table) []string
	// MessagePrefix asks for transactional messages of pg_logical_emit_message under this prefix: see Transaction.Message.
	// Empty: the server sends no messages at all.
	MessagePrefix string
	// Roots is optional; see there.
	Roots *Roots
	// NewSlot drops the slot when it exists and makes it anew, which skips what was not confirmed: the way out of
	// ErrPublicationMissing.
	NewSlot bool
	// SenderTimeout is wal_sender_timeout of this connection: after so long the server gives a dead client up, and the
	// slot becomes free. Default 10 s.
	SenderTimeout time.Duration
	// DecodingWorkMem is logical_decoding_work_mem of a connection without streaming, in Postgres' notation. Default 256MB.
	DecodingWorkMem string
	// Streaming asks the server to send what large transactions change before they commit, so that less is left to be sent
	// at their commit. It is held here, and delivered when they have committed, as ever. Session.Streams says whether the
	// stream does so: one that begins far behind does not, since what has committed already would only be held up.
	Streaming bool
	// StreamingWorkMem is logical_decoding_work_mem of a connection with streaming: when all open transactions have changed
	// so much, the largest is streamed. Default 8MB.
	StreamingWorkMem string
	// StreamBytes bounds the memory of what is held of open transactions. When it is reached, the largest is given up, and the
	// stream ends with a TooLargeError if it commits. Default 64 MiB.
	StreamBytes int
	// BatchBytes bounds the memory of the changes that wait to be taken; beyond it nothing is read from the server. It
	// can be overrun by one piece of about 1 MiB, or by one larger row. Default 16 MiB.
	BatchBytes int
	// Early is optional; see there.
	Early Early
	// OnWait is told what Open waits for, again whenever that changes, by Open's own goroutine. Default: the logger is told.
	OnWait func(Wait)
	// Logger is optional.
	Logger *zap.Logger
}

// Early hears of transactions before they can be taken, in the goroutine that reads them: its methods must not block.
type Early interface {
	// Committed is told of a transaction that came whole, or of the last piece of one. It must not keep t or any part of it.
	Committed(t *Transaction)
	// Pause is called when everything that has come in so far was told, before more is waited for.
	Pause()
}

// Wait says what Open is waiting for.
type Wait struct {
	Reason string // one of the constants below
	Detail string // who or what, for people
}

// What Open can wait for.
const (
	WaitSlotHeld     = "another connection holds the slot"
	WaitTransactions = "open transactions must end before the slot can be made"
	WaitTables       = "tables do not exist yet"
	WaitSetup        = "another instance is making the publication or the slot"
)

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// complete fills in the defaults and says everything that is wrong.
func (o Options) complete() (Options, error) {
	var wrong []error
	if !slotName.MatchString(o.Slot) {
		wrong = append(wrong, fmt.Errorf("slot name %q is not made of 1 to 63 of a-z, 0-9 and _", o.Slot))
	}
	if o.Publication == "" || len(o.Publication) > 63 {
		wrong = append(wrong, fmt.Errorf("publication name %q is not 1 to 63 bytes long", o.Publication))
	}
	if len(o.Tables) == 0 {
		wrong = append(wrong, errors.New("no tables to follow"))
	}
	if o.Columns == nil {
		wrong = append(wrong, errors.New("no columns to follow"))
	}
	if o.SenderTimeout < 0 || o.SenderTimeout > 0 && o.SenderTimeout < 100*time.Millisecond {
		wrong = append(wrong, fmt.Errorf("sender timeout %s is shorter than 100ms", o.SenderTimeout))
	}
	if len(wrong) > 0 {
		return o, &SetupError{Problem: errors.Join(wrong...).Error()}
	}
	o.SenderTimeout = cmp.Or(o.SenderTimeout, 10*time.Second)
	o.DecodingWorkMem = cmp.Or(o.DecodingWorkMem, "256MB")
	o.StreamingWorkMem = cmp.Or(o.StreamingWorkMem, "8MB")
	if o.StreamBytes <= 0 {
		o.StreamBytes = 64 << 20
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 16 << 20
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.OnWait == nil {
		o.OnWait = func(w Wait) {
			o.Logger.Info("waiting", zap.String("for", w.Reason), zap.String("detail", w.Detail))
		}
	}
	return o, nil
}
