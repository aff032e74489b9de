// Package freeport finds loopback TCP ports for servers that are started and restarted on this machine.
//
// The ports lie outside the range from which the kernel takes the ports of outgoing connections. One from inside it, as port 0
// gives, can be taken by any client while its server is down, and a client that keeps dialling a dead port of that range sooner
// or later connects to itself; either way the server could not come back to its port.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// Host is the address that the ports are free on.
const Host = "127.0.0.1"

const (
	low      = 10000
	high     = 32767 // the usual end: Linux takes 32768 and up for outgoing connections
	attempts = 200
)

// Listen opens a listener on a free port of [Host].
func Listen() (net.Listener, error) {
	from, to := bounds()
	var last error
	for range attempts {
		l, err := net.Listen("tcp", net.JoinHostPort(Host, strconv.Itoa(from+rand.IntN(to-from+1))))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no free port between %d and %d: %w", from, to, last)
}

// Pick returns a port that was free a moment ago. Another process may take it before the caller does: who can, tries another then.
func Pick() (int, error) {
	l, err := Listen()
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, err
	}
	return port, nil
}

// bounds is the range to take ports from: below that of outgoing connections, or above it where there is no room below.
func bounds() (from, to int) {
	var first, last int
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return low, high
	}
	if n, _ := fmt.Sscan(string(text), &first, &last); n != 2 {
		return low, high
	}
	return boundsOutside(first, last)
}

func boundsOutside(first, last int) (from, to int) {
	const room = 2000
	switch {
	case min(first-1, high)-low >= room:
		return low, min(first-1, high)
	case 65535-last >= room:
		return last + 1, 65535
	default:
		return low, high
	}
}
