package api

import "strings"

// matchesTag tells whether If-None-Match names the entity tag, by weak comparison (RFC 9110, 13.1.2): tag is what the
// answer would carry, quotes included. A list that is malformed matches up to where it is.
func matchesTag(header []string, tag string) bool {
	for _, line := range header {
		for {
			line = strings.TrimLeft(line, " \t,")
			if line == "" {
				break
			}
			if line[0] == '*' {
				return true
			}
			candidate := strings.TrimPrefix(line, "W/")
			if !strings.HasPrefix(candidate, `"`) {
				break
			}
			end := strings.IndexByte(candidate[1:], '"')
			if end < 0 {
				break
			}
			end += 2
			if candidate[:end] == tag {
				return true
			}
			line = candidate[end:]
		}
	}
	return false
}
