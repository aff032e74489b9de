package embedded_test

import (
	"testing"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// A cluster serves all slots, a slot moves with its keys, and a replica goes on where its primary was killed.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{Replicas: 1})
	const slot = 12182 // of foo
	owner, err := c.Primary(t.Context(), c.Nodes[0], slot)
	if err != nil || owner != c.Nodes[2] {
		t.Fatalf("%v, %v", owner, err)
	}
	if _, err := owner.Ask(t.Context(), "SET", "foo", "bar"); err != nil {
		t.Fatal(err)
	}
	if err := c.Move(t.Context(), slot, owner, c.Nodes[0], func() {}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Nodes[0].Ask(t.Context(), "GET", "foo"); err != nil || got[0] != "bar" {
		t.Errorf("%q, %v", got, err)
	}
	if err := c.Nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	const lost = 8000
	for end := time.Now().Add(30 * time.Second); ; {
		now, err := c.Primary(t.Context(), c.Nodes[0], lost)
		if err == nil && now == c.Nodes[4] {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %v", now, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Sentinels promote a replica when they are asked to, and when the primary was killed.
func TestSentinels(t *testing.T) {
	t.Parallel()
	s := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1})
	first := s.Servers[0]
	if err := s.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := s.Primary(t.Context())
	if err != nil || second == first {
		t.Fatalf("%v, %v", second, err)
	}
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Promoted(t.Context(), second); err != nil {
		t.Fatal(err)
	}
}
