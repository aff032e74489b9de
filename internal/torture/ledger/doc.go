// Package ledger judges answers by what was committed.
//
// A [History] knows, for each id of a table, which state could be the true one when: from before its COMMIT was sent until
// the COMMIT that overwrote it had returned, or until a crash that took it back was noticed. A [View] is what one client has seen
// of one address in one process.
//
// It guarantees that an answer that is right is never called wrong: where the moment of a change is not known, both states count
// as true. It may therefore miss an answer that is too old by less than that uncertainty. It does no I/O and reads no clock.
package ledger
