package cdc

import "time"

// Batch is what came since the last Take. It belongs to the caller until it calls Release; the bytes of its values are
// part of it, so keep a copy of what must live longer.
type Batch struct {
	// Transactions are pieces of committed transactions in commit order. A transaction that changed no wanted table is
	// not among them: it only moves Position.
	Transactions []Transaction
	// Position says how far the stream has come: every transaction that committed at or before it has been delivered, in
	// this batch or an earlier one. It is the end of the last complete commit or the WAL end of a keepalive, whichever is
	// later, and never moves while a transaction is incomplete.
	Position LSN
	// Received is when the newest part of the batch was read from the connection.
	Received time.Time

	bytes int     // memory of the changes, for the bound of what waits
	slabs []*slab // one reference to each is held
}

// Transaction is one piece of a committed transaction. A small one comes whole; a large one comes in several pieces,
// one behind the other, with the same XID and Commit, and only the last of them is Complete.
type Transaction struct {
	// XID is the 32-bit id of the top-level transaction, whatever subtransaction wrote.
	XID uint32
	// Commit is where the commit record begins. It tells pieces of different transactions apart.
	Commit LSN
	// End is where the commit record ends: what is to be confirmed when the transaction is processed. Zero unless Complete.
	End LSN
	// CommitTime is the primary's clock when it committed.
	CommitTime time.Time
	// Complete marks the last piece, which may be without changes when earlier ones had some.
	Complete bool
	// Message is the content of the last transactional message under Options.MessagePrefix that came before the end of this
	// piece, of at most 256 bytes; longer ones are passed over. Anybody who may write can have sent it;
	// and where the transaction was streamed, a savepoint that was rolled back: the server does not tell whose it is.
	Message string
	// Changes are the changes of wanted tables in the order in which they were made.
	Changes []Change
}

// Kind is what a change did.
type Kind uint8

// The kinds of change.
const (
	Insert Kind = iota + 1
	Update
	Delete
	Truncate // of the whole table; no values
)

// String is the SQL word.
func (k Kind) String() string {
	switch k {
	case Insert:
		return "INSERT"
	case Update:
		return "UPDATE"
	case Delete:
		return "DELETE"
	case Truncate:
		return "TRUNCATE"
	default:
		return "UNKNOWN"
	}
}

// Change is one change of one row, or the truncation of one table.
type Change struct {
	Kind     Kind
	Relation *Relation
	// Old is the row before an update or delete, as far as Postgres sent it: nil when it sent nothing (an update under
	// REPLICA IDENTITY DEFAULT or INDEX that left the identity alone), else aligned with Relation.Wanted. Unless the
	// identity is FULL, columns outside it are Absent.
	Old []Value
	// New is the row after an insert or update, aligned with Relation.Wanted; nil otherwise.
	New []Value
}

// State says what is known of a value.
type State uint8

// The states of a value.
const (
	// Absent: Postgres did not send this column, or the table has none of that name. It is not NULL: it is unknown.
	Absent State = iota
	// Null: the value is NULL.
	Null
	// Unchanged: a large value stored out of line that an update did not touch; Postgres does not send it again. Under
	// REPLICA IDENTITY FULL, or when it belongs to the identity, Old has it.
	Unchanged
	// Text: the value is Value.Text.
	Text
)

// String names the state.
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Null:
		return "null"
	case Unchanged:
		return "unchanged"
	case Text:
		return "text"
	default:
		return "unknown"
	}
}

// Value is one column of a row in the text form of the session: UTF-8, ISO dates, UTC, hexadecimal bytea, shortest exact floats.
type Value struct {
	State State
	Text  []byte // when State is Text; part of the batch's memory
}

// Table names a table.
type Table struct{ Schema, Name string }

// String is schema.name, unquoted.
func (t Table) String() string { return t.Schema + "." + t.Name }

// Relation is the shape of a table as the stream described it, at one time. It never changes once delivered; after a
// DDL change the next change of the table carries a new one.
type Relation struct {
	OID   uint32
	Table // that it goes by: its own name, or what Options.Roots says
	// Identity is pg_class.relreplident: d(efault), f(ull), i(ndex) or n(othing).
	Identity byte
	// Columns are the columns that the publication sends, in the order of the table.
	Columns []Column
	// Wanted holds, for each name that Options.Columns gave, its index in Columns; -1 when the relation has no such column.
	Wanted []int

	own   Table    // its own name
	kept  []int    // for each of Columns: its first place among Wanted, or -1; nil when the table is not wanted
	again [][2]int // places of a column that is wanted more than once: the first, another
}

// Column is one column of a Relation.
type Column struct {
	Name string
	// Identity: part of the replica identity, so that the old value of it comes with a delete or an update of it.
	Identity bool
	TypeOID  uint32
}
