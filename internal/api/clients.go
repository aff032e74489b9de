package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// clients knows which proxies are ours: what those say about who they speak for is believed.
type clients struct {
	proxies []netip.Prefix
}

// address names the client of a request. X-Forwarded-For is read from its end for as long as the addresses are proxies of
// ours, so that a client can't give itself another address. Of IPv6 it is the network, which one client has whole.
func (c clients) address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	client := peer.Addr().Unmap().WithZone("")
	forwarded := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(forwarded) - 1; i >= 0 && c.ours(client); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		client = next.Unmap().WithZone("")
	}
	if client.Is6() {
		network, err := client.Prefix(64)
		if err == nil {
			return network.String()
		}
	}
	return client.String()
}

func (c clients) ours(address netip.Addr) bool {
	for _, proxy := range c.proxies {
		if proxy.Contains(address) {
			return true
		}
	}
	return false
}
