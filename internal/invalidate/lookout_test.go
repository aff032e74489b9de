package invalidate

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walkey/internal/cache"
	"walkey/internal/embedded/embeddedtest"
)

// What both servers say reaches the metrics, asked by a role that may only replicate; and a server that is away is told, while
// what the other one says goes on.
func TestLookout(t *testing.T) {
	t.Parallel()
	b := setupOnPostgres(t, "max_slot_wal_keep_size=64MB")
	b.exec("create role watcher login replication")
	b.exec("select pg_create_logical_replication_slot('walkey', 'pgoutput')")
	b.exec("select pg_logical_emit_message(true, 'test', repeat('x', 1000000)) from generate_series(1, 8)") // the commit flushes all of it
	eraser, err := cache.OpenEraser(b.options)
	if err != nil {
		t.Fatal(err)
	}
	defer eraser.Close()
	b.user = "watcher"
	m := NewMetrics()
	l := lookout{opts: &Options{DatabaseURL: b.invalidatorURL(), Slot: "walkey", Eraser: eraser}, servers: &m.servers}
	defer l.drop(context.Background())
	l.look(t.Context())
	got := values(t, m)
	for name, atLeast := range map[string]float64{
		"walkey_server_up postgres":         1,
		"walkey_server_up valkey":           1,
		"walkey_slot_retained_wal_bytes":    6_000_000,
		"walkey_slot_behind_bytes":          6_000_000,
		"walkey_slot_wal_limit_bytes":       64 << 20,
		"walkey_slot_wal_limit_seconds":     1e300, // +Inf: one look tells no rate
		"walkey_valkey_used_memory_bytes":   100_000,
		"walkey_valkey_connected_clients":   1,
		"walkey_valkey_round_trip_seconds":  1e-9,
		"walkey_valkey_evicted_keys_total":  0,
		"walkey_valkey_keyspace_hits_total": 0,
	} {
		if value, found := got[name]; !found || value < atLeast {
			t.Errorf("%s is %g (found: %t), want at least %g", name, value, found, atLeast)
		}
	}
	if got["walkey_slot_held"] != 0 || got["walkey_slot_lost"] != 0 || got["walkey_valkey_max_memory_bytes"] != 0 {
		t.Errorf("got %v", got)
	}

	b.exec("select pg_logical_emit_message(false, 'test', repeat('x', 1000000)) from generate_series(1, 8)")
	l.look(t.Context())
	if left := values(t, m)["walkey_slot_wal_limit_seconds"]; left <= 0 || left > 1e6 {
		t.Errorf("%g seconds are left while the WAL grows", left)
	}

	if err := b.valkey.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.exec("select pg_drop_replication_slot('walkey')")
	l.look(t.Context())
	got = values(t, m)
	if got["walkey_server_up valkey"] != 0 || got["walkey_server_up postgres"] != 1 {
		t.Errorf("with Valkey down: %v", got)
	}
	if _, found := got["walkey_slot_retained_wal_bytes"]; found {
		t.Error("a slot is shown that is not there any more")
	}
	b.shutdown(b.postgres, "immediate")
	l.look(t.Context())
	if got := values(t, m); got["walkey_server_up postgres"] != 0 {
		t.Errorf("with both down: %v", got)
	}
}

// How long the limit lasts.
func TestTimeToTheLimit(t *testing.T) {
	t.Parallel()
	at := func(bytes int64) *slotState { return &slotState{Safe: &bytes} }
	begun := time.Unix(1000, 0)
	for _, test := range []struct {
		name  string
		looks []*slotState // 10 s apart
		want  time.Duration
	}{
		{"no slot", []*slotState{nil}, forever},
		{"without limit", []*slotState{{}}, forever},
		{"the first look", []*slotState{at(1000)}, forever},
		{"it does not come nearer", []*slotState{at(1000), at(1000)}, forever},
		{"it goes away", []*slotState{at(1000), at(2000)}, forever},
		{"ten bytes a second", []*slotState{at(1000), at(900)}, 90 * time.Second},
		{"in steps", []*slotState{at(1000), at(700), at(900)}, 180 * time.Second},
		{"what was a minute ago does not count", []*slotState{at(9000), at(1000), at(990), at(980), at(970), at(960), at(950), at(940)}, 940 * time.Second},
		{"reached", []*slotState{at(1000), at(-5)}, 0},
		{"lost", []*slotState{at(1000), {Lost: true}}, 0},
		{"lost and made anew", []*slotState{{Lost: true}, at(1000)}, forever},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var l lookout
			var got time.Duration
			for i, slot := range test.looks {
				got = l.left(slot, begun.Add(time.Duration(i)*10*time.Second))
			}
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// values are what a collector gives: by name, and by name and label.
func values(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				if label.GetName() != "node" { // its port is chance
					name += " " + label.GetValue()
				}
			}
			all[strings.TrimSpace(name)] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return all
}

// setupOnPostgres is setup on a server of its own with settings.
func setupOnPostgres(t *testing.T, settings ...string) *bundle {
	t.Helper()
	p := embeddedtest.Postgres(t, settings...)
	return setupOn(t, p, p.URL())
}
