package invalidate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// Rules say which keys a change of a row deletes. They are immutable.
type Rules struct {
	tables map[cdc.Table]*tableRule
	prefix string // of all keys that are not `raw`
	// fingerprint changes when the rules, or the prefix of their keys, change.
	fingerprint string
}

// tableRule is what the rules say of one table.
type tableRule struct {
	table     cdc.Table
	templates []template // full key names, prefix included
	// changed names the columns of which one must have changed for an UPDATE to
	// count; empty means that every UPDATE does.
	changed []string
	when    *condition // nil: every row counts
	// wanted is every column that the rule reads, sorted; the order of the values
	// in a cdc.Change.
	wanted   []string
	patterns []string // the glob of each template
}

// rulesFile is the YAML form of the rules.
type rulesFile struct {
	Tables map[string]struct {
		Keys    []string `yaml:"keys"`
		Raw     []string `yaml:"raw"`
		Columns []string `yaml:"columns"`
		When    string   `yaml:"when"`
	} `yaml:"tables"`
}

// builtIn are the rules that hold without a rules file.
const builtIn = `
tables:
  public.materials:
    keys: [materials_list_active, "material:{id}", "page:materials"]
  public.editors:
    keys: ["user_profile:lang:{language}:user_id:{id}"]
`

// LoadRules reads the rules file at path, or gives the built-in rules when path
// is empty. prefix is the first part of every key (CACHE_PREFIX). The error names
// every mistake of the file.
func LoadRules(path, prefix string) (*Rules, error) {
	if path == "" {
		return ParseRules([]byte(builtIn), prefix)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the rules file: %w", err)
	}
	rules, err := ParseRules(source, prefix)
	if err != nil {
		return nil, fmt.Errorf("rules file %s: %w", path, err)
	}
	return rules, nil
}

// ParseRules compiles rules from their YAML form.
func ParseRules(source []byte, prefix string) (*Rules, error) {
	var file rulesFile
	if err := yaml.UnmarshalWithOptions(source, &file, yaml.Strict()); err != nil {
		return nil, err
	}
	if len(file.Tables) == 0 {
		return nil, errors.New("no tables: write `tables:` and under it a table with its keys")
	}
	rules := &Rules{tables: map[cdc.Table]*tableRule{}, prefix: cache.FullKey(prefix, "")}
	var problems []error
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(file.Tables)) {
		entry := file.Tables[name]
		fmt.Fprintf(hash, "%q %q %q %q %q %q\n", prefix, name, entry.Keys, entry.Raw, entry.Columns, entry.When)
		table, err := parseTable(name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if _, twice := rules.tables[table]; twice {
			problems = append(problems, fmt.Errorf("table %s stands twice", table))
			continue
		}
		rule := &tableRule{table: table, changed: entry.Columns}
		complain := func(err error) { problems = append(problems, fmt.Errorf("table %s: %w", name, err)) }
		for _, key := range entry.Keys {
			if err := checkKey(key); err != nil {
				complain(err)
				continue
			}
			rule.add(rules.prefix, key, false, complain)
		}
		for _, key := range entry.Raw {
			if err := checkRaw(prefix, key); err != nil {
				complain(err)
				continue
			}
			rule.add("", key, true, complain)
		}
		if len(entry.Keys)+len(entry.Raw) == 0 {
			complain(errors.New("no keys: name at least one under `keys` or `raw`"))
		}
		if entry.When != "" {
			if rule.when, err = compileCondition(entry.When); err != nil {
				complain(err)
			}
		}
		rule.finish()
		rules.tables[table] = rule
	}
	rules.fingerprint = hex.EncodeToString(hash.Sum(nil)[:8])
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return rules, nil
}

func (r *tableRule) add(prefix, key string, raw bool, complain func(error)) {
	t, err := parseTemplate(prefix, key)
	if err != nil {
		complain(err)
		return
	}
	t.raw = raw
	r.templates = append(r.templates, t)
}

// finish derives what follows from the templates, columns and condition.
func (r *tableRule) finish() {
	wanted := map[string]bool{}
	for _, t := range r.templates {
		for _, c := range t.columns {
			wanted[c] = true
		}
		r.patterns = append(r.patterns, t.pattern())
	}
	for _, c := range r.changed {
		wanted[c] = true
	}
	if r.when != nil {
		for _, c := range r.when.columns {
			wanted[c] = true
		}
	}
	r.wanted = slices.Sorted(maps.Keys(wanted))
}

// checkKey refuses keys that no change may take: sessions are authority, not
// cache, and Walkey's own state must outlive every delete.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("an empty key")
	case strings.HasPrefix(key, "session:"), strings.HasPrefix(key, "walkey:"):
		return fmt.Errorf("%q: keys under session: and walkey: are never deleted by a rule; choose another name", key)
	case strings.HasPrefix(key, "{"):
		return fmt.Errorf("%q: a key must begin with fixed text, or a TRUNCATE would delete every key", key)
	}
	return nil
}

func checkRaw(prefix, key string) error {
	if rest, ours := strings.CutPrefix(key, cache.FullKey(prefix, "")); ours {
		return checkKey(rest)
	}
	return checkKey(key)
}

// parseTable reads schema.table, or table alone for schema public. Names with
// dots or upper-case letters are written in double quotes, as in SQL.
func parseTable(name string) (cdc.Table, error) {
	var parts []string
	rest := name
	for {
		part, after, err := cutIdentifier(rest)
		if err != nil {
			return cdc.Table{}, fmt.Errorf("table %s: %w; write schema.table", name, err)
		}
		parts = append(parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return cdc.Table{Schema: "public", Name: parts[0]}, nil
	case 2:
		return cdc.Table{Schema: parts[0], Name: parts[1]}, nil
	}
	return cdc.Table{}, fmt.Errorf("table %s: has %d parts; write schema.table", name, len(parts))
}

// cutIdentifier cuts one identifier from s; after is empty or begins with a dot.
func cutIdentifier(s string) (identifier, after string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		if end == 0 || strings.ContainsAny(s[:end], "\" \t") {
			return "", "", fmt.Errorf("%q is no name", s[:end])
		}
		return s[:end], s[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		after = s[i+1:]
		if b.Len() == 0 || (after != "" && after[0] != '.') {
			return "", "", fmt.Errorf("%q is no name", s)
		}
		return b.String(), after, nil
	}
	return "", "", fmt.Errorf("%q has no closing quote", s)
}

// Tables are the tables that the rules name, sorted.
func (r *Rules) Tables() []cdc.Table {
	return slices.SortedFunc(maps.Keys(r.tables), func(a, b cdc.Table) int {
		return strings.Compare(a.Schema+"\x00"+a.Name, b.Schema+"\x00"+b.Name)
	})
}

// Columns are the columns of t that the rules read; nil when no rule names t.
func (r *Rules) Columns(t cdc.Table) []string {
	rule := r.tables[t]
	if rule == nil {
		return nil
	}
	if rule.wanted == nil {
		return []string{}
	}
	return rule.wanted
}

// Everything is all that the rules can delete: keys that are the same for every
// row, and globs of the others. Both sorted.
func (r *Rules) Everything() (keys, patterns []string) {
	constant, open := map[string]bool{}, map[string]bool{}
	for _, rule := range r.tables {
		for i, t := range rule.templates {
			if t.constant() {
				constant[t.text[0]] = true
			} else {
				open[rule.patterns[i]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(constant)), slices.Sorted(maps.Keys(open))
}
