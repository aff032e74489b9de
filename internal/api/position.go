package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// unknownPosition stands for a change whose position could not be learned: nothing that is stored is as new as that.
const unknownPosition = math.MaxUint64

// formatPosition writes a position in the WAL as Postgres does: 16/B374D848.
func formatPosition(position uint64) string {
	return fmt.Sprintf("%X/%X", position>>32, uint32(position))
}

// parsePosition reads what formatPosition writes, in either case of the digits.
func parsePosition(s string) (position uint64, ok bool) {
	high, low, ok := strings.Cut(s, "/")
	if !ok || !isHex(high) || !isHex(low) {
		return 0, false
	}
	h, _ := strconv.ParseUint(high, 16, 32) // eight digits always fit
	l, _ := strconv.ParseUint(low, 16, 32)
	return h<<32 | l, true
}

func isHex(s string) bool {
	return len(s) >= 1 && len(s) <= 8 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

var badToken = func() *problem {
	p := newProblem(http.StatusBadRequest, "the Consistency-Token can't be understood")
	p.Errors = []mistake{{Parameter: "Consistency-Token", Detail: "must be one token as a write has answered it, like 16/B374D848"}}
	return p
}()

// since gives the position that an answer must not be older than: that of the request's Consistency-Token, and that of the
// last write of its session. It is 0 for who knows of no write. Only a request with a session's cookie asks Valkey.
func (a *API) since(r *http.Request) (position uint64, err error) {
	if tokens := r.Header["Consistency-Token"]; len(tokens) > 0 {
		var ok bool
		if position, ok = parsePosition(tokens[0]); !ok || len(tokens) > 1 {
			return 0, badToken
		}
	}
	if len(r.Header["Cookie"]) == 0 {
		return position, nil
	}
	token := a.sessions.token(r)
	if token == "" {
		return position, nil
	}
	remembered, err := a.sessions.kept.Position(r.Context(), token)
	if err != nil {
		a.log.Warn("a session's last write is not known", zap.Error(err))
		return unknownPosition, nil
	}
	return max(position, remembered), nil
}
