package e2e

import (
	"bytes"
	"net"
	"strconv"
	"testing"
	"time"

	"walkey/internal/faultproxy"
	"walkey/internal/freeport"
)

// proxy puts a proxy before target that ends with the test.
func (s *servers) proxy(target string) *faultproxy.Proxy {
	s.t.Helper()
	p, err := faultproxy.Listen(s.t.Context(), target)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			s.t.Errorf("close a proxy: %v", err)
		}
	})
	return p
}

// proxyPostgres puts a proxy before Postgres; through gives the database's URL by it.
func (s *servers) proxyPostgres() *faultproxy.Proxy {
	s.t.Helper()
	return s.proxy(net.JoinHostPort(freeport.Host, strconv.Itoa(s.postgres.Port())))
}

func (s *servers) through(link *faultproxy.Proxy) string { return s.apiURL(link.Port()) }

// valkeyThrough gives the environment of a program that reaches Valkey by the proxy.
func valkeyThrough(link *faultproxy.Proxy) string { return "VALKEY_PORT=" + strconv.Itoa(link.Port()) }

// waitHeld waits until the proxy has caught what it was told to hold.
func waitHeld(t testing.TB, p *faultproxy.Proxy) {
	t.Helper()
	select {
	case <-p.Held():
	case <-time.After(patience):
		t.Fatal("the proxy held nothing")
	}
}

func mentions(text string) func([]byte) bool {
	return func(chunk []byte) bool { return bytes.Contains(chunk, []byte(text)) }
}

// A load that began before a commit and ends after its delete must not be stored.
func TestLateLoadIsNotStored(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI().stop() // migrates
	direct := s.startAPI()
	link := s.proxyPostgres()
	slow := s.startAPI("DATABASE_URL=" + s.through(link))
	invalidator := s.startInvalidator()
	s.seed("old")
	slow.waitFor(detailPath(1), "trusted", func(a answer) bool {
		return a.Cache == "walkey; fwd=miss; stored" || a.Cache == "walkey; hit; detail=local"
	})
	direct.waitHit(detailPath(1))
	before := invalidator.metric("walkey_deleted_keys_existed_total")
	s.psql("update materials set title = 'older' where id = 1")
	eventually(t, "the entry is deleted", func() error { return atLeast(invalidator, "walkey_deleted_keys_existed_total", before+1) })

	link.HoldReplies(func([]byte) bool { return true }) // of whatever is asked next, which is the load
	late := make(chan answer, 1)
	go func() {
		a, err := slow.try(detailPath(1))
		if err != nil {
			a.Body = err.Error()
		}
		late <- a
	}()
	waitHeld(t, link) // the row is read, its answer under way
	settle(t, s)
	before = invalidator.metric("walkey_deleted_keys_existed_total")
	s.psql("update materials set title = 'new' where id = 1")
	eventually(t, "the lease is deleted", func() error { return atLeast(invalidator, "walkey_deleted_keys_existed_total", before+1) })
	link.Release()
	if a := <-late; !hasTitle("older")(a) || a.Cache != "walkey; fwd=miss; detail=fill-refused" {
		t.Errorf("the late load answered %s, want the row it read and a refused fill", a)
	}
	for _, api := range []*program{slow, direct} {
		if a := api.get(detailPath(1)); !hasTitle("new")(a) {
			t.Errorf("after the late load: %s", a)
		}
	}
}
