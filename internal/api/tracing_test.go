package api

import (
	"context"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// spansOf gives a tracer and what it has made.
func spansOf(t testing.TB, sampler sdktrace.Sampler) (trace.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sampler))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider.Tracer("test"), recorder
}

// What is no hit in memory is told once, with its load inside; probes and what is nothing's address are not.
func TestSpansOfRequests(t *testing.T) {
	t.Parallel()
	tracer, spans := spansOf(t, sdktrace.AlwaysSample())
	s := startService(t, "zlib", func(o *Options) { o.Tracer = tracer })
	s.change(t, insertLarge)
	s.askUntil(t, hitLocal, "/api/materials/")
	names := func() map[string]int {
		counts := map[string]int{}
		for _, span := range spans.Ended() {
			counts[span.Name()]++
		}
		return counts
	}
	for range 3 {
		s.ask(t, http.MethodGet, "/api/materials/")
		s.ask(t, http.MethodGet, "/healthz")
		s.ask(t, http.MethodGet, "/nowhere")
	}
	counts := names()
	if counts["GET /api/materials/"] == 0 || counts["load"] == 0 || counts["GET /api/materials/"] < counts["load"] {
		t.Errorf("spans: %v", counts)
	}
	before := len(spans.Ended())
	for range 10 {
		s.ask(t, http.MethodGet, "/api/materials/")
	}
	if n := len(spans.Ended()) - before; n != 0 {
		t.Errorf("%d spans for hits in memory", n)
	}
	if got := s.ask(t, http.MethodPost, "/api/materials/"); got.status != http.StatusUnauthorized {
		t.Errorf("a write without a session: %d", got.status)
	}
	if counts := names(); counts["POST /api/materials/"] != 1 {
		t.Errorf("spans: %v", counts)
	}
	for _, span := range spans.Ended() {
		if span.Status().Code == codes.Error {
			t.Errorf("%s failed: %v", span.Name(), span.Status())
		}
	}
}

// Without a tracer, a request's way is the same code as if there were no tracing.
func TestNoTracerNoSpans(t *testing.T) {
	// Not parallel: allocations are counted.
	a := &API{}
	called := false
	next := func(*recorder, *http.Request) { called = true }
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/api/materials/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { a.traced("/api/materials/", next)(nil, request) }); n != 0 || !called {
		t.Errorf("%v allocations, called %v", n, called)
	}
	if n := testing.AllocsPerRun(100, func() { _, span := startSpan(request.Context(), "load"); span.End() }); n != 0 {
		t.Errorf("%v allocations for a part", n)
	}
}
