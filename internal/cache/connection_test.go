package cache

import (
	"crypto/tls"
	"net"
	"testing"
)

// A server that does not speak TLS, and says nothing to who does, is given up.
func TestDialTLSWhereThereIsNone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d := net.Dialer{Timeout: dialTimeout}
	dialled := make(chan error, 1)
	go func() {
		_, err := dial(t.Context(), l.Addr().String(), &d, &tls.Config{ServerName: "localhost"})
		dialled <- err
	}()
	if err := receive(t, "end of the handshake", dialled); err == nil {
		t.Error("a silent server speaks TLS")
	}
}
