package program

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Address is a host and a port to listen on, such as ":8080". Port 0 takes a free one.
type Address string

// UnmarshalText accepts what net.Listen does, with a numeric port.
func (a *Address) UnmarshalText(text []byte) error {
	_, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an address; write HOST:PORT or :PORT", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no usable port; write HOST:PORT or :PORT with a port from 0 to 65535", text)
	}
	*a = Address(text)
	return nil
}

// Port is the port of a server to connect to.
type Port uint16

// UnmarshalText accepts 1 to 65535 and explains the value that Kubernetes puts there unasked.
func (p *Port) UnmarshalText(text []byte) error {
	if strings.Contains(string(text), "://") {
		return fmt.Errorf("%q is an address that Kubernetes injects for a Service of that name, not a port; "+
			"set enableServiceLinks: false on the pod, or give the variable a number", text)
	}
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a port; write a number from 1 to 65535", text)
	}
	*p = Port(n)
	return nil
}
