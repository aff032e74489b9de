package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"walkey/internal/cdc"
	"walkey/internal/invalidate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

var materials = cdc.Table{Schema: "public", Name: "materials"}

// transaction is one that the invalidator tells of, with keys.
func transaction(xid uint32, keys ...string) *invalidate.Transaction {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &invalidate.Transaction{
		XID: xid, LSN: 0x100, Committed: at, Deleted: at.Add(1500 * time.Microsecond), Keys: keys, KeyCount: len(keys), Existed: 1,
		Tables: []invalidate.TableChanges{{Table: materials, Updates: 1, Rows: []string{fmt.Sprint("id=", xid)}}},
	}
}

// What the invalidator tells is used again by it; what is kept is not touched by that, nor what was handed out by what
// comes later.
func TestTheFeedKeepsCopies(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	told := transaction(1, "a", "b")
	f.Observe(told)
	first, _, _ := f.after(0, 10, Filter{})
	told.Keys[0], told.Tables[0].Rows[0] = "changed", "changed"
	for n := range uint32(2 * ringSize) {
		f.Observe(transaction(n, "x", "y", "z"))
	}
	want := []Event{{ID: 1, Type: TypeTransaction, At: told.Deleted, Transaction: &Transaction{
		XID: 1, LSN: "0/100", Committed: told.Committed, Milliseconds: 1.5, Keys: []string{"a", "b"}, KeyCount: 2, Patterns: []string{}, Existed: 1,
		Tables: []Table{{Table: "public.materials", Updates: 1, Rows: []string{"id=1"}}},
	}}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p := f.Process(); p.Transactions != 2*ringSize+1 || p.Keys != 6*ringSize+2 {
		t.Errorf("%+v", p)
	}
}

func TestWhoReadsTooSlowlyMissesAndIsTold(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	for n := range uint32(ringSize + 10) {
		f.Observe(transaction(n))
	}
	for _, test := range []struct {
		name         string
		after        uint64
		most         int
		first, count int
		missed       uint64
	}{
		{"from the beginning", 0, 2 * ringSize, 11, ringSize, 10},
		{"the last one that is lost", 9, 2 * ringSize, 11, ringSize, 1},
		{"nothing lost", 10, 2 * ringSize, 11, ringSize, 0},
		{"the newest only", 10, 5, ringSize + 6, 5, ringSize - 5},
		{"up to date", ringSize + 10, 5, 0, 0, 0},
	} {
		events, missed, last := f.after(test.after, test.most, Filter{})
		if len(events) != test.count || missed != test.missed || last != ringSize+10 {
			t.Errorf("%s: %d events, %d missed, last %d", test.name, len(events), missed, last)
		}
		if len(events) > 0 && events[0].ID != uint64(test.first) {
			t.Errorf("%s: the first is %d", test.name, events[0].ID)
		}
	}
}

// While nobody watches, to be told costs no memory beyond the ring.
func TestObservingAllocatesNothing(t *testing.T) {
	f := NewFeed("here", "v1")
	told := transaction(1, "a", "b", "c")
	told.LSN = 0
	for range ringSize + maxLatencies {
		f.Observe(told)
	}
	progress := &invalidate.Progress{Received: 1}
	// The text of the LSN, and that of the table.
	if n := testing.AllocsPerRun(100, func() { f.Observe(told); f.Observe(progress); f.Follows("a") }); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheFeedKnowsItsProcess(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	f.Observe(invalidate.Waiting{Reason: "another connection holds the slot", Detail: "slot walkey"})
	if p := f.Process(); p.Role != "starting" || p.Waiting != "another connection holds the slot: slot walkey" {
		t.Errorf("%+v", p)
	}
	f.Observe(invalidate.Resync{Reason: "the slot is new", State: invalidate.ResyncGoingOn, Deleted: 7, Took: time.Second})
	if p := f.Process(); p.Resync == nil || p.Resync.Deleted != 7 || p.Resync.Seconds != 1 {
		t.Errorf("%+v", p.Resync)
	}
	f.Observe(invalidate.Resync{Reason: "the slot is new", State: invalidate.ResyncDone, Deleted: 9})
	f.Observe(invalidate.RoleChange{Role: "active"})
	f.Observe(invalidate.Uncovered{Tables: []cdc.Table{materials}})
	f.Observe(&invalidate.Progress{Received: 3, Deleted: 2, Confirmed: 1, Held: 1})
	if p := f.Process(); p.Role != "active" || p.Resync != nil || p.Waiting != "" || p.Received != 3 || p.Deleted != 2 || p.Confirmed != 1 || p.Held != 1 || p.Uncovered[0] != "public.materials" {
		t.Errorf("%+v", p)
	}
	f.Observe(invalidate.SessionEnd{Err: errors.New("cut\n\toff")})
	f.Observe(invalidate.RoleChange{Role: "starting"})
	if p := f.Process(); p.Role != "starting" || p.Failure != "cut off" || p.Received != 0 || p.Uncovered != nil {
		t.Errorf("%+v", p)
	}
	var types []string
	events, _, _ := f.after(0, 100, Filter{})
	for _, e := range events {
		types = append(types, e.Type)
	}
	want := []string{TypeWaiting, TypeResync, TypeResync, TypeRole, TypeUncovered, TypeSessionEnd, TypeRole}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestSamplesMeasureAFairChoice(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	for n := range uint32(10 * maxLatencies) {
		f.Observe(transaction(n, "a", "b"))
	}
	n := f.sample()
	if n.transactions != 10*maxLatencies || n.keys != 20*maxLatencies || len(n.latencies) != maxLatencies || n.latencies[0] != 1.5 {
		t.Errorf("%d transactions, %d keys, %d latencies", n.transactions, n.keys, len(n.latencies))
	}
	if n := f.sample(); n.transactions != 0 || len(n.latencies) != 0 {
		t.Errorf("afterwards %+v", n)
	}
	var h history
	if h.last() != nil || len(h.all()) != 0 {
		t.Error("something is there at first")
	}
	for i := range 2*samples + 3 {
		h.add(Sample{At: int64(i)})
	}
	if all := h.all(); len(all) != samples || all[0].At != int64(samples+3) || all[samples-1].At != int64(2*samples+2) || h.last().At != int64(2*samples+2) {
		t.Errorf("%d samples, from %d to %d, the last %d", len(all), all[0].At, all[len(all)-1].At, h.last().At)
	}
}

// serve gives the address of a console that makes no reports, and ends it.
func serve(t *testing.T, f *Feed) (c *Console, url string) {
	t.Helper()
	c = New(Options{Feed: f, Prefix: "p", Logger: zap.NewNop()})
	server := httptest.NewServer(c.Handler())
	t.Cleanup(server.Close)
	return c, server.URL
}

func TestTheStreamEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	c, url := serve(t, f)
	client := NewClient(strings.TrimPrefix(url, "http://"))
	defer client.Close()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := client.Tail(ctx, Filter{Keys: []string{"b"}}, Reader{
		Begun: func() {
			if !f.Follows("p:b") || f.Follows("p:a") {
				t.Error("the key is not followed")
			}
			f.Observe(transaction(1, "p:a"))
			f.Observe(transaction(2, "p:b"))
			close(c.over)
		},
		Show: func(e Event, line []byte) error {
			got = append(got, e.Type+" "+e.Keys[0])
			if !json.Valid(line) || e.ID != 2 {
				t.Errorf("%d: %s", e.ID, line)
			}
			return nil
		},
		Lost: func(error) { cancel() },
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"transaction p:b"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The handler has left, so nothing is followed any more.
	eventually(t, "nobody follows the key", func() bool { return !f.Follows("p:b") })
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience + writeTimeout)
	for !condition() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	_, url := serve(t, f)
	var all []*client
	for range maxClients {
		c, err := f.watch(Filter{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	asking := NewClient(strings.TrimPrefix(url, "http://"))
	defer asking.Close()
	if err := asking.Tail(t.Context(), Filter{}, Reader{}); !errors.Is(err, ErrNoProcess) || !strings.Contains(err.Error(), errTooMany.Error()) {
		t.Errorf("one too many: %v", err)
	}
	for _, c := range all {
		f.leave(c)
	}
	if _, err := f.watch(Filter{}); err != nil {
		t.Error(err)
	}
}

// A client that reads nothing holds up neither the invalidator nor the others, and is cut off.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	f := NewFeed("here", "v1")
	_, url := serve(t, f)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	watching := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.clients)
	}
	big := transaction(1, strings.Repeat("k", 100_000))
	eventually(t, "the client is cut off", func() bool {
		f.Observe(big) // returns at once, whoever reads
		return watching() == 0
	})
}

func TestNothingButWhatIsThereIsServed(t *testing.T) {
	t.Parallel()
	_, url := serve(t, NewFeed("here", "v1"))
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/assets/page.css", 200},
		{"GET", "/assets/uplot.js", 200},
		{"GET", "/assets/uplot.LICENSE", 404},
		{"GET", "/assets/..%2fpage.html", 404},
		{"GET", "/assets/", 404},
		{"GET", "/page.html", 404},
		{"POST", "/", 405},
		{"DELETE", "/status", 405},
		{"PUT", "/events", 405},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != test.want {
			t.Errorf("%s %s: %d", test.method, test.path, response.StatusCode)
		}
		if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s %s: policy %q", test.method, test.path, policy)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":8081": "http://127.0.0.1:8081", "0.0.0.0:1": "http://127.0.0.1:1", "[::]:1": "http://127.0.0.1:1", "[::1]:1": "http://[::1]:1", "host:1": "http://host:1",
	} {
		if got := NewClient(addr).Base(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
