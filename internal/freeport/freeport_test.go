package freeport

import (
	"net"
	"strconv"
	"testing"
)

func TestPickIsFreeAndInBounds(t *testing.T) {
	t.Parallel()
	from, to := bounds()
	for range 50 {
		port, err := Pick()
		if err != nil {
			t.Fatal(err)
		}
		if port < from || port > to {
			t.Errorf("port %d is outside %d to %d", port, from, to)
		}
	}
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(port); host != Host || err != nil || n < from || n > to {
		t.Errorf("listens on %s, want a port of %s from %d to %d", l.Addr(), Host, from, to)
	}
}

func TestBoundsLieOutsideOutgoingPorts(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ first, last, from, to int }{
		"the usual range":        {32768, 60999, 10000, 32767},
		"one that begins lower":  {16000, 60999, 10000, 15999},
		"one that begins higher": {49152, 65535, 10000, 32767},
		"no room below":          {1024, 60000, 60001, 65535},
		"no room at all":         {1024, 65535, 10000, 32767},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if from, to := boundsOutside(tt.first, tt.last); from != tt.from || to != tt.to {
				t.Errorf("%d to %d, want %d to %d", from, to, tt.from, tt.to)
			}
		})
	}
}
