package cache

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const auditPosition = 100 // the end of the WAL in these tests

// auditing is a cache all of whose hits are audited, and what it logs as errors.
func (b *bundle) auditing(change ...func(*Options)) (*Cache, *observer.ObservedLogs) {
	b.t.Helper()
	core, logs := observer.New(zap.ErrorLevel)
	c := b.trusted(append(change, within(time.Second), func(o *Options) {
		o.AuditRate = 1
		o.Position = func(context.Context) (uint64, error) { return auditPosition, nil }
		o.Logger = zap.New(core)
	})...)
	return c, logs
}

func (b *bundle) progress(position uint64) {
	b.t.Helper()
	err := b.eraser.ClaimProgress(b.t.Context(), "me")
	if err == nil {
		err = b.eraser.SetProgress(b.t.Context(), "me", position)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// A wrong value that somebody has put there is found, with the eraser's progress past the load or without any.
func TestAnAuditFindsAWrongValue(t *testing.T) {
	t.Parallel()
	for _, progress := range []uint64{auditPosition, 0} {
		eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
			b := setup(t)
			c, logs := b.auditing()
			if progress > 0 {
				b.progress(progress)
			}
			at := address(c, "k")
			s := newSource("right")
			await10(t, "audits", func() bool {
				fetch(t.Context(), c, at, s.load)
				return c.Stats().AuditsConsistent > 1
			})
			if stats := c.Stats(); stats.AuditsStale+stats.AuditsStaleLong+stats.AuditsLag > 0 {
				t.Fatalf("%+v", stats)
			}
			wrong := string(loadedValue(Content{Body: []byte("wrong")}, fillID{1}, nil).storable(plain))
			if at.isField {
				b.must("HSET", at.key, at.field, wrong)
			} else {
				b.must("SET", at.key, wrong)
			}
			await10(t, "alarm", func() bool {
				fetch(t.Context(), c, at, s.load)
				return c.Stats().AuditsStaleLong > 0
			})
			messages := 0
			for _, entry := range logs.FilterMessageSnippet("audit").All() {
				fields := entry.ContextMap()
				if fields["key"] != at.key || fields["field"] != at.field || fields["served"] != TagOf([]byte("wrong")) || fields["loaded"] != TagOf([]byte("right")) ||
					fields["lsn"] != "0/64" || fields["age"].(time.Duration) < 0 {
					t.Errorf("%v", fields)
				}
				messages++
			}
			if want := map[bool]int{true: 2, false: 1}[progress > 0]; messages < want {
				t.Errorf("%d lines of the log", messages)
			}
			if stats := c.Stats(); stats.AuditsLag > 0 {
				t.Errorf("%d are lag", stats.AuditsLag)
			}
		})
	}
}

// A change whose delete is on its way, or that nobody deletes for a while because the eraser stands still, raises no alarm.
func TestAnAuditKnowsLag(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"the delete comes", "the eraser stands still"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c, logs := b.auditing()
			b.progress(auditPosition - 1)
			at := c.At("k")
			s := newSource("old")
			fetch(t.Context(), c, at, s.load)
			await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
			await10(t, "idle auditor", func() bool { return len(c.auditor.asked) == 0 })
			if name == "the eraser stands still" {
				b.heart.paused.Store(true)
			}
			s.set("new")
			loads := s.loads.Load()
			await10(t, "audit", func() bool {
				fetch(t.Context(), c, at, s.load)
				return s.loads.Load() > loads
			})
			if name == "the delete comes" {
				b.delete(at)
				b.progress(auditPosition)
			}
			await10(t, "end of the audit", func() bool { return c.Stats().AuditsLag > 0 || c.Stats().AuditsStale+c.Stats().AuditsStaleLong > 0 })
			if stats := c.Stats(); stats.AuditsStale+stats.AuditsStaleLong > 0 || logs.Len() > 0 {
				t.Errorf("%d and %d are stale, the log has %v", stats.AuditsStale, stats.AuditsStaleLong, logs.All())
			}
		})
	}
}

// A commit that hangs is seen by loads from a copy of the source, and not by an audit, which asks the source.
func TestAnAuditKnowsWhatIsAhead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, logs := b.auditing()
	at := c.At("k")
	var audits atomic.Int64
	load := func(ctx context.Context) (Content, error) {
		if Audits(ctx) {
			audits.Add(1)
			return Content{Body: []byte("visible")}, nil
		}
		return Content{Body: []byte("hangs")}, nil
	}
	await10(t, "end of an audit", func() bool {
		if got := fetch(t.Context(), c, at, load); got.body != "hangs" {
			t.Fatalf("%+v", got)
		}
		stats := c.Stats()
		return audits.Load() > 0 && stats.AuditsConsistent+stats.AuditsStale+stats.AuditsStaleLong > 0
	})
	if stats := c.Stats(); stats.AuditsStale+stats.AuditsStaleLong > 0 || logs.Len() > 0 {
		t.Errorf("%d and %d are stale, the log has %v", stats.AuditsStale, stats.AuditsStaleLong, logs.All())
	}
}

// Neither the source nor, any more, its copy shows what was read from the copy, for a commit hangs and the copy is gone: then the eraser's
// progress stands, and there is nothing to be said. Without copies that is an alarm, see TestAnAuditFindsAWrongValue.
func TestAnAuditKnowsWhatItCannotJudge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, logs := b.auditing(func(o *Options) { o.Copies = true })
	b.progress(auditPosition - 1)
	at, s := c.At("k"), newSource("hangs")
	fetch(t.Context(), c, at, s.load)
	await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	await10(t, "idle auditor", func() bool { return len(c.auditor.asked) == 0 })
	s.set("visible")
	await10(t, "end of the audit", func() bool {
		fetch(t.Context(), c, at, s.load)
		stats := c.Stats()
		return stats.AuditsUnfinished+stats.AuditsStale+stats.AuditsStaleLong > 0
	})
	if stats := c.Stats(); stats.AuditsStale+stats.AuditsStaleLong > 0 || logs.Len() > 0 {
		t.Errorf("%d and %d are stale, the log has %v", stats.AuditsStale, stats.AuditsStaleLong, logs.All())
	}
	b.progress(auditPosition) // a difference that outlives the progress is one
	await10(t, "alarm", func() bool {
		fetch(t.Context(), c, at, s.load)
		return c.Stats().AuditsStale+c.Stats().AuditsStaleLong > 0
	})
}

// Audits are one in so many hits, and cost the others nothing.
func TestAuditsAreSampled(t *testing.T) { // not parallel: allocations are counted
	const every = 1000
	b := setup(t)
	c := b.trusted(func(o *Options) {
		o.AuditRate = every
		o.Position = func(context.Context) (uint64, error) { return 0, nil }
	})
	at := c.At("k")
	body := strings.Repeat("x", 100)
	s := newSource(body)
	load := Loader(s.load)
	ctx := context.Background()
	await10(t, "local copy", func() bool { return fetch(ctx, c, at, load).outcome == HitLocal })
	n := testing.AllocsPerRun(every/2, func() {
		if _, outcome, err := c.Fetch(ctx, at, Lists, load); err != nil || outcome > HitValkey {
			t.Error(outcome, err)
		}
	})
	if n > 0 {
		t.Errorf("a hit allocates %v times", n)
	}
	audits := func() bool {
		for range every {
			if _, _, err := c.Fetch(ctx, at, Lists, load); err != nil {
				t.Fatal(err)
			}
		}
		return c.Stats().AuditsConsistent >= 5
	}
	await10(t, "audits", audits)
	stats := c.Stats()
	if most := (stats.HitsLocal+stats.HitsValkey)/every + 1; stats.Audits > most {
		t.Errorf("%d audits of %d hits", stats.Audits, stats.HitsLocal)
	}
}
