package cache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A shard holds the copies of some keys.
type shard struct {
	mu      sync.RWMutex
	closed  bool
	pending map[Address]*pendingCopy
	places  map[uint64]place               // by the hash of an address
	fields  map[uint64]map[uint64]struct{} // the hashes of addresses of a hash's fields, by that of their key
	room    room
}

func (s *shard) open(limit int) {
	s.pending = make(map[Address]*pendingCopy)
	s.room.open(limit)
	s.empty()
}

// empty forgets all copies. The caller holds mu, or nobody else has the shard yet.
func (s *shard) empty() {
	s.places, s.fields = make(map[uint64]place), make(map[uint64]map[uint64]struct{})
	s.room.empty()
}

func (s *shard) get(at *Address, now time.Duration, seen *sight) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.places[at.hash]
	if !ok {
		return false
	}
	c := s.room.chunks[p.chunk]
	r := &c.records[p.record]
	key, field, head, body := c.parts(r)
	if now >= r.expires || r.isField != at.isField || string(key) != at.key || string(field) != at.field {
		return false
	}
	if atomic.LoadUint32(&r.used) == 0 {
		atomic.StoreUint32(&r.used, 1)
	}
	seen.state, seen.local = r.state, true
	switch r.state {
	case seenValue:
		seen.value.head, seen.value.body = head, body
	case seenLease, seenMalformed:
		seen.stored = string(body)
	}
	return true
}

// await gives the reading of an address that is under way, or nil, and then the caller is to read it.
func (s *shard) await(at Address, expires time.Duration) *pendingCopy {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if p := s.pending[at]; p != nil {
		return p
	}
	s.pending[at] = &pendingCopy{expires: expires, done: make(chan struct{})}
	return nil
}

// settle ends the reading of an address, and gives it if there was one. What it has found is kept.
func (s *shard) settle(at *Address, found *rueidis.RedisMessage, now time.Duration) *pendingCopy {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[*at]
	if p == nil {
		return nil
	}
	delete(s.pending, *at)
	if found != nil {
		s.keep(at, found, p.expires, now)
	}
	return p
}

// keep keeps what was read under an address. The caller holds mu.
func (s *shard) keep(at *Address, found *rueidis.RedisMessage, expires, now time.Duration) {
	s.drop(at.hash)
	s.compact()
	var seen sight
	var stored []byte
	if !found.IsNil() {
		var err error
		if stored, err = found.AsBytes(); err != nil {
			return // a type that is not ours
		}
		seen.take(stored, at, nil)
	}
	head := len(seen.value.head)
	r := record{
		hash: at.hash, keyHash: at.keyHash, expires: expires, state: seen.state, isField: at.isField,
		key: uint32(len(at.key)), field: uint32(len(at.field)), head: uint32(head), body: uint32(len(stored) - head),
	}
	if s.makeRoom(r.size(), now) {
		text := s.put(r)
		text = text[copy(text, at.key):]
		text = text[copy(text, at.field):]
		copy(text, stored)
	}
}

// put takes a copy into the index, and gives the bytes to be filled.
func (s *shard) put(r record) (text []byte) {
	s.places[r.hash], text = s.room.add(r)
	if r.isField {
		all := s.fields[r.keyHash]
		if all == nil {
			all = make(map[uint64]struct{})
			s.fields[r.keyHash] = all
		}
		all[r.hash] = struct{}{}
	}
	return text
}

// makeRoom sees to it that what comes next finds room, and says whether that can be.
func (s *shard) makeRoom(size int, now time.Duration) bool {
	if size > s.room.limit/2 {
		return false // one copy shall not displace all others
	}
	for !s.room.fits(size) {
		oldest := s.room.oldest()
		if oldest == nil {
			break // there is nothing to give up
		}
		s.vacate(oldest, func(r *record) bool { return now < r.expires && r.used != 0 })
	}
	return true
}

// compact wins back what was dropped, where that is much. The caller holds mu.
func (s *shard) compact() {
	for sparse := s.room.sparse(); sparse != nil; sparse = s.room.sparse() {
		s.vacate(sparse, func(*record) bool { return true })
	}
}

// vacate gives a chunk up, and moves the copies that are to stay. The caller holds mu.
func (s *shard) vacate(c *chunk, stays func(*record) bool) {
	for i := range c.records {
		r := &c.records[i]
		if p, ok := s.places[r.hash]; !ok || p != (place{c.number, uint32(i)}) {
			continue // it was dropped
		}
		s.forget(r)
		if stays(r) {
			r.used = 0
			copy(s.put(*r), c.text[r.text:int(r.text)+r.size()])
		}
	}
	s.room.remove(c) // not before: another chunk with its number would make what was dropped look alive
}

// drop drops the copy of an address by its hash. The caller holds mu.
func (s *shard) drop(hash uint64) {
	p, ok := s.places[hash]
	if !ok {
		return
	}
	c := s.room.chunks[p.chunk]
	r := &c.records[p.record]
	s.forget(r)
	s.room.free(c, r)
}

// forget takes a copy out of the index.
func (s *shard) forget(r *record) {
	delete(s.places, r.hash)
	if r.isField {
		all := s.fields[r.keyHash]
		delete(all, r.hash)
		if len(all) == 0 {
			delete(s.fields, r.keyHash)
		}
	}
}

// dropKey drops the copies of a string key, or of all fields of a hash.
func (s *shard) dropKey(keyHash uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(keyHash)
	for hash := range s.fields[keyHash] {
		s.drop(hash)
	}
	s.compact()
}

func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty()
}

// close forgets everything for good, and gives the readings that were under way.
func (s *shard) close() map[Address]*pendingCopy {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.empty()
	pending := s.pending
	s.pending = nil
	return pending
}
