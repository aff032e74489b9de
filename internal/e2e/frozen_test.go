package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// slow is what no request may take once the guard has tripped.
const slow = 500 * time.Millisecond

func bypassed(a answer) bool { return strings.HasPrefix(a.Cache, "walkey; fwd=bypass") }

// While the invalidator is frozen nothing older than MAX_STALENESS is served; thawed, hits come back.
func TestFrozenInvalidator(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	h := s.versioned()
	api.waitHit(detailPath(1))
	api.waitHit(listPath)

	invalidator.signal(syscall.SIGSTOP)
	stopWriting := s.writing(h, 20*time.Millisecond)
	stopReading := reading(t, h, api)
	a := api.waitFor(detailPath(1), "a bypass", bypassed)
	if a.Cache != "walkey; fwd=bypass; detail=stale-guard" {
		t.Errorf("the bypass says %q", a.Cache)
	}
	time.Sleep(s.staleness) // answers must stay within the bound in the bypass too: there is no event to wait for
	seen := stopReading()
	stopWriting()
	if seen.failure != nil {
		t.Error(seen.failure)
	}
	if limit := s.staleness + time.Second; seen.worst > limit {
		t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, limit, seen.reads)
	}
	if seen.hits == 0 {
		t.Error("no hit was seen before the guard tripped: the test shows nothing")
	}

	invalidator.signal(syscall.SIGCONT)
	wantLatest(t, h, api)
}

// A link to Valkey that is silent, with its connections open, is noticed; requests do not wait for it.
func TestSilentLinkToValkey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	link := s.proxy(s.valkeyAddr())
	api := s.startAPI(valkeyThrough(link))
	s.startInvalidator()
	h := s.versioned()
	api.waitHit(detailPath(1))
	api.waitHit(listPath)

	stopWriting := s.writing(h, 20*time.Millisecond)
	link.Silence()
	stopReading := reading(t, h, api)
	api.waitFor(detailPath(1), "a bypass", bypassed)
	tripped := stopReading()
	stopReading = reading(t, h, api)
	time.Sleep(s.staleness) // a while behind the guard: there is no event to wait for
	behind := stopReading()
	for _, seen := range []reader{tripped, behind} {
		if seen.failure != nil {
			t.Error(seen.failure)
		}
		if limit := s.staleness + time.Second; seen.worst > limit {
			t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, limit, seen.reads)
		}
	}
	if behind.slowest > slow {
		t.Errorf("behind the guard a request took %s, want at most %s", behind.slowest, slow)
	}
	if behind.hits > 0 {
		t.Errorf("%d hits over a silent link, longer than MAX_STALENESS after it fell silent", behind.hits)
	}

	link.Heal()
	stopWriting()
	wantLatest(t, h, api)
}

// A heartbeat that was held up on its way to Valkey does not make old news fresh.
func TestHeartbeatHeldUp(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	link := s.proxy(s.valkeyAddr())
	api := s.startAPI()
	s.startInvalidator(valkeyThrough(link))
	h := s.versioned()
	api.waitHit(detailPath(1))

	link.HoldRequests(mentions("walkey:heartbeat"))
	waitHeld(t, link)
	stopWriting := s.writing(h, 20*time.Millisecond)
	stopReading := reading(t, h, api)
	api.waitFor(detailPath(1), "a bypass", bypassed)
	link.Release() // the old beat arrives, and deletes behind it
	seen := stopReading()
	stopWriting()
	if seen.failure != nil {
		t.Error(seen.failure)
	}
	if limit := s.staleness + time.Second; seen.worst > limit {
		t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, limit, seen.reads)
	}
	wantLatest(t, h, api)
}
