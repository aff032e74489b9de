package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
	"walkey/internal/invalidate"
)

// How much is known of a row.
const (
	RowRead    = "read"     // selected from the table
	RowMissing = "missing"  // the table has no such row now
	RowNotRead = "not read" // the role may not select it, or Postgres could not be asked
)

// Row is the row that was asked about.
type Row struct {
	State   string             `json:"state"`
	Why     string             `json:"why,omitempty"` // of RowNotRead
	Columns map[string]*string `json:"columns"`       // null is NULL

	columns []invalidate.RowColumn
}

// ErrRow says that the row was not named rightly.
var ErrRow = errors.New("no row is named")

// column is what the catalog says of one.
type column struct {
	name, kind string // kind is the type, as SQL writes it
	oid        uint32
	key        bool // of the primary key
	readable   bool
}

// readRow finds out which row of a table values name, either of its primary key in order or as column=value, and reads the
// columns that the rules use where the role may. Without a connection it takes column=value alone.
func readRow(ctx context.Context, conn *pgx.Conn, unreachable error, rules *invalidate.Rules, t cdc.Table, values []string) (Row, error) {
	if conn == nil {
		row := Row{State: RowNotRead, Why: "Postgres could not be asked: " + unreachable.Error()}
		for _, pair := range values {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return row, fmt.Errorf("%w: Postgres could not be asked for the primary key of %s (%w); name it as column=value", ErrRow, t, unreachable)
			}
			row.columns = append(row.columns, invalidate.RowColumn{Name: name, Value: &value})
		}
		row.export()
		return row, nil
	}
	columns, err := readColumns(ctx, conn, t)
	if err != nil {
		return Row{}, err
	}
	where, err := nameRow(t, columns, values)
	if err != nil {
		return Row{}, err
	}
	row := Row{columns: where}
	var wanted []column
	for _, c := range columns {
		if c.key || slices.Contains(rules.Columns(t), c.name) {
			wanted = append(wanted, c)
		}
	}
	for _, c := range wanted {
		if !c.readable {
			row.State, row.Why = RowNotRead, fmt.Sprintf("the role may not select column %s; what follows is from the values given", c.name)
			row.export()
			return row, nil
		}
	}
	return row, row.selectFrom(ctx, conn, t, columns, wanted)
}

// nameRow takes values for the columns of the primary key, or for those that they name.
func nameRow(t cdc.Table, columns []column, values []string) (where []invalidate.RowColumn, err error) {
	var keys []string
	for _, c := range columns {
		if c.key {
			keys = append(keys, c.name)
		}
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%w: give the value of %s, or column=value", ErrRow, orElse(strings.Join(keys, ", "), "a column"))
	}
	for i, text := range values {
		name, value, pair := strings.Cut(text, "=")
		at := slices.IndexFunc(columns, func(c column) bool { return pair && c.name == name })
		if at < 0 { // a value of the key, with or without an = in it
			if len(values) != len(keys) {
				return nil, fmt.Errorf("%w: %q is not column=value with a column of %s, and its primary key has %d columns (%s), not %d", ErrRow, text, t, len(keys), strings.Join(keys, ", "), len(values))
			}
			value = text
			at = slices.IndexFunc(columns, func(c column) bool { return c.name == keys[i] })
		}
		where = append(where, invalidate.RowColumn{Name: columns[at].name, OID: columns[at].oid, Value: &value})
	}
	return where, nil
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func readColumns(ctx context.Context, conn *pgx.Conn, t cdc.Table) (columns []column, err error) {
	rows, err := conn.Query(ctx, `
		SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypid,
			EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])),
			has_column_privilege(c.oid, a.attnum, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY array_position(i.indkey::int2[], a.attnum), a.attnum`, t.Schema, t.Name)
	if err != nil {
		return nil, fmt.Errorf("ask for the columns of %s: %w", t, err)
	}
	var c column
	_, err = pgx.ForEachRow(rows, []any{&c.name, &c.kind, &c.oid, &c.key, &c.readable}, func() error {
		columns = append(columns, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the columns of %s: %w", t, err)
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("%w: there is no table %s in this database; write schema.table", ErrRow, t)
	}
	return columns, nil
}

// selectFrom reads the wanted columns, in the text form of the stream.
func (r *Row) selectFrom(ctx context.Context, conn *pgx.Conn, t cdc.Table, all, wanted []column) error {
	var selected, conditions []string
	for _, c := range wanted {
		selected = append(selected, pgx.Identifier{c.name}.Sanitize())
	}
	var parameters [][]byte
	for i, c := range r.columns {
		at := slices.IndexFunc(all, func(a column) bool { return a.name == c.Name })
		conditions = append(conditions, fmt.Sprintf("%s = $%d::text::%s", pgx.Identifier{c.Name}.Sanitize(), i+1, all[at].kind))
		parameters = append(parameters, []byte(*c.Value))
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s LIMIT 2", strings.Join(selected, ", "),
		pgx.Identifier{t.Schema, t.Name}.Sanitize(), strings.Join(conditions, " AND "))
	// Text results come from the types' own output functions, as in the stream: a cast would make true of t.
	found := conn.PgConn().ExecParams(ctx, sql, parameters, nil, nil, nil).Read()
	if found.Err != nil {
		return fmt.Errorf("%w: select it from %s: %w", ErrRow, t, found.Err)
	}
	switch len(found.Rows) {
	case 0:
		r.State = RowMissing
	case 1:
		r.State, r.columns = RowRead, nil
		for i, value := range found.Rows[0] {
			c := invalidate.RowColumn{Name: wanted[i].name, OID: wanted[i].oid}
			if value != nil {
				text := string(value)
				c.Value = &text
			}
			r.columns = append(r.columns, c)
		}
	default:
		return fmt.Errorf("%w: more than one row of %s has these values; name its primary key", ErrRow, t)
	}
	r.export()
	return nil
}

func (r *Row) export() {
	r.Columns = map[string]*string{}
	for _, c := range r.columns {
		r.Columns[c.Name] = c.Value
	}
}
