// Package cache keeps answers in Valkey and hands out only such as are true enough.
//
// It has two halves. A [Cache] is the reader's: look up, load what is missing, store it. An [Eraser] is the
// half of the one process that deletes what has changed, and proves to all readers by a heartbeat that it has.
//
// What it guarantees, given an eraser that deletes a key only after the change can be seen by new loads:
//
//   - A value is stored only under a lease that its load took before it began, and that nothing has touched since.
//     A delete takes the lease away with the key, so a load that began before a delete is never stored after it.
//   - A value from the cache is served only while the process can show that everything which could be seen
//     Options.MaxStaleness ago has been deleted. The proof is the heartbeat, read on the connection that also brings
//     the deletes. Without the proof, and while Valkey is away, loads go to their source, one for each key and process.
//   - Of one address, the answers of one process never go back in time for a client that asks one thing after the other, whether
//     they came from the cache, went into it, or past it.
//   - No more loads call their source at once than Options.Loads, and no more wait for that than Options.LoadQueue; who finds no place
//     gets ErrOverloaded, and what is in the cache is served all the same. A key has at most three loads at once.
//   - What is kept in memory stays within Options.LocalBytes.
//   - Who names a position in the WAL gets nothing older than the changes up to it ([Cache.FetchSince]).
//   - A Valkey that refuses to push what changes (CLIENT TRACKING) is used without local copies, under the same bounds.
//   - Valkey unreachable is never an error of [Cache.Fetch], and never makes it wait for long.
//   - No operation for all keys touches sessions or Walkey's own keys, or keys under another prefix.
//
// [Page] keeps a handler's whole answers in a Cache; [View] shows a Value to a client of HTTP.
//
// What it does not guarantee: that a delete is seen at once in another process (the push takes its way), that two keys
// change at one instant, and any truth for what is put in by [Cache.Set], which knows no lease. Time is the monotonic
// clock, which stands still while a machine is suspended.
package cache
