package cache

import "context"

// FetchSince is Fetch for someone who knows of a change that ended at the position since in the WAL: the value is not
// older than that. It comes from a load that begins after the call did, and that all share who came before it began. The
// change is to be visible to the loader already. Nothing is stored.
func (c *Cache) FetchSince(ctx context.Context, at Address, _ TTL, _ uint64, load Loader) (Value, Outcome, error) {
	l, _ := c.enqueue(ctx, at, load)
	if l == nil {
		return Value{}, BypassToken, ErrClosed
	}
	if err := await(ctx, l.done); err != nil {
		return Value{}, BypassToken, err
	}
	c.counts.bypassesToken.Add(1)
	return l.value, BypassToken, l.err
}
