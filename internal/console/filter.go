package console

import (
	"slices"
	"strings"
)

// Filter says which events somebody wants to see: transactions and changes of the catalog that concern one of the tables,
// if some are given, and one of the keys, if some are given. All other events concern every table and key.
type Filter struct {
	// Tables are schema.name; a name alone is of schema public.
	Tables []string
	// Keys are full keys, or keys without the prefix; a * stands for any text.
	Keys []string

	prefix string // of keys, with its colon
}

// lets reports whether the event is wanted.
func (f *Filter) lets(e *Event) bool {
	switch {
	case e.Transaction != nil:
		t := e.Transaction
		return (len(f.Tables) == 0 || slices.ContainsFunc(t.Tables, func(t Table) bool { return f.wantsTable(t.Table) })) &&
			(len(f.Keys) == 0 || slices.ContainsFunc(t.Keys, f.followsKey) || slices.ContainsFunc(t.Patterns, f.followsPattern))
	case e.Type == TypeCatalog:
		return len(f.Tables) == 0 || slices.ContainsFunc(e.Subjects, f.wantsTable)
	}
	return true
}

func (f *Filter) wantsTable(name string) bool {
	return slices.ContainsFunc(f.Tables, func(wanted string) bool { return name == wanted || name == "public."+wanted })
}

// followsKey reports whether one of Keys means the full key.
func (f *Filter) followsKey(full string) bool {
	key, ours := strings.CutPrefix(full, f.prefix)
	return slices.ContainsFunc(f.Keys, func(wanted string) bool {
		return matches(wanted, full) || ours && matches(wanted, key)
	})
}

// followsPattern reports whether one of Keys may be among the keys that a glob of Valkey stands for.
func (f *Filter) followsPattern(pattern string) bool {
	glob := valkeyGlob(pattern)
	return slices.ContainsFunc(f.Keys, func(wanted string) bool {
		return overlap(starGlob(wanted), glob) || overlap(starGlob(f.prefix+wanted), glob)
	})
}

// matches reports whether text is what a pattern stands for, in which * is any text.
func matches(pattern, text string) bool {
	head, rest, open := strings.Cut(pattern, "*")
	if !open {
		return text == pattern
	}
	text, ok := strings.CutPrefix(text, head)
	if !ok {
		return false
	}
	for {
		piece, further, open := strings.Cut(rest, "*")
		if !open {
			return strings.HasSuffix(text, piece)
		}
		at := strings.Index(text, piece)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(piece):], further
	}
}

// anything is the element of a glob that stands for any text; the others are bytes.
const anything = -1

// starGlob reads a pattern in which only * is special.
func starGlob(pattern string) (glob []int) {
	for _, b := range []byte(pattern) {
		if b == '*' {
			glob = append(glob, anything)
		} else {
			glob = append(glob, int(b))
		}
	}
	return glob
}

// valkeyGlob reads a pattern as rules make them: text in which special characters are escaped, and *.
func valkeyGlob(pattern string) (glob []int) {
	for i := 0; i < len(pattern); i++ {
		switch b := pattern[i]; {
		case b == '*':
			glob = append(glob, anything)
		case b == '\\' && i+1 < len(pattern):
			i++
			glob = append(glob, int(pattern[i]))
		default:
			glob = append(glob, int(b))
		}
	}
	return glob
}

// overlap reports whether there is a text that both globs stand for.
func overlap(a, b []int) bool {
	// reach[j] says whether a[:i] and b[:j] have a text in common.
	reach := make([]bool, len(b)+1)
	reach[0] = true
	for j, element := range b {
		reach[j+1] = reach[j] && element == anything
	}
	for _, element := range a {
		next := make([]bool, len(b)+1)
		next[0] = reach[0] && element == anything
		for j := range b {
			if element == anything || b[j] == anything {
				// The * stands for nothing, or for the other's element too.
				next[j+1] = reach[j+1] || next[j]
			} else {
				next[j+1] = reach[j] && element == b[j]
			}
		}
		reach = next
	}
	return reach[len(b)]
}
