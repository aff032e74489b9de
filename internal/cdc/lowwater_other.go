//go:build !linux

package cdc

import "net"

// setLowWater does nothing here: other kernels tell of each arrival.
func setLowWater(net.Conn, int) {}
