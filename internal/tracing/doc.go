// Package tracing sends spans by OpenTelemetry's protocol: those of requests and loads, which package api makes, and those of
// transactions and their deletes, which package transactions makes of what package invalidate tells.
//
// It is set up by OpenTelemetry's own variables, and off unless one of them names an endpoint: then nothing here costs anything.
// Sending never holds anybody up: what a collector does not take in time is dropped.
package tracing
