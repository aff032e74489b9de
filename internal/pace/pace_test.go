package pace

import (
	"testing"
	"time"
)

// timers are the kinds that there are here.
func timers(t *testing.T, period time.Duration) map[string]timer {
	t.Helper()
	all := map[string]timer{"clock": newClock(period)}
	if own, err := openTimer(period); err == nil {
		all["the system's"] = own
	}
	for _, one := range all {
		t.Cleanup(one.stop)
	}
	return all
}

// Ticks come at multiples of the period from the common beginning on: never before, and as many as there are multiples.
func TestTicksAtMultiples(t *testing.T) {
	t.Parallel()
	const period = 20 * time.Millisecond
	for name, timer := range timers(t, period) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			former := time.Since(began) / period
			for range 10 {
				if !timer.wait() {
					t.Fatal("no tick")
				}
				now := time.Since(began) / period
				if now <= former {
					t.Fatalf("a tick in period %d, behind one in period %d", now, former)
				}
				former = now
			}
		})
	}
}

// Stop ends a wait, before it and while it lasts.
func TestStop(t *testing.T) {
	t.Parallel()
	for name, timer := range timers(t, time.Hour) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := make(chan bool)
			go func() { over <- timer.wait() }()
			timer.stop()
			if <-over {
				t.Error("a tick in an hour's time has come")
			}
			if timer.wait() {
				t.Error("a tick after the end")
			}
			timer.stop()
		})
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	s := Signal(time.Millisecond)
	for range 3 {
		<-s.C
	}
	s.Stop()
	select {
	case <-s.C: // it may have been waiting there
	default:
	}
	select {
	case <-s.C:
		t.Error("a signal after the end")
	default:
	}
}

func TestEvery(t *testing.T) {
	t.Parallel()
	ticker := Every(time.Millisecond)
	if !ticker.Wait() {
		t.Error("no tick")
	}
	ticker.Stop()
	for ticker.Wait() { // one may have come before
	}
}
