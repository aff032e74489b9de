package cdc

import "slices"

// What the server says of tables before it sends their rows.

func (d *decoder) readRelation(r *reader) uint32 {
	d.readSub(r)
	oid := r.uint32("the relation OID")
	relation := &Relation{OID: oid}
	relation.own.Schema = r.text("the schema")
	if relation.own.Schema == "" {
		relation.own.Schema = "pg_catalog" // how pgoutput abbreviates it
	}
	relation.own.Name = r.text("the name")
	relation.Identity = r.byte("the replica identity")
	switch relation.Identity {
	case 'd', 'f', 'i', 'n':
	default:
		r.failAt(r.at-1, "replica identity 0x%02x is none of d, f, i, n", relation.Identity)
	}
	const least = 1 + 1 + 4 + 4 // flags, an empty name, type, modifier
	n := int(r.uint16("the number of columns"))
	n = r.fits(n, least, r.at-2, "the number of columns")
	relation.Columns = make([]Column, 0, n)
	for range n {
		flags := r.byte("the flags of a column")
		if flags > 1 {
			r.failAt(r.at-1, "flags 0x%02x of a column where only 1 is defined", flags)
		}
		c := Column{Identity: flags == 1, Name: r.text("the name of a column"), TypeOID: r.uint32("the type of a column")}
		r.uint32("the type modifier of a column")
		if r.failed {
			return oid
		}
		relation.Columns = append(relation.Columns, c)
	}
	if r.failed || r.left() > 0 {
		return oid
	}
	// The server repeats itself after every invalidation of its own cache. The same shape stays the same Relation, so
	// that what was worked out from it stays valid.
	d.count++
	known := d.relations[oid]
	if known == nil || !known.sameShape(relation) {
		known = d.place(relation)
	}
	if d.block != nil {
		d.describe(d.block, known)
	} else {
		d.relations[oid], d.described[oid] = known, d.count
	}
	return oid
}

// place finds the name that the relation goes by, and works out what is wanted of it.
func (d *decoder) place(r *Relation) *Relation {
	r.Table = r.own
	if d.placed != nil {
		if root, listed := (*d.placed)[r.OID]; listed {
			r.Table = root
		}
	}
	r.want(d.columns(r.Table))
	return r
}

// replace makes the relations that are known follow other entries of roots. What was delivered, or is held, stays as it was.
func (d *decoder) replace(entries *map[uint32]Table) {
	d.placed = entries
	d.replaceIn(d.relations)
	for _, h := range d.streams {
		d.replaceIn(h.relations)
	}
}

func (d *decoder) replaceIn(relations map[uint32]*Relation) {
	for oid, known := range relations {
		relations[oid] = d.place(&Relation{OID: known.OID, own: known.own, Identity: known.Identity, Columns: known.Columns})
	}
}

func (r *Relation) sameShape(o *Relation) bool {
	return r.own == o.own && r.Identity == o.Identity && slices.Equal(r.Columns, o.Columns)
}

// want works out which values are kept. No names at all mean that the table is not wanted.
func (r *Relation) want(names []string) {
	if names == nil {
		return
	}
	r.Wanted = make([]int, len(names))
	r.kept = make([]int, len(r.Columns))
	for i := range r.kept {
		r.kept[i] = -1
	}
	for place, name := range names {
		column := slices.IndexFunc(r.Columns, func(c Column) bool { return c.Name == name })
		r.Wanted[place] = column
		if column < 0 {
			continue
		}
		if first := r.kept[column]; first >= 0 {
			r.again = append(r.again, [2]int{first, place})
			continue
		}
		r.kept[column] = place
	}
}
