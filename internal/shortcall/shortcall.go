// Package shortcall makes system calls that cannot block without telling Go's scheduler of them.
//
// The scheduler has a thread that watches for calls which last. It sleeps while the process is idle, is woken by the first call
// after that, and then looks every 20 µs until the process is idle again: in a process that wakes up a few times a second for a
// moment, that takes more than everything that it wakes up for. A call on a socket that does not block never lasts, so nobody
// needs to watch it.
//
// The price: that thread also interrupts goroutines that compute for more than 10 ms while others wait for the same processor. One that
// has made nothing but short calls since the process was idle is not interrupted; idle processors take the others over, as ever.
//
// Elsewhere than on Linux, and for what is no socket of the system's, everything is as without this package.
package shortcall
