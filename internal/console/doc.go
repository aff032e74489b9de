// Package console shows people what a running invalidator does: a page at its address, a report of what is true, and a
// stream of its events.
//
// It guarantees that watching never holds up the work: the invalidator writes what it does into a ring of bounded size,
// and whoever reads too slowly misses events and is told how many, or is cut off. Everything on the page comes from the
// process itself; no part of it is asked of another host. It offers no action, and shows no password.
//
// It does not know who looks: it belongs on an address that the public can't reach. Of a large transaction it shows the
// first rows and keys, and how many there were.
package console
