package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/faultproxy"
)

// pair is a primary with a standby.
type pair struct {
	primary, standby *embedded.Postgres
}

func startPair(t *testing.T) pair {
	t.Helper()
	primary := embeddedtest.Postgres(t)
	store := openStore(t, primary.URL())
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	run(t, primary, `INSERT INTO public.materials (id, title) OVERRIDING SYSTEM VALUE VALUES (1, 'first')`)
	return pair{primary, embeddedtest.Standby(t, primary, "reader", "wal_retrieve_retry_interval=100ms")}
}

// run runs a statement on a server, and gives the one text that it answers with, if it does.
func run(t *testing.T, p *embedded.Postgres, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// with is a service that loads from the standby at a URL, too.
func (p pair) with(t *testing.T, replicaURL string, change ...func(*StoreOptions)) (*service, *standby) {
	t.Helper()
	o := StoreOptions{URL: p.primary.URL(), ReplicaURL: replicaURL, Logger: zaptest.NewLogger(t)}
	for _, f := range change {
		f(&o)
	}
	store, err := OpenStore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	s := startService(t, "zlib", func(o *Options) { o.Store = store })
	return s, store.standby
}

func (p pair) waitUsable(t *testing.T, s *standby) {
	t.Helper()
	waitFor(t, func() bool { return s.usable() == nil })
}

// retitled changes the row, deletes its key, and asks for it.
func (p pair) retitled(t *testing.T, s *service, title string) answer {
	t.Helper()
	run(t, p.primary, fmt.Sprintf("UPDATE public.materials SET title = '%s' WHERE id = 1", title))
	if _, err := s.eraser.Delete(t.Context(), []string{testPrefix + ":material:1"}); err != nil {
		t.Fatal(err)
	}
	// The push of the delete is on its way; the standby may be asked as soon as it is here.
	var a answer
	waitFor(t, func() bool {
		a = s.ask(t, http.MethodGet, "/api/materials/1/")
		return !strings.Contains(a.header.Get("Cache-Status"), "; hit")
	})
	return a
}

func TestLoadsComeFromTheStandby(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	s, standby := p.with(t, p.standby.URL())
	p.waitUsable(t, standby)
	for i := range 20 {
		if a, title := p.retitled(t, s, fmt.Sprint("title ", i)), fmt.Sprintf(`"title":"title %d"`, i); !strings.Contains(a.body, title) {
			t.Fatalf("%d: %s", i, a.body)
		}
		p.waitUsable(t, standby) // it may have been behind
	}
	for _, path := range []string{"/api/materials/", "/api/materials/types/", "/api/materials/9/"} {
		s.ask(t, http.MethodGet, path)
	}
	if standby.served.Load() == 0 {
		t.Errorf("none of the loads came from the standby; %d were refused, %d did not try", standby.refused.Load(), standby.bypassed.Load())
	}
}

// Whatever is wrong with the standby, loads come from the primary, and after the first one nobody tries it.
func TestAStandbyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	proxy, err := faultproxy.Listen(t.Context(), net.JoinHostPort("127.0.0.1", strconv.Itoa(p.standby.Port())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	s, standby := p.with(t, strings.Replace(p.standby.URL(), ":"+strconv.Itoa(p.standby.Port())+"/", ":"+strconv.Itoa(proxy.Port())+"/", 1))
	for _, fault := range []struct {
		name   string
		begin  func()
		mend   func() // nil: it can't be
		reason error
	}{
		{"paused", func() { run(t, p.standby, "SELECT pg_wal_replay_pause()::text") }, func() { run(t, p.standby, "SELECT pg_wal_replay_resume()::text") }, errBehind},
		{"silent", proxy.Silence, proxy.Heal, errNoAnswer},
		{"cut off", proxy.Cut, proxy.Heal, errNoAnswer},
		{"killed", func() { stopHard(t, p.standby) }, func() { restart(t, p.standby) }, errNoAnswer},
		{"promoted", func() { run(t, p.standby, "SELECT pg_promote()::text") }, nil, errPromoted},
		{"of another history", func() {
			signal := filepath.Join(run(t, p.standby, "SHOW data_directory"), "standby.signal")
			if err := os.WriteFile(signal, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			restart(t, p.standby)
			waitFor(t, func() bool { return errors.Is(standby.usable(), errOtherHistory) })
		}, nil, errOtherHistory},
	} {
		if fault.mend != nil {
			p.waitUsable(t, standby)
		}
		fault.begin()
		if a := p.retitled(t, s, fault.name); !strings.Contains(a.body, fmt.Sprintf("%q", fault.name)) {
			t.Errorf("%s: %d %s", fault.name, a.status, a.body)
		}
		// The load that was the first to notice may be one that was given up.
		waitFor(t, func() bool { return errors.Is(standby.usable(), fault.reason) })
		refused, bypassed := standby.refused.Load(), standby.bypassed.Load()
		for i := range 5 {
			title := fmt.Sprint(fault.name, " ", i)
			if a := p.retitled(t, s, title); !strings.Contains(a.body, fmt.Sprintf("%q", title)) {
				t.Errorf("%s: %d %s", title, a.status, a.body)
			}
		}
		if n := standby.refused.Load() - refused; n > 0 {
			t.Errorf("%s: %d loads have tried the standby", fault.name, n)
		}
		if n := standby.bypassed.Load() - bypassed; n < 5 {
			t.Errorf("%s: %d loads went to the primary at once", fault.name, n)
		}
		if reason, there := s.store.Standby(); !there || !errors.Is(reason, fault.reason) {
			t.Errorf("%s: %v", fault.name, reason)
		}
		if fault.mend != nil {
			fault.mend()
		}
	}
}

func stopHard(t *testing.T, p *embedded.Postgres) {
	t.Helper()
	if err := p.Shutdown(t.Context(), "immediate"); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, p *embedded.Postgres) {
	t.Helper()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAStandbyOfAnotherCluster(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	s, err := OpenStore(t.Context(), StoreOptions{URL: p.primary.URL(), ReplicaURL: p.standby.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.waitUsable(t, s.standby)
	want, err := s.standby.mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.standby.ask(t.Context(), want, lookAgain, nil); err != nil {
		t.Errorf("of this cluster: %v", err)
	}
	want.system += "0" // the servers of these tests are copies of one, so that no other has another
	if err := s.standby.ask(t.Context(), want, lookAgain, nil); !errors.Is(err, errOtherCluster) {
		t.Errorf("of another cluster: %v", err)
	}
}

// The mechanism switched off: what is loaded from a standby that is behind is stored, and served.
func TestWithoutPositionsAStandbyGivesOldValues(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprint("off=", off), func(t *testing.T) {
			t.Parallel()
			p := startPair(t)
			s, standby := p.with(t, p.standby.URL(), func(o *StoreOptions) { o.NoStandbyLSN = off })
			p.waitUsable(t, standby)
			run(t, p.standby, "SELECT pg_wal_replay_pause()::text")
			loaded := p.retitled(t, s, "second")
			stored := s.askUntil(t, hitLocal, "/api/materials/1/")
			for _, a := range []answer{loaded, stored} {
				if old := strings.Contains(a.body, `"first"`); old != off {
					t.Errorf("%s: %s", a.header.Get("Cache-Status"), a.body)
				}
			}
		})
	}
}

// A commit that nobody waits for is visible before it is flushed, and so before a standby can have it.
func TestCommitsThatAreNotFlushedAreLoaded(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	run(t, p.primary, "ALTER SYSTEM SET wal_writer_delay = '10s'")
	run(t, p.primary, "SELECT pg_reload_conf()::text")
	waitFor(t, func() bool { return run(t, p.primary, "SHOW wal_writer_delay") == "10s" })
	store, err := OpenStore(t.Context(), StoreOptions{URL: p.primary.URL(), ReplicaURL: p.standby.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i := range 20 {
		title := fmt.Sprint("title ", i)
		conn, err := pgx.Connect(t.Context(), p.primary.URL())
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), "SET synchronous_commit = off; UPDATE public.materials SET title = '"+title+"' WHERE id = 1")
		if err := errors.Join(err, conn.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		store.standby.fault.Store(nil) // as if it could be used, so that each load tries it
		if m, _, err := store.material(t.Context(), 1); err != nil || m.Title != title {
			t.Errorf("%q instead of %q: %v", m.Title, title, err)
		}
	}
	if store.standby.refused.Load()+store.standby.served.Load() == 0 {
		t.Error("no load has tried the standby")
	}
}

func TestBeforeHeader(t *testing.T) {
	t.Parallel()
	const block, segment = 8192, 16 << 20
	for position, want := range map[uint64]uint64{
		5*segment + longHeader: 5 * segment, 5*segment + block + shortHeader: 5*segment + block, 5*segment + longHeader + 8: 5*segment + longHeader + 8,
		5*segment + block + shortHeader + 8: 5*segment + block + shortHeader + 8, 5 * segment: 5 * segment, 5*segment + block + longHeader: 5*segment + block + longHeader,
	} {
		if got := beforeHeader(position, block, segment); got != want {
			t.Errorf("%X: %X instead of %X", position, got, want)
		}
	}
}
