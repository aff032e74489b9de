// Package pace ticks for the periodic work of a process.
//
// All tickers tick at multiples of their period from one moment on, so that what is due every 250 ms, every second and every five
// falls together, and the process wakes up once for it. On Linux a tick is an event among others (timerfd_create(2)) and not a timer
// of Go's: the poller waits for those in whole milliseconds, so that it wakes up before one, and once more after it, and another
// thread looks out for it meanwhile.
package pace

import (
	"sync"
	"time"
)

// began is the moment that all periods are counted from.
var began = time.Now()

// untilNext is the time until the next multiple of a period, which may be as long as the period and never is zero.
func untilNext(period time.Duration) time.Duration { return period - time.Since(began)%period }

// A Ticker is waited for. Ticks that come while nobody waits are one.
type Ticker struct{ timer timer }

// timer ticks periodically. Its wait is for one goroutine, its stop for any.
type timer interface {
	wait() bool
	stop()
}

// Every makes a Ticker with a period, which must be more than zero.
func Every(period time.Duration) *Ticker {
	if t, err := openTimer(period); err == nil {
		return &Ticker{t}
	}
	return &Ticker{newClock(period)}
}

// Wait waits for the next tick, and says false when there are none any more. One goroutine may wait at a time.
func (t *Ticker) Wait() bool { return t.timer.wait() }

// Stop ends the ticks, and a Wait that is under way. It may be called from anywhere, and again.
func (t *Ticker) Stop() { t.timer.stop() }

// Signals are ticks for a select.
type Signals struct {
	C      <-chan struct{} // with room for one; never closed
	ticker *Ticker
	over   sync.WaitGroup
}

// Signal is Every with a channel.
func Signal(period time.Duration) *Signals {
	c := make(chan struct{}, 1)
	s := &Signals{C: c, ticker: Every(period)}
	s.over.Go(func() {
		for s.ticker.Wait() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	})
	return s
}

// Stop ends the signals. When it has returned, none comes any more.
func (s *Signals) Stop() {
	s.ticker.Stop()
	s.over.Wait()
}

// clock is a timer by Go's own.
type clock struct {
	period  time.Duration
	stopped chan struct{}
	once    sync.Once
}

func newClock(period time.Duration) *clock {
	return &clock{period: period, stopped: make(chan struct{})}
}

func (c *clock) wait() bool {
	timer := time.NewTimer(untilNext(c.period))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.stopped:
		return false
	}
}

func (c *clock) stop() { c.once.Do(func() { close(c.stopped) }) }
