package invalidate

import (
	"context"
	"testing"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/faultproxy"
)

// A delete of the former holder that a failover of Valkey loses after a standby has taken over: the standby has not made it, knows
// that it knows nothing of that time, and deletes what the new primary may have kept.
func TestStandbyTakesOverBeforeAFailover(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fronts := map[*embedded.Node]*faultproxy.Proxy{}
	s := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1, Front: func(n *embedded.Node) (int, error) {
		p, err := faultproxy.Listen(context.WithoutCancel(t.Context()), n.Addr())
		if err != nil {
			return 0, err
		}
		t.Cleanup(func() { _ = p.Close() })
		fronts[n] = p
		return p.Port(), nil
	}})
	b.options = cache.Options{Addrs: s.Addrs(), SentinelMaster: embedded.SentinelName, Prefix: "p", Logger: zap.NewNop()}
	c, err := cache.Open(b.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b.cache = c

	stopFirst := b.run(Switches{})
	b.stored(1, "old")
	standby := &recorder{}
	b.observer = standby
	b.run(Switches{})
	b.eventually("the second stands by", func() bool { return len(told[Waiting](standby)) > 0 })
	primary, replica := s.Servers[0], s.Servers[1]
	b.eventually("the replica has what its primary has", func() bool {
		ours, err1 := primary.Ask(t.Context(), "ROLE")
		theirs, err2 := replica.Ask(t.Context(), "ROLE")
		return err1 == nil && err2 == nil && ours[0] == "master" && ours[1] == theirs[len(theirs)-1]
	})
	fronts[primary].CutFrom(replica.Source)
	b.exec("update t set title = 'new' where id = 1")
	b.stored(1, "new")
	stopFirst()
	b.stored(2, "old") // by the second's heartbeat
	b.exec("update t set title = 'new' where id = 2")
	b.stored(2, "new") // so it has taken over, and its ledger has begun

	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Promoted(t.Context(), primary); err != nil {
		t.Fatal(err)
	}
	b.eventually("the cache is trusted again", func() bool {
		_, outcome := b.title(2)
		return outcome == cache.HitLocal || outcome == cache.HitValkey || outcome == cache.MissStored
	})
	if got, outcome := b.title(1); got != "new" {
		t.Errorf("%q is served, %s", got, outcome)
	}
}
