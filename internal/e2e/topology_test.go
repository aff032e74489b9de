package e2e

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// onTopology starts an api and an invalidator upon a Valkey that is put together as env says.
func onTopology(t *testing.T, env ...string) (s *servers, api, invalidator *program) {
	t.Helper()
	postgres := embeddedtest.Postgres(t)
	s = &servers{t: t, postgres: postgres, url: postgres.URL(), staleness: 2 * time.Second}
	s.valkey = embeddedtest.Valkey(t) // which VALKEY_ADDRS replaces: nobody connects to it
	api = s.startAPI(env...)
	return s, api, s.startInvalidator(env...)
}

// judge says that no answer failed or was too old, and that a failover was no reason to delete everything.
func (s *servers) judge(h *history, api, invalidator *program, seen reader, stopWriting func()) {
	s.t.Helper()
	stopWriting()
	if seen.failure != nil {
		s.t.Error(seen.failure)
	}
	if seen.worst > s.staleness {
		s.t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, s.staleness, seen.reads)
	}
	wantLatest(s.t, h, api)
	const deleting = "resynchronising the cache"
	if n := strings.Count(invalidator.Log.String(), deleting); n > 1 { // once because the slot is new
		s.t.Errorf("everything was deleted %d times", n)
	}
}

// The programs work on a cluster whose primaries fail over and whose slots move, with the bound that holds for one server.
func TestOnACluster(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{Replicas: 1})
	s, api, invalidator := onTopology(t, "VALKEY_ADDRS="+strings.Join(c.Addrs("127.0.0.1"), ","))
	h := s.versioned()
	api.waitHit(detailPath(1))
	api.waitHit(listPath)
	stopWriting := s.writing(h, 20*time.Millisecond)
	stopReading := reading(t, h, api)
	said, err := c.Nodes[0].Ask(t.Context(), "CLUSTER", "KEYSLOT", detailKey)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := strconv.Atoi(said[0])
	if err != nil {
		t.Fatal(err)
	}
	from, err := c.Primary(t.Context(), c.Nodes[0], slot)
	if err != nil {
		t.Fatal(err)
	}
	to := c.Nodes[0]
	if from == to {
		to = c.Nodes[1]
	}
	if err := c.Move(t.Context(), slot, from, to, func() {}); err != nil {
		t.Fatal(err)
	}
	api.waitHit(detailPath(1))
	if err := to.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a replica has taken over", func() error {
		now, err := c.Primary(t.Context(), from, slot)
		if err == nil && now == to {
			err = errors.New("nobody has")
		}
		return err
	})
	api.waitHit(detailPath(1))
	api.waitHit(listPath)
	s.judge(h, api, invalidator, stopReading(), stopWriting)
}

// And with sentinels.
func TestWithSentinels(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1})
	env := []string{"VALKEY_ADDRS=" + strings.Join(c.Addrs(), ","), "VALKEY_SENTINEL_MASTER=" + embedded.SentinelName}
	s, api, invalidator := onTopology(t, env...)
	h := s.versioned()
	api.waitHit(detailPath(1))
	stopWriting := s.writing(h, 20*time.Millisecond)
	stopReading := reading(t, h, api)
	if err := c.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	api.waitHit(detailPath(1))
	primary, err := c.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Promoted(t.Context(), primary); err != nil {
		t.Fatal(err)
	}
	api.waitHit(detailPath(1))
	s.judge(h, api, invalidator, stopReading(), stopWriting)
}
