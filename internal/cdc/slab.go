package cdc

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// A slab holds the changes of many small transactions, or a part of a large one. It is counted: the builder holds one
// reference while it writes there, and each batch one while it has not been released.
const (
	slabChanges = 2048
	slabValues  = 4096
	slabText    = 128 << 10

	changeSize = int(unsafe.Sizeof(Change{}))
	valueSize  = int(unsafe.Sizeof(Value{}))

	transactionSize = int(unsafe.Sizeof(Transaction{}))
	slabSize        = slabChanges*changeSize + slabValues*valueSize + slabText

	// A piece of a transaction is handed over when it has grown to one of these, so that a transaction of any size
	// passes through in constant memory. A piece's changes always fit one slab.
	pieceBytes   = 1 << 20
	pieceChanges = slabChanges
)

type slab struct {
	references atomic.Int32
	changes    []Change // the used part of an array that never moves; so are the next two
	values     []Value
	text       []byte
}

// pool keeps slabs and batches for re-use. The zero value keeps none.
type pool struct {
	mu      sync.Mutex
	most    int // slabs to keep
	slabs   []*slab
	batches []*Batch
}

// slab gives an empty slab with one reference.
func (p *pool) slab() *slab {
	p.mu.Lock()
	var s *slab
	if n := len(p.slabs); n > 0 {
		s = p.slabs[n-1]
		p.slabs[n-1] = nil
		p.slabs = p.slabs[:n-1]
	}
	p.mu.Unlock()
	if s == nil {
		s = &slab{
			changes: make([]Change, 0, slabChanges),
			values:  make([]Value, 0, slabValues),
			text:    make([]byte, 0, slabText),
		}
	}
	s.references.Store(1)
	return s
}

// drop gives one reference back.
func (p *pool) drop(s *slab) {
	if s.references.Add(-1) > 0 {
		return
	}
	// Cleared, so that it keeps neither relations nor large values alive, and that a value used after Release is
	// absent instead of another row's.
	clear(s.changes)
	clear(s.values)
	s.changes, s.values, s.text = s.changes[:0], s.values[:0], s.text[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.slabs) < p.most {
		p.slabs = append(p.slabs, s)
	}
}

func (p *pool) batch() *Batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.batches)
	if n == 0 {
		return &Batch{}
	}
	b := p.batches[n-1]
	p.batches = p.batches[:n-1]
	return b
}

func (p *pool) release(b *Batch) {
	slabs := b.slabs
	clear(b.Transactions)
	*b = Batch{Transactions: b.Transactions[:0]}
	for _, s := range slabs {
		p.drop(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.batches) < 4 {
		p.batches = append(p.batches, b)
	}
}

// builder gathers the changes of the open piece.
type builder struct {
	pool    *pool
	current *slab   // one reference is the builder's own; nil before the first change
	start   int     // where in current.changes the piece begins
	earlier []*slab // where else values of the piece are; one reference to each
	bytes   int     // of the piece
}

// room makes sure that the current slab takes one more change, n more values and text bytes.
func (b *builder) room(changes, values, text int) {
	s := b.current
	if s != nil && len(s.changes)+changes <= cap(s.changes) && len(s.values)+values <= cap(s.values) && len(s.text)+text <= cap(s.text) {
		return
	}
	next := b.pool.slab()
	if s != nil {
		if piece := s.changes[b.start:]; len(piece) > 0 {
			// The piece has to stay in one slice: its changes move on, their values stay, and so does the reference.
			next.changes = append(next.changes, piece...)
			b.earlier = append(b.earlier, s)
		} else if b.bytes > 0 {
			b.earlier = append(b.earlier, s) // values of a change that is not yet appended
		} else {
			b.pool.drop(s)
		}
	}
	b.current, b.start = next, 0
}

// values gives n values, all absent.
func (b *builder) values(n int) []Value {
	b.bytes += n * valueSize
	if n > slabValues/4 {
		return make([]Value, n)
	}
	b.room(0, n, 0)
	s := b.current
	used := len(s.values)
	s.values = s.values[:used+n]
	return s.values[used : used+n : used+n]
}

// copy keeps text beyond the life of the message.
func (b *builder) copy(text []byte) []byte {
	n := len(text)
	b.bytes += n
	if n > slabText/4 {
		return append(make([]byte, 0, n), text...)
	}
	b.room(0, 0, n)
	s := b.current
	used := len(s.text)
	s.text = append(s.text, text...)
	return s.text[used : used+n : used+n]
}

func (b *builder) add(c Change) {
	b.bytes += changeSize
	b.room(1, 0, 0)
	b.current.changes = append(b.current.changes, c)
}

// length is the number of changes in the open piece.
func (b *builder) length() int {
	if b.current == nil {
		return 0
	}
	return len(b.current.changes) - b.start
}

// full: the piece is to be handed over before it grows.
func (b *builder) full() bool {
	return b.bytes >= pieceBytes || b.length() >= pieceChanges
}

// cut ends the piece. into takes over a reference to each slab that it needs.
func (b *builder) cut(into []*slab) (changes []Change, slabs []*slab, bytes int) {
	bytes = b.bytes
	b.bytes = 0
	if b.length() == 0 {
		return nil, into, 0
	}
	into = append(into, b.earlier...)
	clear(b.earlier)
	b.earlier = b.earlier[:0]
	s := b.current
	end := len(s.changes)
	changes = s.changes[b.start:end:end]
	b.start = end
	if len(into) == 0 || into[len(into)-1] != s {
		s.references.Add(1)
		into = append(into, s)
	}
	return changes, into, bytes
}
