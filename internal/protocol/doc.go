// Package protocol is a model of how Walkey deletes, fills and trusts, small enough to look at every state that it can reach.
//
// It holds tests alone: one key, two writers of its row, two loaders of one api process, one invalidator that may crash at any
// moment, one Valkey that may come back empty or from an old file, one connection that may be slow for ever or be made anew. Every
// step may come at any time, or never. With all mechanisms no state is reached in which a value is served that was overwritten
// longer ago than the bound; without any one of them there is such a state, and the test prints the shortest way to it.
//
// It says nothing about what it leaves out: several keys, several processes (a second one differs only in having a connection of
// its own), the loss of a commit by a crash, and whether the code does what the model says, which is what the torture run is for.
package protocol
