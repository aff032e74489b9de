package cdc

import (
	"maps"
	"sync/atomic"
)

// Roots says under which table's name the changes of a relation are delivered: a partition's under its root's, a table's
// under the name that it is known by although it was renamed a moment ago. A relation that is not in it goes by the name
// that the stream gives. It may be replaced while a stream uses it; changes that are decoded later follow the new one. The
// zero value has no entries.
type Roots struct {
	tables atomic.Pointer[map[uint32]Table]
}

// Store replaces all entries, by relation OID.
func (r *Roots) Store(tables map[uint32]Table) {
	tables = maps.Clone(tables)
	r.tables.Store(&tables)
}

// load gives the present entries; the pointer is another one after each Store.
func (r *Roots) load() *map[uint32]Table {
	if r == nil {
		return nil
	}
	return r.tables.Load()
}
