// Package transactions makes spans of what an invalidator tells of transactions and their deletes. It stands apart from package tracing so that
// a program which follows no stream does not link what reads rules.
package transactions

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"walkey/internal/invalidate"
)

// MessagePrefix is under which a writer's trace context lies in the WAL.
const MessagePrefix = "walkey"

// observer makes spans of what an invalidator tells: of each transaction, from its commit on, with the wait until it could be
// seen and the deletes in it. The trace is that of the writer, if it left its context in the WAL. Other events are spans of their own.
type observer struct{ tracer trace.Tracer }

// Observer gives the spans to a tracer.
func Observer(tracer trace.Tracer) invalidate.Observer { return observer{tracer} }

// Follows implements [invalidate.Observer].
func (observer) Follows(string) bool { return false }

// Observe implements [invalidate.Observer].
func (o observer) Observe(event invalidate.Event) {
	switch e := event.(type) {
	case *invalidate.Transaction:
		o.transaction(e)
	case invalidate.Resync:
		o.resync(e)
	}
}

func (o observer) transaction(t *invalidate.Transaction) {
	ctx := context.Background()
	if t.Message != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": t.Message})
	}
	// The commit is by another clock: what it says must not turn the order of things around.
	begun := t.Committed
	if begun.After(t.Received) {
		begun = t.Received
	}
	ctx, span := o.tracer.Start(ctx, "invalidate", trace.WithTimestamp(begun), trace.WithSpanKind(trace.SpanKindConsumer))
	if span.IsRecording() {
		tables := make([]string, 0, len(t.Tables))
		changes := 0
		for i := range t.Tables {
			tables = append(tables, t.Tables[i].Table.String())
			changes += t.Tables[i].Inserts + t.Tables[i].Updates + t.Tables[i].Deletes + t.Tables[i].Truncates
		}
		span.SetAttributes(
			attribute.String("db.system.name", "postgresql"), attribute.String("walkey.lsn", t.LSN.String()),
			attribute.String("walkey.xid", strconv.FormatUint(uint64(t.XID), 10)),
			attribute.StringSlice("walkey.tables", tables), attribute.Int("walkey.changes", changes),
		)
		o.part(ctx, "gate", t.Received, t.Visible)
		o.part(ctx, "delete", t.Visible, t.Deleted, attribute.Int("walkey.keys", t.KeyCount), attribute.Int("walkey.keys.existed", t.Existed),
			attribute.Int("walkey.patterns", t.PatternCount))
	}
	span.End(trace.WithTimestamp(t.Deleted))
}

func (o observer) part(ctx context.Context, name string, from, to time.Time, attributes ...attribute.KeyValue) {
	_, span := o.tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attributes...))
	span.End(trace.WithTimestamp(to))
}

func (o observer) resync(r invalidate.Resync) {
	if r.State != invalidate.ResyncDone && r.State != invalidate.ResyncFailed {
		return
	}
	now := time.Now()
	_, span := o.tracer.Start(context.Background(), "resynchronise", trace.WithTimestamp(now.Add(-r.Took)),
		trace.WithAttributes(attribute.String("walkey.reason", r.Reason), attribute.Int("walkey.keys.existed", r.Deleted)))
	if r.State == invalidate.ResyncFailed {
		span.SetStatus(codes.Error, "")
	}
	span.End(trace.WithTimestamp(now))
}
