package invalidate

import (
	"fmt"
	"strings"

	"walkey/internal/cache"
)

// template is a key with columns in braces, such as "material:{id}", compiled:
// text[0] column[0] text[1] column[1] … text[n].
type template struct {
	source  string
	text    []string
	columns []string
	raw     bool // the keys are other programs'
}

// parseTemplate compiles source. prefix is put in front of it as literal text.
func parseTemplate(prefix, source string) (template, error) {
	t := template{source: source}
	literal := prefix
	rest := source
	for {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.text = append(t.text, literal+rest)
			return t, nil
		}
		if rest[open] == '}' {
			return template{}, fmt.Errorf("%q: a } without its {", source)
		}
		end := strings.IndexAny(rest[open+1:], "{}")
		if end < 0 || rest[open+1+end] == '{' {
			return template{}, fmt.Errorf("%q: a { without its }; write {column}", source)
		}
		column := rest[open+1 : open+1+end]
		if column == "" || strings.TrimSpace(column) != column {
			return template{}, fmt.Errorf("%q: {%s} names no column; write {column}", source, column)
		}
		t.text = append(t.text, literal+rest[:open])
		t.columns = append(t.columns, column)
		literal = ""
		rest = rest[open+1+end+1:]
	}
}

// constant reports whether the key is the same for every row.
func (t template) constant() bool { return len(t.columns) == 0 }

// pattern is the glob of every key that the template can make.
func (t template) pattern() string {
	var b strings.Builder
	for i, text := range t.text {
		if i > 0 {
			b.WriteByte('*')
		}
		b.WriteString(cache.GlobEscape(text))
	}
	return b.String()
}
