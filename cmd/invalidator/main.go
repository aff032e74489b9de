// Command invalidator follows the logical replication stream of Postgres and deletes from Valkey the keys that depend on
// changed rows. See docs/guarantees.md for what that guarantees.
package main

import "walkey/internal/program"

// grammar is the command line: what it does without arguments is run.
type grammar struct {
	Run     runCommand      `cmd:"" default:"withargs" help:"Follow the stream and delete keys, until a signal. The default."`
	Version program.Version `cmd:"" help:"Say which build this is."`
}

func main() {
	program.Main("invalidator", "Walkey's invalidator: deletes the keys of changed rows from Valkey.", &grammar{})
}
