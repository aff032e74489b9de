package invalidate

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"walkey/internal/embedded/embeddedtest"
)

// streams are settings of the invalidators that a bundle runs; zero as ever.
type streams struct {
	workMem string
	bytes   int
}

// streamed is a bundle whose invalidator is sent open transactions early, and of whose table 5000 rows can be changed.
func streamed(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.exec("insert into t select i, 'old' from generate_series(3, 5000) i")
	b.streams.workMem = "64kB"
	return b
}

// hasOpen waits until so many open transactions are held.
func (b *bundle) hasOpen(n int64) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d open transactions are held", n), func() bool { return b.metrics.open.Load() == n })
}

func count(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// fresh waits until the first and the last row are read as they are.
func (b *bundle) fresh(title string) {
	b.t.Helper()
	for _, id := range []int{1, 5000} {
		b.eventually(fmt.Sprintf("row %d is %s", id, title), func() bool { got, _ := b.title(id); return got == title })
	}
}

// While a transaction is streamed what is cached stays, and beats go on; when it is rolled back nothing is deleted; when it commits its
// keys are, also by an invalidator that began in the midst of it.
func TestStreamedTransaction(t *testing.T) {
	t.Parallel()
	b := streamed(t)
	stop := b.run(Switches{})
	b.stored(1, "old")
	b.stored(5000, "old")
	writer := b.connect()
	exec := func(sql string) {
		t.Helper()
		if _, err := writer.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []string{"rollback", "commit"} {
		exec("begin")
		exec("update t set title = 'new'")
		b.hasOpen(1)
		deletes, beats := count(b.metrics.deletes), count(b.metrics.beats)
		b.eventually("beats go on", func() bool { return count(b.metrics.beats) > beats+2 })
		if n := count(b.metrics.deletes); n != deletes {
			t.Errorf("%v keys were deleted while the transaction was open", n-deletes)
		}
		if end == "commit" {
			stop()
			stop = b.run(Switches{})
			b.eventually("it follows", func() bool { return b.metrics.Role() == "active" })
			exec("update t set title = 'newer'")
			b.hasOpen(1)
		}
		exec(end)
		b.hasOpen(0)
		if n := count(b.metrics.deletes); end == "rollback" && n != deletes {
			t.Errorf("%v keys were deleted for what was rolled back", n-deletes)
		}
	}
	b.fresh("newer")
	stop()
}

// What is streamed waits at the gate like everything else.
func TestStreamedTransactionThatHangs(t *testing.T) {
	t.Parallel()
	b := streamed(t)
	b.run(Switches{})
	b.stored(1, "old")
	embeddedtest.HoldCommits(t, b.postgres)
	transactions := count(b.metrics.transactions)
	committed := make(chan error, 1)
	writer := b.connect()
	go func() {
		_, err := writer.Exec(t.Context(), "update t set title = 'new'")
		committed <- err
	}()
	b.eventually("the commit is delivered", func() bool { return count(b.metrics.transactions) > transactions })
	beats := count(b.metrics.beats)
	b.eventually("beats go on", func() bool { return count(b.metrics.beats) > beats+2 })
	b.stored(1, "old")
	embeddedtest.ReleaseCommits(t, b.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	b.fresh("new")
}

// A transaction that is too large to be held is brought once more when it has committed, and then others are streamed again.
func TestStreamedTransactionTooLarge(t *testing.T) {
	t.Parallel()
	b := streamed(t)
	b.streams.bytes = 20_000
	b.run(Switches{})
	b.stored(1, "old")
	b.stored(5000, "old")
	resyncs := b.metrics.resync.Load()
	for _, title := range []string{"new", "newer"} {
		large := count(b.metrics.large)
		b.exec("update t set title = '" + title + "'")
		b.fresh(title)
		b.eventually("it was given up", func() bool { return count(b.metrics.large) == large+1 })
		writer := b.connect()
		// Once more is streamed: the session that brought the large one has ended.
		b.eventually("small ones are streamed again", func() bool {
			tx, err := writer.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(t.Context()) }()
			if _, err := tx.Exec(t.Context(), "update t set title = 'x' where id <= 1000"); err != nil {
				t.Fatal(err)
			}
			beats := count(b.metrics.beats)
			b.eventually("a beat", func() bool { return count(b.metrics.beats) > beats+1 })
			return b.metrics.open.Load() == 1
		})
	}
	if b.metrics.resync.Load() != resyncs {
		t.Error("everything was deleted")
	}
}
