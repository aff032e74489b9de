package cache

import "time"

// A room is where a shard's copies lie: in chunks, so that a hundred thousand copies are a few hundred objects for the collector, and
// one costs some ninety bytes beside its own.
type room struct {
	limit  int // bytes
	chunk  int // bytes of a chunk, unless one copy needs more
	bytes  int // taken
	born   uint64
	chunks []*chunk // nil where one was given back
	newest *chunk   // takes what comes
}

// A chunk is filled once, from front to back. What was handed out of it stays as it is: the collector frees the chunk when nobody has
// any of it any more.
type chunk struct {
	number  uint32 // in room.chunks
	born    uint64
	text    []byte // of each record: key, field, head, body
	records []record
	live    int // bytes of text that belong to copies
}

// place is where a record lies.
type place struct{ chunk, record uint32 }

// A record is what is known of one copy.
type record struct {
	hash    uint64 // of the address
	keyHash uint64
	expires time.Duration
	text    uint32 // where it begins in the chunk
	key     uint32 // the lengths of its parts
	field   uint32
	head    uint32
	body    uint32
	used    uint32 // atomic: 1 when it was handed out since its room was last wanted
	state   seen
	isField bool
}

func (r *record) size() int { return int(r.key) + int(r.field) + int(r.head) + int(r.body) }

const (
	recordSize         = 56 + 30 // with its share of shard.places
	minChunk, maxChunk = 4 << 10, 256 << 10
	chunksPerRoom      = 16 // about
)

func (m *room) open(limit int) {
	m.limit, m.chunk = limit, min(max(limit/chunksPerRoom, minChunk), maxChunk)
}

func (m *room) empty() { m.bytes, m.chunks, m.newest = 0, nil, nil }

// fits says whether a copy of a size can be added.
func (m *room) fits(size int) bool {
	if m.newest != nil && cap(m.newest.text)-len(m.newest.text) >= size && m.bytes+recordSize <= m.limit {
		return true
	}
	return m.bytes+max(m.chunk, size)+recordSize <= m.limit
}

// add makes room for a copy, whether it fits or not, and gives the bytes to be filled.
func (m *room) add(r record) (place, []byte) {
	size := r.size()
	c := m.newest
	if c == nil || cap(c.text)-len(c.text) < size {
		c = m.begin(max(m.chunk, size))
	}
	r.text = uint32(len(c.text))
	c.text = c.text[:len(c.text)+size]
	c.live += size
	c.records = append(c.records, r)
	m.bytes += recordSize
	return place{c.number, uint32(len(c.records) - 1)}, c.text[r.text:]
}

// begin makes a chunk the newest one.
func (m *room) begin(size int) *chunk {
	number := len(m.chunks)
	for i, c := range m.chunks {
		if c == nil {
			number = i
			break
		}
	}
	if number == len(m.chunks) {
		m.chunks = append(m.chunks, nil)
	}
	m.born++
	former := m.newest
	m.newest = &chunk{number: uint32(number), born: m.born, text: make([]byte, 0, size)}
	m.chunks[number] = m.newest
	m.bytes += size
	if former != nil && former.live == 0 {
		m.remove(former)
	}
	return m.newest
}

// oldest is the chunk to be given up when room is wanted; nil when there is only the newest.
func (m *room) oldest() (oldest *chunk) {
	for _, c := range m.chunks {
		if c != nil && c != m.newest && (oldest == nil || c.born < oldest.born) {
			oldest = c
		}
	}
	return oldest
}

// sparse is a chunk of which a quarter, or more, belongs to copies that were dropped; nil when there is none.
func (m *room) sparse() *chunk {
	for _, c := range m.chunks {
		if c != nil && c != m.newest && c.live <= len(c.text)/4*3 {
			return c
		}
	}
	return nil
}

func (m *room) remove(c *chunk) {
	m.chunks[c.number] = nil
	m.bytes -= cap(c.text) + len(c.records)*recordSize
}

// free gives back what a copy took, at once where nothing else is left in its chunk.
func (m *room) free(c *chunk, r *record) {
	if c.live -= r.size(); c.live == 0 && c != m.newest {
		m.remove(c)
	}
}

// parts are what lies under a record.
func (c *chunk) parts(r *record) (key, field, head, body []byte) {
	key = c.text[r.text : r.text+r.key]
	at := r.text + r.key
	field = c.text[at : at+r.field]
	at += r.field
	head = c.text[at : at+r.head : at+r.head]
	at += r.head
	return key, field, head, c.text[at : at+r.body : at+r.body]
}
