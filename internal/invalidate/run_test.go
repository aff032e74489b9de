package invalidate

import (
	"context"
	"errors"
	"fmt"
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
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, postgres: embeddedtest.Postgres(t), valkey: embeddedtest.Valkey(t)}
	b.url = b.postgres.URL()
	b.conn = b.connect()
	b.exec("create table t (id int primary key, title text)")
	b.exec("insert into t values (1, 'old'), (2, 'old')")
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

// run runs an invalidator until the test ends.
func (b *bundle) run(switches Switches) {
	b.t.Helper()
	eraser, err := cache.OpenEraser(b.options)
	if err != nil {
		b.t.Fatal(err)
	}
	b.metrics = NewMetrics()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			DatabaseURL: b.url, Slot: "walkey", Publication: "walkey",
			Rules: mustParse(b.t, `tables: {t: {keys: ["t:{id}"]}}`), Eraser: eraser,
			Metrics: b.metrics, Logger: zaptest.NewLogger(b.t, zaptest.Level(zap.InfoLevel)), Switches: switches,
		})
	}()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run ended with %v", err)
		}
		eraser.Close()
	})
}

// title is what the cache says row id's title is.
func (b *bundle) title(id int) (string, cache.Outcome) {
	b.t.Helper()
	return b.read(b.cache.Fetch(b.t.Context(), b.at(id), cache.Lists, b.load(id)))
}

// titleSince is what the cache says to someone who knows of a change that ended at a position in the WAL.
func (b *bundle) titleSince(id int, since uint64) (string, cache.Outcome) {
	b.t.Helper()
	return b.read(b.cache.FetchSince(b.t.Context(), b.at(id), cache.Lists, since, b.load(id)))
}

func (b *bundle) at(id int) cache.Address { return b.cache.At(fmt.Sprintf("t:%d", id)) }

func (b *bundle) load(id int) cache.Loader {
	return func(ctx context.Context) (cache.Content, error) {
		conn, err := pgx.Connect(ctx, b.url)
		if err != nil {
			return cache.Content{}, err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		var title string
		err = conn.QueryRow(ctx, "select title from t where id = $1", id).Scan(&title)
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
	b.eventually(fmt.Sprintf("row %d is stored as %q", id, want), func() bool {
		title, outcome := b.title(id)
		return title == want && outcome == cache.HitLocal
	})
}

// oldAfterHang reports whether the old row is still served after a commit that hung for a synchronous standby has
// returned, and a later commit's keys have been deleted.
func oldAfterHang(t *testing.T, switches Switches) bool {
	b := setup(t)
	b.run(switches)
	b.stored(1, "old")
	b.exec("alter system set synchronous_standby_names = 'ghost'")
	b.exec("select pg_reload_conf()")
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
	b.exec("alter system reset synchronous_standby_names")
	b.exec("select pg_reload_conf()")
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
