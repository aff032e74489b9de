package api

import (
	"testing"
	"time"
)

func TestServerTiming(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		all, database time.Duration
		want          string
	}{
		{0, 0, "cache;dur=0.000"},
		{time.Microsecond - 1, 0, "cache;dur=0.000"},
		{7 * time.Microsecond, 0, "cache;dur=0.007"},
		{12345678 * time.Nanosecond, 2090 * time.Microsecond, "cache;dur=12.345, db;dur=2.090"},
		{10 * time.Second, 0, "cache;dur=10000.000"},
	} {
		var got timing
		got.database.Store(int64(test.database))
		if header := got.header(test.all); header[0] != test.want {
			t.Errorf("%s: %q, want %q", test.all, header[0], test.want)
		}
	}
}
