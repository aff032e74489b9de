// Command invalidator follows the logical replication stream of Postgres and deletes from Valkey the keys that depend on
// changed rows. See docs/guarantees.md for what that guarantees.
package main

import "walkey/internal/program"

// grammar is the command line: what it does without arguments is run.
type grammar struct {
	Run      runCommand      `cmd:"" default:"withargs" help:"Follow the stream and delete keys, until a signal. The default."`
	Setup    setupCommand    `cmd:"" help:"Make the publication and the slot, and let a role replicate. Can be repeated."`
	Teardown teardownCommand `cmd:"" help:"Drop the slot and the publication."`
	Doctor   doctorCommand   `cmd:"" help:"Check both servers and say how to mend what is wrong."`
	Status   statusCommand   `cmd:"" help:"Say what is true right now: whether changes reach the cache, how far behind, and how all parts fare."`
	Tail     tailCommand     `cmd:"" help:"Follow what the running invalidator does."`
	Explain  explainCommand  `cmd:"" help:"Say which keys a row's change deletes, or which rows a key depends on, and what is stored there."`
	Keys     keysCommand     `cmd:"" help:"List keys with type, TTL and size."`
	Flush    flushCommand    `cmd:"" help:"Delete keys."`
	Version  program.Version `cmd:"" help:"Say which build this is."`
}

func main() {
	program.Main("invalidator", "Walkey's invalidator: deletes the keys of changed rows from Valkey.", &grammar{})
}
