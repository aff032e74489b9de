package cache

import "strings"

// MatchesTag tells whether If-None-Match names the entity tag, by weak comparison (RFC 9110, 13.1.2): tag is what the
// answer would carry, quotes included. A list that is malformed matches up to where it is.
func MatchesTag(header []string, tag string) bool {
	return AnyTag(header, func(candidate string, _ bool) bool { return candidate == tag })
}

// AnyTag tells whether a list of entity tags is "*" or names one that match takes: quotes included, and whether it is weak.
func AnyTag(header []string, match func(tag string, weak bool) bool) bool {
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
