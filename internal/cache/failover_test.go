package cache

import (
	"context"
	"testing"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// A failover while all is well, one after a kill, and what was the primary coming back: no answer is older than the bound, and
// nothing is emptied when the new primary tells how far its copy went.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	s := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1})
	k := startKeeper(t, sentinelOptions(s))
	caches := []*Cache{k.open(), k.open()}
	v := &versions{}
	at := spread(caches[0], 12)
	stop := v.readers(t, k.options.MaxStaleness, caches, at)
	writing, end := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for writing.Err() == nil {
			k.change(v.next, at...)
			<-time.After(5 * time.Millisecond)
		}
	}()
	settled := func() {
		t.Helper()
		if err := s.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range caches {
			k.awaitTrust(c)
		}
	}
	if err := s.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled()
	killed, err := s.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Promoted(t.Context(), killed); err != nil {
		t.Fatal(err)
	}
	// Who was killed comes back with an old file, as a primary until a sentinel has told it otherwise. A keeper that has not heard of the
	// promotion yet would find it there, and rightly empty it.
	await10(t, "news of both promotions", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.promoted >= 2
	})
	if err := killed.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled()
	end()
	<-written
	stop()
	if repeated, scanned := k.counts(); scanned > 0 {
		t.Errorf("%d deletes were repeated and %d primaries emptied", repeated, scanned)
	}
}

// losses loses a delete that was acknowledged, by a failover to a replica that had not heard of it, and gives what is answered then.
type losses struct {
	keeper *keeper
	lose   func(t *testing.T, lost func())
}

// bySentinelFailover and byClusterFailover cut the replication, let a delete happen, and kill the primary.
func bySentinelFailover(t *testing.T, off Switches) losses {
	f := newFronts()
	s := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1, Front: func(n *embedded.Node) (int, error) {
		f.clients[n] = f.listen(t, n.Addr())
		return f.clients[n].Port(), nil
	}})
	o := sentinelOptions(s)
	o.Switches = off
	return losses{startKeeper(t, o), func(t *testing.T, lost func()) {
		t.Helper()
		inStep(t, s.Servers[0], s.Servers[1])
		f.clients[s.Servers[0]].CutFrom(s.Servers[1].Source)
		lost()
		if err := s.Servers[0].Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Promoted(t.Context(), s.Servers[0]); err != nil {
			t.Fatal(err)
		}
	}}
}

func byClusterFailover(t *testing.T, off Switches) losses {
	f := newFronts()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{Primaries: 3, Replicas: 1, Front: f.ofCluster(t)})
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, f.clients[n].Addr())
	}
	return losses{startKeeper(t, Options{Addrs: addrs, Switches: off}), func(t *testing.T, lost func()) {
		t.Helper()
		for i := range 3 {
			inStep(t, c.Nodes[i], c.Nodes[i+3])
		}
		f.clients[c.Nodes[0]].CutFrom(c.Nodes[3].Source)
		lost()
		if err := c.Nodes[0].Kill(); err != nil {
			t.Fatal(err)
		}
		await10(t, "promotion", func() bool {
			now, err := c.Primary(t.Context(), c.Nodes[1], 0)
			return err == nil && now == c.Nodes[3]
		})
	}}
}

// inStep waits until a replica has everything that its primary has.
func inStep(t *testing.T, primary, replica *embedded.Node) {
	t.Helper()
	await10(t, "step", func() bool {
		ours, err1 := primary.Ask(t.Context(), "ROLE")
		theirs, err2 := replica.Ask(t.Context(), "ROLE")
		return err1 == nil && err2 == nil && ours[0] == "master" && ours[1] == theirs[len(theirs)-1]
	})
}

// An acknowledged delete that the new primary lacks is repeated before the next heartbeat. Without that the old value would be
// served for as long as it lives.
func TestDeletesThatAFailoverLost(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T, Switches) losses{"sentinel": bySentinelFailover, "cluster": byClusterFailover} {
		for _, off := range []bool{false, true} {
			row := name
			if off {
				row += " without replay"
			}
			t.Run(row, func(t *testing.T) {
				t.Parallel()
				l := start(t, Switches{NoReplay: off})
				k := l.keeper
				c := k.open()
				s := newSource("old")
				var at []Address
				for i := 0; len(at) < 4; i++ { // on the first primary
					if a := c.At(ident(i)); a.slot < slotCount/3 {
						at = append(at, a)
					}
				}
				for _, a := range at {
					if got := fetch(t.Context(), c, a, s.load); got.outcome != MissStored {
						t.Fatalf("%+v", got)
					}
				}
				l.lose(t, func() {
					k.change(func() { s.set("new") }, at[:3]...)
					// And one by its pattern, as after a TRUNCATE.
					if _, err := k.eraser.DeleteMatching(t.Context(), []string{at[3].key}); err != nil {
						t.Error(err)
					}
				})
				await10(t, "another primary", func() bool {
					k.mu.Lock()
					defer k.mu.Unlock()
					return k.promoted > 0
				})
				k.awaitTrust(c)
				for i, a := range at {
					got := fetch(t.Context(), c, a, s.load)
					if off != (got.body == "old") {
						t.Errorf("%d: %+v", i, got)
					}
				}
				repeated, scanned := k.counts()
				if !off && repeated < 3 || off && repeated > 0 || scanned > 0 {
					t.Errorf("%d deletes were repeated, %d primaries emptied", repeated, scanned)
				}
			})
		}
	}
}

// When the ledger does not reach back to where the new primary's copy ends, everything is deleted there.
func TestFailoverBeyondTheLedger(t *testing.T) {
	t.Parallel()
	l := bySentinelFailover(t, Switches{})
	k := l.keeper
	c := k.open()
	at, s := c.At("key"), newSource("old")
	if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored {
		t.Fatalf("%+v", got)
	}
	l.lose(t, func() {
		k.change(func() { s.set("new") }, at)
		k.eraser.ledger.mu.Lock()
		defer k.eraser.ledger.mu.Unlock()
		for _, d := range k.eraser.ledger.entries { // as if so much had been deleted since
			k.eraser.ledger.forgotten[d.history] = d.offset
		}
		k.eraser.ledger.entries = nil
	})
	await10(t, "another primary", func() bool { _, scanned := k.counts(); return scanned > 0 })
	k.awaitTrust(c)
	if got := fetch(t.Context(), c, at, s.load); got.body != "new" {
		t.Errorf("%+v", got)
	}
}

// A primary that comes back with what an old file holds is emptied before it is trusted, although it names its old history.
func TestPrimaryFromAnOldFile(t *testing.T) {
	t.Parallel()
	s := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1, DownAfter: time.Minute})
	k := startKeeper(t, sentinelOptions(s))
	c := k.open()
	at, from := c.At("key"), newSource("old")
	if got := fetch(t.Context(), c, at, from.load); got.outcome != MissStored {
		t.Fatalf("%+v", got)
	}
	if _, err := s.Servers[0].Ask(t.Context(), "SAVE"); err != nil {
		t.Fatal(err)
	}
	k.change(func() { from.set("new") }, at)
	if err := s.Servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Servers[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await10(t, "the server to be emptied", func() bool { _, scanned := k.counts(); return scanned > 0 })
	k.awaitTrust(c)
	if got := fetch(t.Context(), c, at, from.load); got.body != "new" {
		t.Errorf("%+v", got)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	entry := func(history string, offset int64, key string) deleted {
		return deleted{history: history, offset: offset, keys: []string{key}}
	}
	var l ledger
	l.begin("a", 100)
	l.add(entry("a", 150, "one"))
	l.add(entry("a", 200, "two"))
	l.add(entry("b", 300, "another's"))
	l.add(entry("", 0, "anywhere"))
	for _, row := range []struct {
		next int64
		want int
		ok   bool
	}{{100, 0, false}, {101, 3, true}, {150, 3, true}, {151, 2, true}, {200, 2, true}, {201, 1, true}} {
		got, ok := l.lacking("a", row.next)
		if len(got) != row.want || ok != row.ok {
			t.Errorf("before %d: %d, %v", row.next, len(got), ok)
		}
	}
	if _, ok := l.lacking("b", 1000); ok {
		t.Error("a history that never began is known")
	}
	large := string(make([]byte, 1<<20))
	for i := range int64(40) {
		l.add(entry("a", 1000+i, large))
	}
	if l.bytes > ledgerBytes {
		t.Errorf("%d bytes", l.bytes)
	}
	if _, ok := l.lacking("a", 1020); ok {
		t.Error("what was forgotten is known")
	}
	if _, ok := l.lacking("a", 1039); ok {
		t.Error("something without a history was forgotten, and everything counts as known")
	}
}
