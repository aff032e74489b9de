package cache

import (
	"testing"
	"time"

	"go.uber.org/zap"
)

func newTestGuard() *guard {
	return newGuard(Options{MaxStaleness: 1000, Logger: zap.NewNop()})
}

// see lets the guard see a heartbeat, read within one tick.
func (g *guard) see(issued time.Duration, number uint64) {
	g.saw(g.reading(), issued, issued+1, number, 1)
}

func TestGuardTrustsUntilTheBoundAfterTheProof(t *testing.T) {
	t.Parallel()
	g := newTestGuard()
	for i, want := range []bool{false, false, true} {
		now := time.Duration(100 * (i + 1))
		g.see(now, uint64(10+i))
		if got := g.current(now+1) != nil; got != want {
			t.Errorf("after heartbeat %d: %v", i, got)
		}
	}
	if g.current(1099) == nil { // the proof: the reading at 100
		t.Error("not trusted within the bound")
	}
	if g.current(1100) != nil {
		t.Error("trusted beyond the bound")
	}
}

func TestGuardIsRevoked(t *testing.T) {
	t.Parallel()
	trusted := func() *guard {
		g := newTestGuard()
		g.see(100, 10)
		g.see(200, 12)
		if g.current(201) == nil {
			t.Fatal("not trusted")
		}
		return g
	}
	rows := []struct {
		name   string
		revoke func(*guard)
	}{
		{"by a connect", (*guard).revoke},
		{"by no heartbeat", func(g *guard) { g.sawNone(g.reading()) }},
		{"by a smaller heartbeat", func(g *guard) { g.see(300, 11) }},
		{"by one with another origin", func(g *guard) { g.saw(g.reading(), 300, 301, 500, 500) }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g := trusted()
			before := g.current(250)
			row.revoke(g)
			if g.current(301) != nil {
				t.Error("still trusted")
			}
			// What was read before is not served any more, even when there is trust again.
			g.see(400, 1000)
			g.see(410, 1002)
			g.see(420, 1004)
			if g.current(421) == nil {
				t.Fatal("not trusted again")
			}
			if g.holds(before, 421) {
				t.Error("a read from before is served")
			}
		})
	}
}

func TestGuardForgetsReadingsThatBeganBeforeAConnect(t *testing.T) {
	t.Parallel()
	g := newTestGuard()
	g.see(100, 10)
	epoch := g.reading()
	g.revoke()
	g.saw(epoch, 200, 201, 12, 1)
	if g.current(202) != nil {
		t.Error("trusted by a reading from before the connect")
	}
	g.see(300, 12) // the first one that counts
	g.see(400, 13)
	if g.current(401) != nil {
		t.Error("trusted by one heartbeat after the connect")
	}
	g.see(500, 14)
	if g.current(501) == nil {
		t.Error("not trusted after two")
	}
}

func TestGuardServesFromMemoryWhileReadingsFail(t *testing.T) {
	t.Parallel()
	g := newTestGuard()
	g.see(100, 10)
	g.see(200, 12)
	before := g.current(201)
	g.failed(g.reading())
	if got := g.current(202); got == nil || !got.memoryOnly {
		t.Fatalf("after a failure: %+v", got)
	}
	if !g.holds(before, 203) {
		t.Error("a failure has revoked")
	}
	if g.bypass() != BypassDown {
		t.Error("the reason is not that Valkey is down")
	}
	if g.current(1101) != nil {
		t.Error("trusted beyond the bound")
	}
	g.see(300, 12)
	if got := g.current(301); got == nil || got.memoryOnly {
		t.Errorf("after a success: %+v", got)
	}
	if g.bypass() != BypassGuard {
		t.Error("the reason is still that Valkey is down")
	}
}

// A read may have been before a renewal of trust, so only what it began under counts.
func TestGuardHoldsAReadToItsOwnTrust(t *testing.T) {
	t.Parallel()
	g := newTestGuard()
	g.see(100, 10)
	g.see(200, 12)
	t1 := g.current(201)
	g.see(900, 14)
	if g.current(1150) == nil {
		t.Fatal("trust was not renewed")
	}
	if g.holds(t1, 1150) {
		t.Error("a read under the former trust is served after its end")
	}
	if !g.holds(t1, 1050) {
		t.Error("a read under the former trust is not served before its end")
	}
}

func TestParseBeat(t *testing.T) {
	t.Parallel()
	rows := []struct {
		value          string
		number, origin uint64
		ok             bool
	}{
		{"12:10:a:b", 12, 10, true},
		{"12:10:", 12, 10, true},
		{"12:10", 0, 0, false},
		{"", 0, 0, false},
		{"x:10:a", 0, 0, false},
		{"12:x:a", 0, 0, false},
		{"9:10:a", 0, 0, false},
		{"9:0:a", 0, 0, false},
		{"-9:1:a", 0, 0, false},
		{"99999999999999999999:1:a", 0, 0, false},
	}
	for _, row := range rows {
		number, origin, ok := parseBeat(row.value)
		if ok != row.ok || ok && (number != row.number || origin != row.origin) {
			t.Errorf("%q: %d, %d, %v", row.value, number, origin, ok)
		}
	}
}
