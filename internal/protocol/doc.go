// Package protocol is a model of how Walkey deletes, fills and trusts, small enough to look at every state that it can reach.
//
// It holds tests alone: one key, two writers of its row, two loaders of one api process, one invalidator that may crash at any
// moment, one Valkey that may come back empty or from an old file, one connection that may be slow for ever or be made anew. Every
// step may come at any time, or never. With all mechanisms no state is reached in which a value is served that was overwritten
// longer ago than the bound; without any one of them there is such a state, and the test prints the shortest way to it.
//
// Loads come from the primary or from a standby, which may show a commit before the primary does.
//
// It says nothing about what it leaves out: a failover of Valkey, after which the deletes that the new primary lacks are repeated (without
// that it is the restart from an old file without the resynchronisation, which is here); several keys, several processes (a second one differs only in having a connection of
// its own), the loss of a commit by a crash, and whether the code does what the model says, which is what the torture run is for.
package protocol
