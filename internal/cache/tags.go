package cache

import (
	"slices"
	"strings"
)

// MatchesTag tells whether If-None-Match names the entity tag, by weak comparison (RFC 9110, 13.1.2): tag is what the
// answer would carry, quotes included. A list that is malformed matches up to where it is.
func MatchesTag(header []string, tag string) bool {
	return anyTag(header, func(candidate string, _ bool) bool { return candidate == tag })
}

// MatchesState tells whether If-Match or If-None-Match names the state with this Tag, in whatever coding it was read. Strong
// comparison takes no weak tags (RFC 9110, 13.1.1).
func MatchesState(header []string, hash string, strong bool) bool {
	return anyTag(header, func(candidate string, weak bool) bool {
		if weak && strong {
			return false
		}
		name, coding, coded := strings.Cut(strings.Trim(candidate, `"`), "-")
		return name == hash && (!coded || slices.ContainsFunc(codingLines[:], func(line []string) bool { return slices.Contains(line, coding) }))
	})
}

// anyTag tells whether the header is "*" or names a tag, quotes included, that match takes.
func anyTag(header []string, match func(tag string, weak bool) bool) bool {
	for _, line := range header {
		for {
			line = strings.TrimLeft(line, " \t,")
			if line == "" {
				break
			}
			if line[0] == '*' {
				return true
			}
			candidate, weak := strings.CutPrefix(line, "W/")
			if !strings.HasPrefix(candidate, `"`) {
				break
			}
			end := strings.IndexByte(candidate[1:], '"')
			if end < 0 {
				break
			}
			end += 2
			if match(candidate[:end], weak) {
				return true
			}
			line = candidate[end:]
		}
	}
	return false
}
