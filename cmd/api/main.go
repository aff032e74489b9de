// Api serves materials over HTTP from a cache that stays true to Postgres.
package main

import (
	"walkey/internal/program"
)

const description = "Serves materials over HTTP, from a cache in Valkey that stays true to Postgres."

// commandLine is all that the program can be told.
type commandLine struct {
	Serve   serve           `cmd:"" default:"withargs" help:"Serve HTTP, after migrating the database."`
	Migrate migrate         `cmd:"" help:"Bring the database's schema up to date."`
	Seed    seed            `cmd:"" help:"Put sample rows into an empty table, after migrating."`
	User    user            `cmd:"" help:"Manage the editors, who may change materials."`
	Version program.Version `cmd:"" help:"Say which build this is."`
}

func main() { program.Main("api", description, new(commandLine)) }
