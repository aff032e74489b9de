package e2e

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spans is a collector: it takes what programs send by OpenTelemetry's protocol.
type spans struct {
	*httptest.Server

	mu  sync.Mutex
	all []span // guarded by mu
	bad []error
}

// span is what tests look at of one.
type span struct {
	service, name     string
	trace, id, parent string
	begun, ended      uint64
	attributes        map[string]string
}

func (s *servers) collector() *spans {
	c := &spans{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.bad = append(c.bad, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	s.t.Cleanup(func() {
		c.Close()
		for _, err := range c.bad {
			s.t.Errorf("the collector: %v", err)
		}
	})
	return c
}

// environment leads a program's spans here, and soon.
func (c *spans) environment(more ...string) []string {
	return append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL, "OTEL_BSP_SCHEDULE_DELAY=50"}, more...)
}

func (c *spans) take(r *http.Request) error {
	if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return fmt.Errorf("%s of %s", r.URL.Path, r.Header.Get("Content-Type"))
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unpacked
	}
	bytes, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(bytes, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.GetAttributes() {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.all = append(c.all, taken(service, s))
			}
		}
	}
	return nil
}

func taken(service string, s *otlp.Span) span {
	one := span{
		service: service, name: s.Name, trace: fmt.Sprintf("%x", s.TraceId), id: fmt.Sprintf("%x", s.SpanId), parent: fmt.Sprintf("%x", s.ParentSpanId),
		begun: s.StartTimeUnixNano, ended: s.EndTimeUnixNano, attributes: map[string]string{},
	}
	for _, a := range s.Attributes {
		if text := a.Value.GetStringValue(); text != "" {
			one.attributes[a.Key] = text
		} else {
			one.attributes[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return one
}

// find gives the spans that match.
func (c *spans) find(match func(span) bool) (found []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.all {
		if match(s) {
			found = append(found, s)
		}
	}
	return found
}

// wait waits for a span.
func (c *spans) wait(t *testing.T, what string, match func(span) bool) span {
	t.Helper()
	var found []span
	eventually(t, what, func() error {
		if found = c.find(match); len(found) == 0 {
			return errors.New("no such span")
		}
		return nil
	})
	return found[0]
}

// A write, the transaction that it was, and the deletes that it caused are one trace, through both programs and the WAL. A read tells
// of its load, a hit in memory of nothing.
func TestTracesThroughTheWAL(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	c := s.collector()
	api := s.startAPI(c.environment("OTEL_SERVICE_NAME=shop", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test")...)
	s.startInvalidator(c.environment()...)
	s.addEditor("ada")
	ada := s.login(api, "ada")
	s.seed("one")
	api.waitHit(detailPath(1))

	status, _, text, err := ada.do(api, http.MethodPatch, detailPath(1), `{"title":"uno"}`)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	const route = "/api/materials/{id}/"
	write := c.wait(t, "the write", func(s span) bool { return s.name == "PATCH "+route })
	in := func(parent span, name string) span {
		t.Helper()
		return c.wait(t, name, func(s span) bool { return s.name == name && s.trace == parent.trace && s.parent == parent.id })
	}
	change := in(write, "change")
	transaction := in(change, "invalidate")
	gate, deletes := in(transaction, "gate"), in(transaction, "delete")
	if write.service != "shop" || transaction.service != "walkey-invalidator" {
		t.Errorf("services: %s, %s", write.service, transaction.service)
	}
	if got := deletes.attributes["walkey.keys"]; got != "3" {
		t.Errorf("%s keys were deleted, want 3", got)
	}
	if write.attributes["http.response.status_code"] != "200" || write.attributes["http.route"] != route {
		t.Errorf("the write: %v", write.attributes)
	}
	for _, part := range []span{transaction, gate, deletes} {
		if part.ended < part.begun || part.ended > transaction.ended {
			t.Errorf("%s from %d to %d in a transaction until %d", part.name, part.begun, part.ended, transaction.ended)
		}
	}

	read := c.wait(t, "the read that loaded", func(s span) bool {
		return s.name == "GET "+route && s.attributes["walkey.cache"] == "walkey; fwd=miss; stored"
	})
	in(read, "load")
	api.waitHit(detailPath(1))
	if hits := c.find(func(s span) bool { return s.attributes["walkey.cache"] == "walkey; hit; detail=local" }); len(hits) != 0 {
		t.Errorf("%d spans of hits", len(hits))
	}
	// A client that traces has its hits told, in its trace.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.Base+detailPath(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	request.Header.Set("Traceparent", "00-"+trace+"-"+parent+"-01")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	c.wait(t, "the hit that a client traces", func(s span) bool { return s.name == "GET "+route && s.trace == trace && s.parent == parent })

	// What others write has a trace of its own, whatever lies in the WAL beside it.
	conn := s.connect()
	mustExec(t, conn, "begin")
	mustExec(t, conn, "select pg_logical_emit_message(true, 'walkey', 'no trace'), pg_logical_emit_message(true, 'other', repeat('x', 100000))")
	mustExec(t, conn, "update materials set title = 'due'")
	mustExec(t, conn, "commit")
	other := c.wait(t, "a change by hand", func(s span) bool {
		return s.name == "invalidate" && s.trace != write.trace && s.parent == "" && s.begun > transaction.begun
	})
	in(other, "delete")
}

// Without an endpoint nothing is sent and nothing is left in the WAL; without the right to leave something there, and with a collector
// that is gone, writes go on as ever.
func TestTracingStandsInNobodysWay(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	c := s.collector()
	quiet, traced := s.startAPI(), s.startAPI(c.environment()...)
	invalidator := s.startInvalidator(c.environment()...)
	s.addEditor("ada")
	ada := s.login(quiet, "ada")
	s.seed("one")
	conn := s.connect()
	mustExec(t, conn, "select pg_create_logical_replication_slot('all', 'test_decoding')")
	messages := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "select count(*) from pg_logical_slot_get_changes('all', null, null) where data like 'message:%walkey%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	edit := func(at *program, title string) {
		t.Helper()
		status, _, text, err := ada.do(at, http.MethodPatch, detailPath(1), fmt.Sprintf(`{"title":%q}`, title))
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %s, %v", status, text, err)
		}
		at.waitFor(detailPath(1), "the edit", hasTitle(title))
	}
	edit(quiet, "quiet")
	if n := messages(); n != 0 {
		t.Errorf("%d messages without tracing", n)
	}
	edit(traced, "traced")
	if n := messages(); n != 1 {
		t.Errorf("%d messages for one traced write", n)
	}
	for _, signature := range signatures(t, s) {
		mustExec(t, conn, "revoke execute on function "+signature+" from public")
	}
	environment := c.environment()
	if s.access == nil { // else it is no superuser in any case
		mustExec(t, conn, "create role plain login")
		mustExec(t, conn, "grant select, insert, update, delete on all tables in schema public to plain")
		environment = append(environment, "DATABASE_URL="+strings.Replace(s.url, "postgres@", "plain@", 1))
	}
	restricted := s.startAPI(environment...)
	edit(restricted, "without the right")
	if n := messages(); n != 0 {
		t.Errorf("%d messages without the right", n)
	}
	c.Close()
	edit(traced, "without a collector")
	if err := active(invalidator); err != nil {
		t.Error(err)
	}
}

func signatures(t *testing.T, s *servers) (list []string) {
	t.Helper()
	rows, err := s.connect().Query(t.Context(), "select oid::regprocedure::text from pg_proc where proname = 'pg_logical_emit_message'")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var signature string
		if err := rows.Scan(&signature); err != nil {
			t.Fatal(err)
		}
		list = append(list, signature)
	}
	return slices.Clip(list)
}
