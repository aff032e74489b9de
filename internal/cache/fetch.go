package cache

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const maxRounds = 16 // of looking and boarding for one request

// Fetch gives the value of an address: from the cache when that is fresh enough, else by loading it, together with all
// others who ask for it. It stores what it has loaded if nothing has been deleted meanwhile, for about ttl.
//
// An error is the loader's, or the caller's context's, ErrClosed or ErrOverloaded. That Valkey can't be reached is none. A caller whose
// context ends leaves; the load goes on for the others.
func (c *Cache) Fetch(ctx context.Context, at Address, ttl TTL, load Loader) (Value, Outcome, error) {
	return c.fetch(ctx, at, ttl, load, false)
}

// fetch is Fetch. With sinceCall nothing is used without trust that was loaded, or was being loaded, before the call.
func (c *Cache) fetch(ctx context.Context, at Address, ttl TTL, load Loader, sinceCall bool) (Value, Outcome, error) {
	begun := c.now()
	now := begun
	var seen sight
	for round := 1; ; round++ {
		place := c.at(at)
		g := place.node.guard
		t := place.trust(now)
		if t == nil {
			return c.without(ctx, at, load, g.bypass(), sinceCall)
		}
		guessed := c.lookOrGuess(now, t, place.node, at, &seen, round == 1)
		now = c.now()
		switch seen.state {
		case seenValue:
			if !g.holds(t, now) {
				continue // it may be old
			}
			if c.landings.concern(at) {
				if p := c.landings.of(at, seen.value.fill(), g.proves(t)); p != free {
					if v, o, err, done := c.overtaken(ctx, place.node, t, at, seen.value, load, p, sinceCall); done {
						return v, o, err
					}
					if round < maxRounds {
						now = c.now()
						continue
					}
					return c.loadAlone(ctx, at, load)
				}
			}
			if seen.local {
				if n := c.counts.hitsLocal.Add(1); n >= c.auditor.nextLocal.Load() {
					c.auditor.sample(ctx, &c.auditor.nextLocal, n, at, seen.value, load)
				}
				return seen.value, HitLocal, nil
			}
			if n := c.counts.hitsValkey.Add(1); n >= c.auditor.nextValkey.Load() {
				c.auditor.sample(ctx, &c.auditor.nextValkey, n, at, seen.value, load)
			}
			return seen.value, HitValkey, nil
		case seenLease:
			if !g.holds(t, now) {
				continue // neither may the load under it be shared
			}
		case seenFailure:
			if c.endingOf(seen.err) == unstorable {
				return c.loadAlone(ctx, at, load)
			}
			return c.without(ctx, at, load, BypassDown, sinceCall)
		case seenMalformed:
			c.discard(at, seen.stored)
			seen.stored = ""
		}
		if round >= maxRounds || now-begun > c.patience+waitForOther {
			// So much changes here that there is nothing to wait for.
			return c.loadAlone(ctx, at, load)
		}
		f, caused, err := c.board(ctx, at, seen.stored, ttl, load, g, t.epoch)
		if err != nil {
			return Value{}, MissRefused, err
		}
		if err := await(ctx, f.loaded); err != nil {
			return Value{}, MissCollapsed, err
		}
		if guessed {
			right := f.end == landed || f.end == joinOther
			c.foresight.found(!right)
			if !right {
				now = c.now()
				continue // it may be there to be read, whatever became of the lease
			}
		}
		if f.end == joinOther && caused {
			f, caused = f.other, false
			if err := await(ctx, f.loaded); err != nil {
				return Value{}, MissCollapsed, err
			}
		}
		switch f.end {
		case landed:
			return c.arrive(ctx, f, caused)
		case unreachable:
			return c.without(ctx, at, load, BypassDown, sinceCall)
		case unstorable:
			return c.loadAlone(ctx, at, load)
		}
		now = c.now()
	}
}

// without gives the value of an address without Valkey.
func (c *Cache) without(ctx context.Context, at Address, load Loader, why Outcome, sinceCall bool) (Value, Outcome, error) {
	if sinceCall {
		return c.loadSince(ctx, at, load)
	}
	return c.bypass(ctx, at, load, why)
}

// await waits for done, or for the caller's end.
func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// arrive gives a passenger what the flight has loaded. Who has caused the load also learns whether it was stored.
func (c *Cache) arrive(ctx context.Context, f *flight, caused bool) (Value, Outcome, error) {
	if !caused {
		c.counts.missesCollapsed.Add(1)
		return f.value, MissCollapsed, f.err
	}
	c.counts.misses.Add(1)
	if f.err != nil {
		return Value{}, MissRefused, f.err
	}
	patience := time.NewTimer(c.answer)
	defer patience.Stop()
	select {
	case <-f.over:
		if f.stored {
			return f.value, MissStored, nil
		}
	case <-patience.C:
	case <-ctx.Done(): // it has its answer nevertheless
	}
	return f.value, MissRefused, nil
}

// discard deletes malformed bytes, so that the load that follows can be stored.
func (c *Cache) discard(at Address, stored string) {
	c.counts.malformed.Add(1)
	c.log.Warn("malformed bytes in Valkey are discarded", zap.String("key", at.key), zap.Int("bytes", len(stored)))
	ctx, cancel := context.WithTimeout(c.writing, writeTimeout)
	defer cancel()
	if err := c.remove(ctx, at, stored); err != nil {
		c.log.Debug("malformed bytes were not discarded", zap.String("key", at.key), zap.Error(err))
	}
}
