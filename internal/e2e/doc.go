// Package e2e tests the two programs as their users run them: real binaries, real servers, faults between them.
//
// It holds tests alone. Each file is one weather: calm, late loads, a hanging commit, a frozen invalidator, a silent
// link, a dead Valkey, a crashed Postgres, kills under load.
package e2e
