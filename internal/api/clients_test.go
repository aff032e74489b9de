package api

import (
	"net/netip"
	"testing"
)

func TestAddressOfTheClient(t *testing.T) {
	t.Parallel()
	c := clients{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, tt := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "198.51.100.7:1", nil, "198.51.100.7"},
		{"direct, and says it is another", "198.51.100.7:1", []string{"203.0.113.1"}, "198.51.100.7"},
		{"by a proxy", "10.1.1.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"by two", "10.1.1.1:1", []string{"203.0.113.1, 10.2.2.2"}, "203.0.113.1"},
		{"by two, in two lines", "10.1.1.1:1", []string{"203.0.113.1", "10.2.2.2"}, "203.0.113.1"},
		{"by a proxy, and says it is another", "10.1.1.1:1", []string{"192.0.2.1, 203.0.113.1"}, "203.0.113.1"},
		{"a proxy that says nothing", "10.1.1.1:1", nil, "10.1.1.1"},
		{"a proxy that says nonsense", "10.1.1.1:1", []string{"203.0.113.1, x"}, "10.1.1.1"},
		{"IPv6 is a network", "[2001:db8:1:2:3::4]:1", nil, "2001:db8:1:2::/64"},
		{"IPv4 in IPv6", "[::ffff:198.51.100.7]:1", nil, "198.51.100.7"},
		{"zone", "[fe80::1%eth0]:1", nil, "fe80::/64"},
		{"none", "", nil, "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := get(t, "/")
			r.RemoteAddr = tt.remote
			r.Header["X-Forwarded-For"] = tt.forwarded
			if got := c.address(r); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
