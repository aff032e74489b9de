package cache

import (
	"strconv"
	"strings"
)

// acceptsCoding tells whether a client with this Accept-Encoding would rather have the coding, or at least as much as
// the plain bytes (RFC 9110, 12.5.3). Without the header it gets plain bytes: it may not know any coding.
func acceptsCoding(header []string, coding string) bool {
	const unset = -1
	named, identity, rest := unset, unset, unset
	for _, line := range header {
		for line != "" {
			var item string
			item, line, _ = strings.Cut(line, ",")
			name, quality := codingQuality(item)
			switch {
			case strings.EqualFold(name, coding), coding == "gzip" && strings.EqualFold(name, "x-gzip"):
				named = quality
			case strings.EqualFold(name, "identity"):
				identity = quality
			case name == "*":
				rest = quality
			}
		}
	}
	if named == unset {
		named = rest
	}
	// "*" does not raise the plain bytes above a coding that is named: who sends it takes anything.
	return named > 0 && named >= identity
}

// codingQuality reads one item of Accept-Encoding. The quality is in thousandths; one that can't be read is 0.
func codingQuality(item string) (name string, quality int) {
	name, parameters, _ := strings.Cut(item, ";")
	name = strings.TrimSpace(name)
	for parameters != "" {
		var parameter string
		parameter, parameters, _ = strings.Cut(parameters, ";")
		key, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return name, 0
		}
		return name, int(q * 1000)
	}
	return name, 1000
}
