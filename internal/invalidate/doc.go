// Package invalidate turns committed changes of Postgres into deleted keys of
// Valkey, and says with a heartbeat how far that has come.
//
// It joins a [cdc.Stream] to a [cache.Eraser]:
//
//	stream → rules (row change → keys) → withdraw → gate (visible to readers?) → delete → note → confirm
//
// It guarantees, for every committed transaction that touched a row which some
// rule names:
//
//   - its keys are deleted at least once, and only once the transaction is
//     visible to new snapshots on the primary, so that whoever misses a key
//     after its delete loads the new row;
//   - its LSN is confirmed to Postgres only after every delete was acknowledged
//     and the progress was noted in Valkey;
//   - the heartbeat moves only when every change that was visible at some moment
//     after the previous beat has been deleted;
//   - after a gap (a new slot, another server or timeline, a crash of Postgres, a
//     restart of Valkey, other rules) every key that rules can name is deleted
//     before the next beat.
//
// Before that, the values of small transactions are withdrawn as soon as they come,
// which is quicker and no guarantee.
//
// It does not guarantee that a key is deleted only once, nor that several keys of
// a transaction disappear at one instant, and it knows nothing of what the keys
// hold.
package invalidate
