package api

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"walkey/internal/cache"
)

// visit is a request as far as it is traced. Its span begins when there is something to tell: a load, a change, an answer that is
// no hit in memory; or at once, when the client traces.
type visit struct {
	tracer trace.Tracer
	name   string
	begun  time.Time
	parent context.Context // with the client's trace, if it sent one

	mu   sync.Mutex
	span trace.Span // guarded by mu; nil before it begins
}

type visitKey struct{}

// begin begins the span, once. What a request has caused may still go on, and begin its own part, when the request is over.
func (v *visit) begin() trace.Span {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.span == nil {
		_, v.span = v.tracer.Start(v.parent, v.name, trace.WithTimestamp(v.begun), trace.WithSpanKind(trace.SpanKindServer))
	}
	return v.span
}

// end ends the span, or makes the whole of it, unless there is nothing to tell.
func (v *visit) end(method, path string, status int, outcome string) {
	v.mu.Lock()
	begun := v.span != nil
	v.mu.Unlock()
	if !begun && outcome == cache.HitLocal.String() {
		return
	}
	span := v.begin()
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", path),
		attribute.Int("http.response.status_code", status))
	if outcome != "" {
		span.SetAttributes(attribute.String("walkey.cache", outcome))
	}
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// traced makes spans of the requests of a path of the API. Without a tracer it is next itself.
func (a *API) traced(path string, next func(*recorder, *http.Request)) func(*recorder, *http.Request) {
	if a.tracer == nil || !strings.HasPrefix(path, "/api/") {
		return next
	}
	return func(w *recorder, r *http.Request) {
		v := &visit{tracer: a.tracer, name: r.Method + " " + path, begun: time.Now(), parent: context.Background()}
		if r.Header.Get("Traceparent") != "" {
			v.parent = propagation.TraceContext{}.Extract(v.parent, propagation.HeaderCarrier(r.Header))
		}
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if !reads || trace.SpanContextFromContext(v.parent).IsSampled() {
			v.begin()
		}
		defer func() { v.end(r.Method, path, w.status, w.Header().Get("Cache-Status")) }()
		next(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
	}
}

// startSpan begins a part of what a request does; that of a request that is not traced is never sent.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok {
		return ctx, trace.SpanFromContext(context.Background())
	}
	return v.tracer.Start(trace.ContextWithSpan(ctx, v.begin()), name)
}

// failed marks the span of what has ended with an error.
func failed(span trace.Span, err error) error {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

// leaveTrace leaves the trace of a change in the WAL, as a part of its transaction, so that what follows the WAL can go on with it. In a
// savepoint of its own: without the right to leave anything there, the change is made all the same.
func leaveTrace(ctx context.Context, tx pgx.Tx) {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsSampled() {
		return
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT pg_logical_emit_message(true, 'walkey', $1::text)`, carrier["traceparent"])
		return err
	})
	if err != nil {
		span.RecordError(err) // the deletes will be another trace
	}
}
