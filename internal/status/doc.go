// Package status says what is true right now: whether changes reach the cache, how far behind they are, and how Postgres,
// Valkey and the processes that serve from the cache fare.
//
// A [Collector] asks both servers, and takes along what a running invalidator knows of itself. It changes nothing, holds
// no slot, and gives a [Report] in any weather: a server that does not answer is part of it, within a second or two.
//
// It does not guarantee that all parts of a report are of one instant. What it says of another process than its own it
// infers from the slot and the heartbeat: why that process is behind it can't know.
package status
