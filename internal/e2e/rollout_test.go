package e2e

import (
	"errors"
	"testing"
	"time"
)

// A rolling update under steady load, as the manifests have it: a new one comes before an old one goes, and nobody notices.
func TestRollout(t *testing.T) {
	t.Parallel()
	t.Run("api", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		svc := newService(t)
		pods := []*program{s.startAPI(), s.startAPI()}
		s.startInvalidator()
		h := s.versioned()
		for _, p := range pods {
			svc.add(p)
		}
		front := svc.front()
		front.waitHit(detailPath(1))
		stopWriting := s.writing(h, 5*time.Millisecond)
		stopReading := reading(t, h, front, front)
		for range 2 {
			for i, old := range pods {
				next := s.startAPI()
				svc.add(next)
				svc.remove(old)
				old.stop()
				pods[i] = next
			}
		}
		stopWriting()
		wantLatest(t, h, front)
		seen := stopReading()
		judge(t, s, h, seen)
		if seen.hits == 0 {
			t.Error("nothing came from the cache")
		}
	})
	// Old answers would be served for 15 s: the age of the oldest one is what deletes were held up.
	t.Run("invalidator", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.staleness = 15 * time.Second
		api := s.startAPI()
		pods := []*program{s.startInvalidator()}
		eventually(t, "the first is active", func() error { return active(pods[0]) })
		pods = append(pods, s.startInvalidator())
		h := s.versioned()
		api.waitHit(detailPath(1))
		stopWriting := s.writing(h, 5*time.Millisecond)
		stopReading := reading(t, h, api)
		handovers := 0
		for range 2 {
			for i, old := range pods {
				if active(old) == nil {
					handovers++
				}
				next := s.startInvalidator()
				old.stop()
				pods[i] = next
				eventually(t, "one is active", func() error {
					for _, p := range pods {
						if active(p) == nil {
							return nil
						}
					}
					return errors.New("none is")
				})
			}
		}
		stopWriting()
		wantLatest(t, h, api)
		seen := stopReading()
		judge(t, s, h, seen)
		if handovers == 0 {
			t.Error("no one that was active was replaced")
		}
		t.Logf("%d handovers; deletes were held up for at most %s (to be below 2s)", handovers, seen.worst.Round(time.Millisecond))
	})
}

// judge holds what readers saw during a rollout against the promises.
func judge(t *testing.T, s *servers, h *history, seen reader) {
	t.Helper()
	if seen.failure != nil {
		t.Errorf("a request failed: %v", seen.failure)
	}
	if seen.worst > s.staleness {
		t.Errorf("an answer was %s old, with MAX_STALENESS %s", seen.worst, s.staleness)
	}
	t.Logf("%d versions, %d reads, %d of them hits, none failed; the oldest answer was %s old, the slowest took %s",
		h.latest(), seen.reads, seen.hits, seen.worst.Round(time.Millisecond), seen.slowest.Round(time.Millisecond))
}
