package cdc

import (
	"net"
	"syscall"
)

// setLowWater says from how many waiting bytes on the kernel tells Go's poller of new ones (SO_RCVLOWAT of socket(7)). While
// nothing is to be read for a moment, being told of each message costs both sides more than the message. A read that is tried
// gets what is there in any case, so a connection that has no such option loses nothing but the gain.
func setLowWater(c net.Conn, bytes int) {
	if under, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = under.NetConn()
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return // closed: the next read says so
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
	})
}
