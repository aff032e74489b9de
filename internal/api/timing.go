package api

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"walkey/internal/cache"
)

// timing is how long an answer took to get, for Server-Timing. It holds the header's value too, so that a hit allocates
// once for both.
type timing struct {
	database atomic.Int64 // nanoseconds of the load that this request has caused; 0 when it caused none
	value    [1]string
}

// loading lets a load be timed. It may go on after the request that caused it.
func (t *timing) loading(load cache.Loader) cache.Loader {
	return func(ctx context.Context) (cache.Content, error) {
		begun := time.Now()
		content, err := load(ctx)
		t.database.Store(int64(time.Since(begun)))
		return content, err
	}
}

// header is the value of Server-Timing: all of the time, and that of the database in it, in milliseconds.
func (t *timing) header(all time.Duration) []string {
	var buffer [64]byte
	b := appendTiming(buffer[:0], "cache;dur=", all)
	if database := t.database.Load(); database > 0 {
		b = appendTiming(append(b, ", "...), "db;dur=", time.Duration(database))
	}
	t.value[0] = string(b)
	return t.value[:]
}

func appendTiming(b []byte, name string, d time.Duration) []byte {
	return strconv.AppendFloat(append(b, name...), float64(d.Microseconds())/1000, 'f', 3, 64)
}
