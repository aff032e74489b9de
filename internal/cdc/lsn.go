package cdc

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning.
type LSN uint64

// String is the form that Postgres prints, such as 16/B374D848.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l))
}

// ParseLSN reads the form that Postgres prints: two hexadecimal numbers of at most eight digits with a slash between
// them, and nothing before, after or inside them.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	if !found || !hexWord(high) || !hexWord(low) {
		return 0, fmt.Errorf("%q is not a WAL position such as 16/B374D848", s)
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a WAL position: %w", s, err)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a WAL position: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// hexWord keeps out what ParseUint would let through: signs and underscores.
func hexWord(s string) bool {
	if s == "" || len(s) > 8 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
