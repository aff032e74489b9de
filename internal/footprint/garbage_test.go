package footprint

import "testing"

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 600, 4 << 20: 600, 8 << 20: 300, 24 << 20: 100, 48 << 20: 50, 96 << 20: 25, 1 << 30: 10} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

// A look is one second of a process' life, and what must come of it.
func TestLooks(t *testing.T) {
	t.Parallel()
	const kib, mib = 1 << 10, 1 << 20
	type look struct {
		what             string
		came             uint64 // bytes allocated
		live, left, free uint64
		started          bool
		collect, release bool
	}
	for name, life := range map[string]struct {
		decided bool
		looks   []look
	}{
		"start": {looks: []look{
			{what: "begins", came: 5 * mib, live: 2 * mib, left: 3 * mib},
			{what: "waits for a server", came: 10 * kib, live: 2 * mib, left: 3 * mib, collect: true},
			{what: "goes on waiting", came: 10 * kib, live: 2 * mib, left: 10 * kib},
			{what: "has started, and serves at once", came: 20 * mib, live: 4 * mib, left: 4 * mib, started: true, release: true},
			{what: "serves", came: 20 * mib, live: 4 * mib, left: 4 * mib, started: true},
			{what: "rests", came: 100 * kib, live: 4 * mib, left: 200 * kib, started: true, release: true},
		}},
		"trickle": {looks: []look{
			{what: "has started", came: 2 * mib, live: 2 * mib, started: true, release: true},
			{what: "goes on, as the servers answer", came: 1 * mib, live: 2 * mib, started: true},
			{what: "rests for the first time", came: 100 * kib, live: 2 * mib, left: 900 * kib, started: true, release: true},
			{what: "has left enough", came: 100 * kib, live: 2 * mib, left: 1 * mib, started: true, collect: true},
			{what: "rests", came: 100 * kib, live: 2 * mib, left: 10 * kib, started: true},
		}},
		"burst": {looks: []look{
			{what: "has started", came: 2 * mib, live: 2 * mib, started: true, release: true},
			{what: "works", came: 50 * mib, live: 100 * mib, left: 20 * mib, started: true},
			{what: "works a little", came: 1 * mib, live: 100 * mib, left: 21 * mib, started: true},
			{what: "rests", came: 1 * kib, live: 100 * mib, left: 21 * mib, started: true, collect: true, release: true},
			{what: "has little left for what lives", came: 1 * kib, live: 100 * mib, left: 6 * mib, started: true},
			{what: "has room that nobody needs", came: 1 * kib, live: 100 * mib, left: 2 * mib, free: 5 * mib, started: true, collect: true},
		}},
		"somebody has decided": {decided: true, looks: []look{
			{what: "has started", came: 2 * mib, live: 2 * mib, started: true, release: true},
			{what: "works", came: 50 * mib, live: 100 * mib, left: 80 * mib, started: true},
			{what: "rests", came: 1 * kib, live: 100 * mib, left: 80 * mib, started: true, release: true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keeper{percent: maxPercent, decided: life.decided}
			var allocated uint64
			for _, l := range life.looks {
				allocated += l.came
				collect, release := k.look(heap{live: l.live, objects: l.live + l.left, free: l.free, allocated: allocated}, func() bool { return l.started })
				if collect != l.collect || release != l.release {
					t.Errorf("%s: collect %t, release %t; want %t, %t", l.what, collect, release, l.collect, l.release)
				}
			}
		})
	}
}
