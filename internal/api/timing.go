package api

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"walkey/internal/cache"
)

// timing is how long an answer took to get, for Server-Timing. It is the context of the request, too, where the loads that the
// request causes find it: a hit pays for one small allocation.
type timing struct {
	context.Context
	database atomic.Int64 // nanoseconds of the load that this request has caused; 0 when it caused none
}

type timingKey struct{}

// Value implements context.Context.
func (t *timing) Value(key any) any {
	if key == (timingKey{}) {
		return t
	}
	return t.Context.Value(key)
}

// timed lets a load be timed and traced. It may go on after the request that caused it.
func timed(load cache.Loader) cache.Loader {
	return func(ctx context.Context) (cache.Content, error) {
		ctx, span := startSpan(ctx, "load")
		defer span.End()
		begun := time.Now()
		content, err := load(ctx)
		timingOf(ctx).loaded(time.Since(begun))
		return content, failed(span, err)
	}
}

func (t *timing) loaded(took time.Duration) { t.database.Store(int64(took)) }

// header is the value of Server-Timing: all of the time, and that of the database in it, in milliseconds.
func (t *timing) header(all time.Duration) []string {
	var buffer [64]byte
	b := appendTiming(buffer[:0], "cache;dur=", all)
	if database := t.database.Load(); database > 0 {
		b = appendTiming(append(b, ", "...), "db;dur=", time.Duration(database))
	}
	return []string{string(b)}
}

func appendTiming(b []byte, name string, d time.Duration) []byte {
	micros := d.Microseconds()
	b = append(strconv.AppendInt(append(b, name...), micros/1000, 10), '.')
	return append(b, byte('0'+micros/100%10), byte('0'+micros/10%10), byte('0'+micros%10))
}

// timingOf is that of the request for which a load began.
func timingOf(ctx context.Context) *timing {
	if t, ok := ctx.Value(timingKey{}).(*timing); ok {
		return t
	}
	return new(timing)
}

// timedWriter adds Server-Timing to what is neither an error nor from memory.
type timedWriter struct {
	http.ResponseWriter
	timing  timing
	begun   time.Time
	written bool
}

// WriteHeader implements http.ResponseWriter.
func (w *timedWriter) WriteHeader(status int) {
	if !w.written && status >= 200 {
		w.written = true
		if h := w.Header(); status < http.StatusBadRequest && h.Get("Cache-Status") != cache.HitLocal.String() {
			h["Server-Timing"] = w.timing.header(time.Since(w.begun))
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *timedWriter) Write(b []byte) (int, error) {
	if !w.written {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
