package invalidate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"walkey/internal/cache"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { embeddedtest.Main(m) }

// bundle is a database with a table t (id, title), a Valkey, and a cache before it.
type bundle struct {
	t        *testing.T
	postgres *embedded.Postgres
	valkey   *embedded.Valkey
	url      string
	conn     *pgx.Conn
	options  cache.Options
	cache    *cache.Cache
	metrics  *Metrics
	observer Observer // of the invalidators that are run from now on
	rules    string
	row      func(table string) string // SQL of what is cached of row $1 of a table
	log      *zap.Logger
	streams  streams
	user     string // of the invalidator; empty: as the tests
}

func setup(t *testing.T) *bundle {
	t.Helper()
	p := embeddedtest.Postgres(t)
	b := setupOn(t, p, p.URL())
	b.exec("create table t (id int primary key, title text)")
	b.exec("insert into t values (1, 'old'), (2, 'old')")
	return b
}

// setupOn is a bundle on a database without tables.
func setupOn(t *testing.T, p *embedded.Postgres, url string) *bundle {
	t.Helper()
	b := &bundle{t: t, postgres: p, valkey: embeddedtest.Valkey(t), url: url, rules: `tables: {t: {keys: ["t:{id}"]}}`}
	b.log = zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))
	b.row = func(table string) string { return "select title::text from " + table + " where id = $1" }
	b.conn = b.connect()
	b.options = cache.Options{Host: b.valkey.Host(), Port: b.valkey.Port(), Prefix: "p", Logger: zap.NewNop()}
	c, err := cache.Open(b.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b.cache = c
	return b
}

func (b *bundle) connect() *pgx.Conn {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (b *bundle) exec(sql string) {
	b.t.Helper()
	if _, err := b.conn.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// run runs an invalidator until the test ends, or stop is called.
func (b *bundle) run(switches Switches) (stop func()) {
	b.t.Helper()
	eraser, err := cache.OpenEraser(b.options)
	if err != nil {
		b.t.Fatal(err)
	}
	metrics, observer := NewMetrics(), b.observer
	b.metrics = metrics
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			DatabaseURL: b.invalidatorURL(), Slot: b.slot(), Publication: "walkey",
			Rules: mustParse(b.t, b.rules), Eraser: eraser,
			StreamingWorkMem: b.streams.workMem, StreamBytes: b.streams.bytes,
			Metrics: metrics, Observer: observer, Logger: b.log, Switches: switches,
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run ended with %v", err)
		}
		eraser.Close()
	})
	b.t.Cleanup(stop)
	return stop
}

// slot is the name of the slot: databases of one server need different ones.
func (b *bundle) slot() string {
	if name := b.conn.Config().Database; name != "postgres" {
		return "walkey_" + name
	}
	return "walkey"
}

func (b *bundle) invalidatorURL() string {
	if b.user == "" {
		return b.url
	}
	return strings.Replace(b.url, "//postgres@", "//"+b.user+"@", 1)
}

// title is what the cache says row id's title is.
func (b *bundle) title(id int) (string, cache.Outcome) {
	b.t.Helper()
	return b.cached("t", id)
}

// titleSince is what the cache says to someone who knows of a change that ended at a position in the WAL.
func (b *bundle) titleSince(id int, since uint64) (string, cache.Outcome) {
	b.t.Helper()
	at := b.cache.At(fmt.Sprintf("t:%d", id))
	return b.read(b.cache.FetchSince(b.t.Context(), at, cache.Lists, since, b.load(b.row("t"), id)))
}

// cached is what the cache says of a row, "" when there is none.
func (b *bundle) cached(table string, id int) (string, cache.Outcome) {
	b.t.Helper()
	return b.fetch(fmt.Sprintf("%s:%d", table, id), b.row(table), id)
}

// fetch is what the cache says of a key, which is loaded by a query.
func (b *bundle) fetch(key, sql string, args ...any) (string, cache.Outcome) {
	b.t.Helper()
	return b.read(b.cache.Fetch(b.t.Context(), b.cache.At(key), cache.Lists, b.load(sql, args...)))
}

func (b *bundle) load(sql string, args ...any) cache.Loader {
	return func(ctx context.Context) (cache.Content, error) {
		conn, err := pgx.Connect(ctx, b.url)
		if err != nil {
			return cache.Content{}, err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		var title string
		err = conn.QueryRow(ctx, sql, args...).Scan(&title)
		if errors.Is(err, pgx.ErrNoRows) {
			return cache.Content{Absent: true}, nil
		}
		return cache.Content{Body: []byte(title)}, err
	}
}

func (b *bundle) read(value cache.Value, outcome cache.Outcome, err error) (string, cache.Outcome) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	if value.Absent() {
		return "", outcome
	}
	body, err := value.Identity()
	if err != nil {
		b.t.Fatal(err)
	}
	return string(body), outcome
}

func (b *bundle) eventually(what string, condition func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			b.t.Fatalf("waited %s until %s", patience, what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (b *bundle) stored(id int, want string) {
	b.t.Helper()
	b.keeps("t", id, want)
}

// keeps waits until a row is stored as want.
func (b *bundle) keeps(table string, id int, want string) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("row %d of %s is stored as %q", id, table, want), func() bool {
		got, outcome := b.cached(table, id)
		return got == want && outcome == cache.HitLocal
	})
}

// oldAfterHang reports whether the old row is still served after a commit that hung for a synchronous standby has
// returned, and a later commit's keys have been deleted.
func oldAfterHang(t *testing.T, switches Switches) bool {
	b := setup(t)
	b.run(switches)
	b.stored(1, "old")
	embeddedtest.HoldCommits(b.t, b.postgres)
	before := b.metrics.received.Load()
	hanging := b.connect()
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), "update t set title = 'new' where id = 1")
		committed <- err
	}()
	b.eventually("the hanging commit is delivered", func() bool { return b.metrics.received.Load() > before })
	b.exec("set synchronous_commit = local")
	b.exec("update t set title = 'newer' where id = 2")
	b.stored(2, "newer")
	b.stored(1, "old") // nobody can read the new row yet
	embeddedtest.ReleaseCommits(b.t, b.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	b.exec("update t set title = 'newest' where id = 2")
	b.stored(2, "newest")
	title, _ := b.title(1)
	return title == "old"
}

// The gate is what keeps the old row from being stored again behind the delete of a commit that is not visible yet.
func TestGate(t *testing.T) {
	t.Parallel()
	t.Run("on", func(t *testing.T) {
		t.Parallel()
		if oldAfterHang(t, Switches{}) {
			t.Error("the old row is served after its change was committed")
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		if !oldAfterHang(t, Switches{NoGate: true}) {
			t.Error("nothing old is served without the gate: the test does not show what the gate is for")
		}
	})
}

// Progress is noted in Valkey before it is confirmed to Postgres.
func TestNoteIsNeverBehindTheSlot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{})
	b.stored(1, "old")
	eraser, err := cache.OpenEraser(b.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eraser.Close)
	confirmed := func() (lsn string) {
		if err := b.conn.QueryRow(t.Context(), "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'walkey'").Scan(&lsn); err != nil {
			t.Fatal(err)
		}
		return lsn
	}
	first := confirmed()
	for i := range 50 {
		b.exec(fmt.Sprintf("update t set title = 'title %d'", i))
		slot := confirmed() // before the note is read
		text, found, err := eraser.Note(t.Context())
		if err != nil || !found {
			t.Fatalf("no note: %v", err)
		}
		n, err := decodeNote(text)
		if err != nil {
			t.Fatal(err)
		}
		var behind bool
		if err := b.conn.QueryRow(t.Context(), "select $1::pg_lsn > $2::pg_lsn", slot, n.LSN).Scan(&behind); err != nil {
			t.Fatal(err)
		}
		if behind {
			t.Errorf("the slot is confirmed up to %s, the note says %s", slot, n.LSN)
		}
	}
	b.eventually("the slot's position moves", func() bool { return confirmed() != first })
}

// A slot that somebody dropped, or dropped and made anew, leads to a resynchronisation.
func TestSlotMadeAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{})
	for _, remake := range []string{"", "select pg_create_logical_replication_slot('walkey', 'pgoutput')"} {
		b.stored(1, "old")
		// The slot is held most of the time: end the holder until the drop comes in between.
		b.eventually("the slot is dropped", func() bool {
			_, err := b.conn.Exec(t.Context(), "select pg_terminate_backend(active_pid) from pg_replication_slots where active")
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.conn.Exec(t.Context(), "select pg_drop_replication_slot('walkey')")
			return err == nil
		})
		b.exec("update t set title = 'missed' where id = 1") // while no slot holds its WAL
		if remake != "" {
			_, _ = b.conn.Exec(t.Context(), remake) // fails when the invalidator was quicker, which is the first case again
		}
		b.stored(1, "missed")
		b.exec("update t set title = 'old' where id = 1")
	}
}
