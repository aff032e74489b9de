// Package cdc follows a logical replication slot of Postgres and hands over the row changes of committed transactions.
//
// Guaranteed: every change that a wanted table of the publication makes after the slot's position is delivered, in commit
// order, at least once; a transaction that rolled back (and what a savepoint of a committed one rolled back) is never
// delivered; what was confirmed is not sent again, save after a restart of the primary, which may forget the newest
// confirmations. Only whole commits are confirmed, never anything that this connection has not handed out. What
// cannot be decoded ends the stream with a [DecodeError]; nothing is skipped. With Options.Streaming large transactions are
// received while they are open, and held in bounded memory until they commit; one that is too large for that ends the stream
// with a [TooLargeError], and comes by a stream without it.
//
// Not guaranteed: that a delivered transaction is visible to readers already (Postgres sends a commit before it makes
// it visible), exactly-once delivery, and any news of what logical replication is silent about (most DDL, ATTACH and
// DETACH PARTITION, tables that leave the publication). A [Stream] is one connection: when it ends, [Open] it again.
package cdc
