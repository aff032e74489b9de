package invalidate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
)

// catalog is what Postgres says, at one moment, of the tables that rules name and of the publication.
type catalog struct {
	version     int          // such as 150018
	publication *publication // nil: there is none
	tables      map[cdc.Table]*tableFacts
}

// publication is a row of pg_publication with its members.
type publication struct {
	oid                                       uint32
	name                                      string
	allTables, viaRoot                        bool
	insert, update, delete, truncate, storedG bool              // storedG: stored generated columns are sent
	members                                   map[uint32]member // by relation
	schemas                                   map[uint32]uint32 // membership by schema
}

// member is a relation's own membership in a publication.
type member struct {
	oid      uint32   // of the membership: another one when it was dropped and added again
	filtered bool     // has a row filter
	columns  []string // nil: all
}

// tableFacts is a table with its partitions and children, which readers see as its rows.
type tableFacts struct {
	nodes   []node // the table itself first
	columns []columnFacts
}

func (f *tableFacts) top() *node { return &f.nodes[0] }

// node is a relation of a table's tree.
type node struct {
	oid         uint32
	name        cdc.Table
	depth       int
	kind        string // pg_class.relkind
	persistence string // pg_class.relpersistence
	identity    string // pg_class.relreplident
	file        uint32 // pg_class.relfilenode: another one after a rewrite or a truncation
	// ancestors are the relation itself and those that it is a partition of, nearest first; schemas are theirs.
	ancestors, schemas []uint32
	key                []string // columns of the replica identity; of no meaning when it is full
}

// stores reports whether the relation holds rows itself.
func (n *node) stores() bool { return n.kind != "p" }

// identifies reports whether the old value of a column comes with an update or delete.
func (n *node) identifies(column string) bool {
	return n.identity == "f" || slices.Contains(n.key, column)
}

// columnFacts is a column, with everything on which the text of an existing row's value depends.
type columnFacts struct {
	name      string
	generated string // "", "s" or "v"
	shape     string
}

const treeQuery = `
	WITH RECURSIVE tree(place, oid, depth) AS (
		SELECT w.place::int, c.oid, 0 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, place)
		JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
		UNION ALL
		SELECT t.place, i.inhrelid, t.depth + 1 FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid WHERE NOT i.inhdetachpending
	)`

const nodesQuery = treeQuery + `
	SELECT t.place, t.depth, c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text, c.relfilenode,
		coalesce(a.oids, ARRAY[c.oid]), coalesce(a.schemas, ARRAY[c.relnamespace]),
		ARRAY(
			SELECT att.attname::text FROM pg_index x JOIN pg_attribute att ON att.attrelid = x.indrelid
			WHERE x.indrelid = c.oid AND att.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
				AND (c.relreplident = 'd' AND x.indisprimary AND x.indimmediate OR c.relreplident = 'i' AND x.indisreplident)
			ORDER BY att.attname)
	FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (
		SELECT array_agg(u.oid ORDER BY p.place) AS oids, array_agg(u.relnamespace ORDER BY p.place) AS schemas
		FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS p(relid, place) JOIN pg_class u ON u.oid = p.relid
	) AS a
	ORDER BY t.place, t.depth, c.oid`

// The labels of an enum can be renamed, and the expression of a virtual column be replaced, without any row being written.
const columnsQuery = treeQuery + `
	SELECT t.place, att.attname::text, att.attgenerated::text,
		concat_ws(' ', att.attnum, att.atttypid, att.atttypmod, att.attgenerated,
			CASE WHEN att.attgenerated <> '' THEN (SELECT d.xmin::text FROM pg_attrdef d WHERE d.adrelid = att.attrelid AND d.adnum = att.attnum) END,
			(SELECT string_agg(e.enumlabel::text, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid IN (y.oid, y.typbasetype, y.typelem)))
	FROM tree t JOIN pg_attribute att ON att.attrelid = t.oid JOIN pg_type y ON y.oid = att.atttypid
	WHERE t.depth = 0 AND att.attnum > 0 AND NOT att.attisdropped
	ORDER BY t.place, att.attnum`

// glanceQuery gives one number that becomes another whenever something changes that the other queries ask for: each version
// of a row of the catalog has an xmin of its own.
func glanceQuery(version int) string {
	q := treeQuery + `, pub AS (SELECT oid, xmin FROM pg_publication WHERE pubname = $3), facts(f) AS (
		SELECT concat_ws(' ', 'class', t.place, c.oid, c.xmin) FROM tree t JOIN pg_class c ON c.oid = t.oid
		UNION ALL SELECT concat_ws(' ', 'ancestor', t.place, a.relid::oid) FROM tree t, pg_partition_ancestors(t.oid) AS a(relid) WHERE t.depth = 0
		UNION ALL SELECT concat_ws(' ', 'index', x.indexrelid, x.xmin) FROM tree t JOIN pg_index x ON x.indrelid = t.oid
		UNION ALL SELECT concat_ws(' ', 'column', att.attrelid, att.attnum, att.xmin) FROM tree t JOIN pg_attribute att ON att.attrelid = t.oid
			WHERE t.depth = 0 AND att.attnum > 0
		UNION ALL SELECT concat_ws(' ', 'expression', d.oid, d.xmin) FROM tree t JOIN pg_attrdef d ON d.adrelid = t.oid WHERE t.depth = 0
		UNION ALL SELECT concat_ws(' ', 'label', e.oid, e.xmin) FROM tree t JOIN pg_attribute att ON att.attrelid = t.oid
			JOIN pg_type y ON y.oid = att.atttypid JOIN pg_enum e ON e.enumtypid IN (y.oid, y.typbasetype, y.typelem)
			WHERE t.depth = 0 AND att.attnum > 0 AND NOT att.attisdropped
		UNION ALL SELECT concat_ws(' ', 'publication', oid, xmin) FROM pub
		UNION ALL SELECT concat_ws(' ', 'member', r.oid, r.xmin) FROM pub JOIN pg_publication_rel r ON r.prpubid = pub.oid`
	if version >= 150000 {
		q += `
		UNION ALL SELECT concat_ws(' ', 'schema', s.oid, s.xmin) FROM pub JOIN pg_publication_namespace s ON s.pnpubid = pub.oid`
	}
	return q + `)
		SELECT coalesce(sum(hashtextextended(f, 0)), 0)::text FROM facts`
}

// places gives the tables as two arrays for unnest.
func places(tables []cdc.Table) (schemas, names []string) {
	for _, t := range tables {
		schemas, names = append(schemas, t.Schema), append(names, t.Name)
	}
	return schemas, names
}

// readCatalog reads everything in one snapshot.
func readCatalog(ctx context.Context, conn *pgx.Conn, tables []cdc.Table, name string) (c *catalog, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback(context.WithoutCancel(ctx))) }()
	c = &catalog{tables: map[cdc.Table]*tableFacts{}}
	if err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&c.version); err != nil {
		return nil, fmt.Errorf("read the server's version: %w", err)
	}
	if c.publication, err = readPublication(ctx, tx, name, c.version); err != nil {
		return nil, fmt.Errorf("read publication %s: %w", name, err)
	}
	schemas, names := places(tables)
	rows, err := tx.Query(ctx, nodesQuery, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	var place int
	var n node
	_, err = pgx.ForEachRow(rows, []any{
		&place, &n.depth, &n.oid, &n.name.Schema, &n.name.Name, &n.kind, &n.persistence, &n.identity, &n.file, &n.ancestors, &n.schemas, &n.key,
	}, func() error {
		t := tables[place-1]
		if c.tables[t] == nil {
			c.tables[t] = &tableFacts{}
		}
		c.tables[t].nodes = append(c.tables[t].nodes, n)
		n.ancestors, n.schemas, n.key = nil, nil, nil // the next row's are others
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	rows, err = tx.Query(ctx, columnsQuery, schemas, names)
	if err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	var col columnFacts
	_, err = pgx.ForEachRow(rows, []any{&place, &col.name, &col.generated, &col.shape}, func() error {
		f := c.tables[tables[place-1]]
		f.columns = append(f.columns, col)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns: %w", err)
	}
	return c, nil
}

func readPublication(ctx context.Context, tx pgx.Tx, name string, version int) (*publication, error) {
	generated, filtered, columns := `'n'`, `false`, `NULL::text[]`
	if version >= 150000 {
		filtered = `r.prqual IS NOT NULL`
		columns = `CASE WHEN r.prattrs IS NOT NULL THEN
			ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = r.prrelid AND attnum = ANY (r.prattrs::int2[]) ORDER BY attname) END`
	}
	if version >= 180000 {
		generated = `pubgencols::text`
	}
	p := &publication{name: name, members: map[uint32]member{}, schemas: map[uint32]uint32{}}
	var stored string
	err := tx.QueryRow(ctx, `SELECT oid, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, `+generated+`
		FROM pg_publication WHERE pubname = $1`, name).
		Scan(&p.oid, &p.allTables, &p.viaRoot, &p.insert, &p.update, &p.delete, &p.truncate, &stored)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.storedG = stored == "s"
	rows, err := tx.Query(ctx, `SELECT r.prrelid, r.oid, `+filtered+`, `+columns+` FROM pg_publication_rel r WHERE r.prpubid = $1`, p.oid)
	if err != nil {
		return nil, err
	}
	var relation uint32
	var m member
	_, err = pgx.ForEachRow(rows, []any{&relation, &m.oid, &m.filtered, &m.columns}, func() error {
		p.members[relation] = m
		m.columns = nil
		return nil
	})
	if err != nil || version < 150000 {
		return p, err
	}
	rows, err = tx.Query(ctx, `SELECT pnnspid, oid FROM pg_publication_namespace WHERE pnpubid = $1`, p.oid)
	if err != nil {
		return nil, err
	}
	var schema, oid uint32
	_, err = pgx.ForEachRow(rows, []any{&schema, &oid}, func() error {
		p.schemas[schema] = oid
		return nil
	})
	return p, err
}

// published says under which relation's name the stream sends the changes of n, 0 when it does not send them, and by
// which membership.
func (p *publication) published(n *node) (as uint32, by string) {
	switch {
	case n.persistence != "p" || n.kind == "f":
		return 0, "" // neither unlogged tables nor foreign ones write WAL
	case p.allTables && p.viaRoot:
		return n.ancestors[len(n.ancestors)-1], "all"
	case p.allTables:
		return n.oid, "all"
	}
	for i, a := range n.ancestors {
		through := ""
		if m, ok := p.members[a]; ok {
			through = fmt.Sprintf("table %d %t %q", m.oid, m.filtered, m.columns)
		} else if s, ok := p.schemas[n.schemas[i]]; ok {
			through = fmt.Sprintf("schema %d", s)
		}
		switch {
		case through == "":
		case p.viaRoot:
			as, by = a, through // the topmost one that is published
		case as == 0:
			as, by = n.oid, through
		default:
			by += ", " + through
		}
	}
	return as, by
}

// roots says which rule each relation belongs to: the nearest one, for rules may name a table and a partition of it.
func (c *catalog) roots() map[uint32]cdc.Table {
	roots, depth := map[uint32]cdc.Table{}, map[uint32]int{}
	for t, f := range c.tables {
		for i := range f.nodes {
			n := &f.nodes[i]
			if d, known := depth[n.oid]; !known || n.depth < d {
				roots[n.oid], depth[n.oid] = t, n.depth
			}
		}
	}
	return roots
}

// sight is what the watch compares of a table: one text for each thing that may change, "" when the table does not exist.
type sight map[string]string

// Things that a sight tells of.
const (
	sightTable       = "table"       // another one has the name
	sightColumns     = "columns"     // added, dropped, retyped, labels renamed
	sightStorage     = "storage"     // rewritten or truncated
	sightPartitions  = "partitions"  // attached or detached; children likewise
	sightIdentity    = "identity"    // REPLICA IDENTITY
	sightPublication = "publication" // membership and flags
)

// sight describes a table as readers and the stream have it.
func (c *catalog) sight(t cdc.Table) sight {
	f := c.tables[t]
	if f == nil {
		return sight{}
	}
	var columns, storage, partitions, identity, published strings.Builder
	for _, col := range f.columns {
		fmt.Fprintf(&columns, "%q %s\n", col.name, col.shape)
	}
	if p := c.publication; p != nil {
		fmt.Fprintln(&published, p.oid, p.allTables, p.viaRoot, p.insert, p.update, p.delete, p.truncate)
	}
	for i := range f.nodes {
		n := &f.nodes[i]
		fmt.Fprintln(&storage, n.oid, n.file)
		fmt.Fprintln(&partitions, n.oid, n.kind, n.persistence)
		fmt.Fprintln(&identity, n.oid, n.identity, n.key)
		if c.publication != nil && n.stores() {
			as, by := c.publication.published(n)
			fmt.Fprintln(&published, n.oid, as, by)
		}
	}
	return sight{
		sightTable: fmt.Sprint(f.top().oid), sightColumns: columns.String(), sightStorage: storage.String(),
		sightPartitions: partitions.String(), sightIdentity: identity.String(), sightPublication: published.String(),
	}
}
