package cdc

// What changed in the rows of tables.

// known reads the OID of a relation that must have been described, for a change that must be in a transaction. The
// result is nil when the reader has failed, and its kept is nil when the table is not wanted.
func (d *decoder) known(r *reader) (*Relation, uint32) {
	oid := r.uint32("the relation OID")
	d.inside(r) // only now, so that the error names the relation
	if r.failed {
		return nil, oid
	}
	relation := d.relations[oid]
	if d.block != nil {
		relation = d.block.relations[oid] // the server describes it in every stream
	}
	if relation == nil {
		r.failAt(r.at-4, "relation %d has not been described", oid)
	}
	return relation, oid
}

func (d *decoder) readInsert(r *reader) uint32 {
	d.readSub(r)
	relation, oid := d.known(r)
	if part := r.byte("the kind of row"); part != 'N' {
		r.failAt(r.at-1, "row kind 0x%02x where N is due", part)
	}
	row := d.readRow(r, relation, false)
	d.add(r, Change{Kind: Insert, Relation: relation, New: row})
	return oid
}

func (d *decoder) readUpdate(r *reader) uint32 {
	d.readSub(r)
	relation, oid := d.known(r)
	part := r.byte("the kind of row")
	var before []Value
	if part == 'K' || part == 'O' {
		before = d.readRow(r, relation, part == 'K')
		part = r.byte("the kind of row")
	}
	if part != 'N' {
		r.failAt(r.at-1, "row kind 0x%02x where N is due", part)
	}
	row := d.readRow(r, relation, false)
	d.add(r, Change{Kind: Update, Relation: relation, Old: before, New: row})
	return oid
}

func (d *decoder) readDelete(r *reader) uint32 {
	d.readSub(r)
	relation, oid := d.known(r)
	part := r.byte("the kind of row")
	if part != 'K' && part != 'O' {
		r.failAt(r.at-1, "row kind 0x%02x where K or O is due", part)
	}
	before := d.readRow(r, relation, part == 'K')
	d.add(r, Change{Kind: Delete, Relation: relation, Old: before})
	return oid
}

func (d *decoder) readTruncate(r *reader) uint32 {
	d.inside(r)
	d.readSub(r)
	n := int(r.uint32("the number of relations"))
	n = r.fits(n, 4, r.at-4, "the number of relations")
	if flags := r.byte("the flags"); flags > 3 {
		r.failAt(r.at-1, "flags 0x%02x where only 1 and 2 are defined", flags)
	}
	var oid uint32
	for range n {
		var relation *Relation
		relation, oid = d.known(r)
		if r.failed {
			break
		}
		d.add(r, Change{Kind: Truncate, Relation: relation})
	}
	return oid
}

// add appends the change unless reading it failed or its table is not wanted.
func (d *decoder) add(r *reader, c Change) {
	switch {
	case r.failed || c.Relation.kept == nil:
	case d.block == nil:
		d.build.add(c)
	case !d.block.lost:
		before := d.block.bytes
		d.block.add(d.sub, c)
		d.grow(d.block, before)
	}
}

// readRow reads one row and keeps its wanted columns. identity: only the columns of the replica identity were sent, the
// others say NULL and mean nothing.
func (d *decoder) readRow(r *reader, relation *Relation, identity bool) []Value {
	n := int(r.uint16("the number of columns"))
	if r.failed {
		return nil
	}
	if n != len(relation.Columns) {
		r.failAt(r.at-2, "a row of %d columns in a relation of %d", n, len(relation.Columns))
		return nil
	}
	var row []Value
	if relation.kept != nil {
		if d.block != nil {
			row = d.scratch(len(relation.Wanted))
		} else {
			row = d.build.values(len(relation.Wanted))
		}
	}
	for i := range n {
		var v Value
		switch kind := r.byte("the kind of a value"); kind {
		case 'n':
			v.State = Null
		case 'u':
			v.State = Unchanged
		case 't':
			v.State = Text
			v.Text = r.take(int(r.uint32("the length of a value")), "a value")
		default:
			r.failAt(r.at-1, "value kind 0x%02x is none of n, u, t", kind)
		}
		if r.failed {
			return nil
		}
		if row == nil || relation.kept[i] < 0 || identity && !relation.Columns[i].Identity {
			continue
		}
		if v.State == Text && d.block == nil {
			v.Text = d.build.copy(v.Text) // inside of a block it is packed before the next message
		}
		row[relation.kept[i]] = v
	}
	for _, pair := range relation.again {
		row[pair[1]] = row[pair[0]]
	}
	return row
}
