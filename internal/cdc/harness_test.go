package cdc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// patience bounds every wait of a test; reaching it is a failure.
const patience = time.Minute

// database is a fresh database of its own on a server, with one connection to run statements on.
type database struct {
	t    *testing.T
	url  string
	slot string
	conn *pgx.Conn
}

func newDatabase(t *testing.T, server *embedded.Postgres, sql ...string) *database {
	t.Helper()
	embeddedtest.Publishes(t, server, sql...)
	u := embeddedtest.Database(t, server)
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, url: u, slot: "slot_" + strings.TrimPrefix(parsed.Path, "/")}
	d.conn = d.connect()
	d.run(sql...)
	return d
}

// shared is a database on the server that the tests share.
func shared(t *testing.T, sql ...string) *database {
	t.Helper()
	return newDatabase(t, embeddedtest.SharedPostgres(t), sql...)
}

func (d *database) connect() *pgx.Conn {
	d.t.Helper()
	config, err := pgx.ParseConfig(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(d.t.Context(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run executes statements, each in a transaction of its own unless it says otherwise.
func (d *database) run(sql ...string) {
	d.t.Helper()
	for _, s := range sql {
		if _, err := d.conn.Exec(d.t.Context(), s); err != nil {
			d.t.Fatalf("%s: %v", s, err)
		}
	}
}

// query gives one value as text.
func (d *database) query(sql string, args ...any) string {
	d.t.Helper()
	var v string
	if err := d.conn.QueryRow(d.t.Context(), sql, args...).Scan(&v); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (d *database) lsn(sql string) LSN {
	d.t.Helper()
	l, err := ParseLSN(d.query(sql))
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

// mark commits something that changes no table and gives a position inside that transaction: once a stream's Position
// is beyond it, all that was committed before has come.
func (d *database) mark() LSN {
	d.t.Helper()
	return d.lsn(`SELECT pg_logical_emit_message(true, 'test', '')::text`)
}

// slotConfirmed is the slot's confirmed position.
func (d *database) slotConfirmed() LSN {
	d.t.Helper()
	return d.lsn(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = ` + literal(d.slot))
}

func (d *database) options(tables ...string) Options {
	o := Options{
		DatabaseURL: d.url, Slot: d.slot, Publication: "walkey",
		Columns: func(Table) []string { return []string{"id", "title"} },
	}
	for _, t := range tables {
		o.Tables = append(o.Tables, Table{"public", t})
	}
	return o
}

// open opens a stream that is closed with the test.
func (d *database) open(o Options) *follow {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	s, err := Open(ctx, o)
	if err != nil {
		d.t.Fatalf("open: %v", err)
	}
	f := &follow{t: d.t, Stream: s}
	d.t.Cleanup(f.close)
	return f
}

// follow is a stream with a taker.
type follow struct {
	t *testing.T
	*Stream
	transactions []Transaction // taken and not yet looked at
	position     LSN
}

func (f *follow) close() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		f.t.Errorf("close: %v", err)
	}
}

// take waits for a batch; the error is why the stream ended.
func (f *follow) take() error {
	f.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		b, err := f.Take()
		if err != nil {
			return err
		}
		if b != nil {
			if b.Position < f.position {
				f.t.Errorf("position went back from %s to %s", f.position, b.Position)
			}
			if b.Received.IsZero() {
				f.t.Error("a batch does not say when it was received")
			}
			for _, t := range b.Transactions {
				if t.Complete && t.End <= f.position {
					f.t.Errorf("transaction %d ended at %s and came when the position was %s", t.XID, t.End, f.position)
				}
			}
			f.position = b.Position
			f.transactions = append(f.transactions, b.Transactions...)
			return nil
		}
		select {
		case <-f.Ready():
		case <-timeout.C:
			f.t.Fatalf("nothing came, position %s", f.position)
		}
	}
}

// until takes until the stream's position is beyond a mark.
func (f *follow) until(mark LSN) []Transaction {
	f.t.Helper()
	for f.position <= mark {
		if err := f.take(); err != nil {
			f.t.Fatalf("the stream ended: %v", err)
		}
	}
	got := f.transactions
	f.transactions = nil
	return got
}

// end takes until the stream ends, and gives why.
func (f *follow) end() error {
	f.t.Helper()
	for {
		if err := f.take(); err != nil {
			return err
		}
	}
}

// changes gives the changes of transactions, each in a line; what belongs to one transaction is joined by a comma.
func changes(transactions []Transaction) []string {
	var lines []string
	var line []string
	for _, t := range transactions {
		for _, c := range t.Changes {
			line = append(line, c.story())
		}
		if t.Complete {
			lines = append(lines, strings.Join(line, ", "))
			line = nil
		}
	}
	if line != nil {
		lines = append(lines, strings.Join(line, ", ")+", …")
	}
	return lines
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-ticker.C
	}
}

// waits records what Open waits for.
type waits struct {
	mu   sync.Mutex
	all  []Wait
	news chan struct{}
}

func newWaits() *waits { return &waits{news: make(chan struct{}, 100)} }

func (w *waits) add(v Wait) {
	w.mu.Lock()
	w.all = append(w.all, v)
	w.mu.Unlock()
	w.news <- struct{}{}
}

// next waits for the next thing that Open waits for.
func (w *waits) next(t *testing.T) Wait {
	t.Helper()
	select {
	case <-w.news:
	case <-time.After(patience):
		t.Fatal("Open waits for nothing")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.all[0]
	w.all = w.all[1:]
	return v
}

// opening is an Open that goes on in the background.
type opening struct {
	stream *Stream
	err    error
	done   chan struct{}
	stop   context.CancelFunc
}

func (d *database) openLater(o Options) *opening {
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*patience)
	p := &opening{done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(p.done)
		p.stream, p.err = Open(ctx, o)
	}()
	d.t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

// wait gives the stream.
func (p *opening) wait(t *testing.T) *follow {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("Open does not return")
	}
	if p.err != nil {
		t.Fatalf("open: %v", p.err)
	}
	f := &follow{t: t, Stream: p.stream}
	t.Cleanup(f.close)
	return f
}

// setupError opens and wants to be told what to mend.
func (d *database) setupError(o Options) *SetupError {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	s, err := Open(ctx, o)
	if err == nil {
		_ = s.Close(ctx)
		d.t.Fatal("Open succeeded")
	}
	var e *SetupError
	if !errors.As(err, &e) {
		d.t.Fatalf("got %v, want a SetupError", err)
	}
	return e
}

func createTable(name string) string {
	return fmt.Sprintf(`CREATE TABLE %s (id int PRIMARY KEY, title text, n int)`, name)
}
