package cdc

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestPoolerRefusal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
		want bool
	}{
		{"no error", nil, false},
		{"not an answer", errors.New("connection refused"), false},
		{"PgBouncer takes no such parameter", &pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter: statement_timeout"}, true},
		{"PgBouncer takes no such parameter in options", &pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter in options: replication"}, true},
		{"the server takes the command for SQL", fmt.Errorf("identify: %w", &pgconn.PgError{Code: "42601", Message: `syntax error at or near "IDENTIFY_SYSTEM"`}), true},
		{"another mistake in SQL", &pgconn.PgError{Code: "42601", Message: `syntax error at or near "SELEC"`}, false},
		{"the server's own protocol violation", &pgconn.PgError{Code: "08P01", Message: "invalid startup packet layout: expected terminator as last byte"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := PoolerRefusal(test.err)
			if (err != nil) != test.want {
				t.Errorf("got %v", err)
			}
		})
	}
}
