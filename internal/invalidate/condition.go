package invalidate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"walkey/internal/cdc"
)

// condition is a rule's `when`: an expression of the expr language over the
// columns of a row, such as `is_active && material_type != "draft"`.
type condition struct {
	source  string
	program *vm.Program
	columns []string // sorted
}

func compileCondition(source string) (*condition, error) {
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("when %q: %w", source, err)
	}
	names := identifiers{}
	ast.Walk(&tree.Node, names)
	if len(names) == 0 {
		return nil, fmt.Errorf("when %q: names no column", source)
	}
	program, err := expr.Compile(source, expr.AllowUndefinedVariables())
	if err != nil {
		return nil, fmt.Errorf("when %q: %w", source, err)
	}
	return &condition{source: source, program: program, columns: slices.Sorted(maps.Keys(names))}, nil
}

// identifiers collects the names that an expression reads.
type identifiers map[string]bool

// Visit implements ast.Visitor.
func (n identifiers) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok {
		n[id.Value] = true
	}
}

// holds evaluates the condition for a row. A row of which a column is not known,
// or for which the expression has no truth value, counts as holding: a delete too
// many costs a load, a delete too few costs the truth.
func (c *condition) holds(rel *cdc.Relation, wanted []string, row []cdc.Value) bool {
	env := make(map[string]any, len(c.columns))
	for _, name := range c.columns {
		i, found := slices.BinarySearch(wanted, name)
		if !found || rel.Wanted[i] < 0 {
			return true
		}
		v := row[i]
		switch v.State {
		case cdc.Text:
			env[name] = typed(rel.Columns[rel.Wanted[i]].TypeOID, string(v.Text))
		case cdc.Null:
			env[name] = nil
		default:
			return true
		}
	}
	result, err := expr.Run(c.program, env)
	if err != nil {
		return true
	}
	if result == nil { // NULL is not true
		return false
	}
	truth, ok := result.(bool)
	return truth || !ok
}

// Type OIDs of pg_type.dat whose text form is not compared as text.
const (
	oidBool, oidInt8, oidInt2, oidInt4        = 16, 20, 21, 23
	oidFloat4, oidFloat8, oidNumeric   uint32 = 700, 701, 1700
)

// typed gives a column's text the type that an expression expects of it.
func typed(oid uint32, text string) any {
	switch oid {
	case oidBool:
		return text == "t"
	case oidInt2, oidInt4, oidInt8:
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	case oidFloat4, oidFloat8, oidNumeric:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	}
	return text
}
