package cache

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestAnchor(t *testing.T) {
	t.Parallel()
	type reading struct {
		issued time.Duration
		number uint64
		origin uint64
		proved time.Duration // 0: nothing
		anew   bool
	}
	rows := []struct {
		name     string
		readings []reading
	}{
		{"the first number proves nothing, and neither does the next", []reading{
			{1, 10, 1, 0, true}, {2, 11, 1, 0, false},
		}},
		{"the second next proves what could be seen when the first was read last", []reading{
			{1, 10, 1, 0, true}, {2, 10, 1, 0, false}, {3, 11, 1, 0, false}, {4, 11, 1, 0, false}, {5, 12, 1, 2, false},
		}},
		{"a jump proves what could be seen when the number before it was read last", []reading{
			{1, 10, 1, 0, true}, {2, 10, 1, 0, false}, {3, 12, 1, 2, false}, {4, 13, 1, 2, false}, {5, 20, 1, 4, false},
		}},
		{"after a jump, one step reaches back to before it", []reading{
			{1, 10, 1, 0, true}, {2, 30, 1, 1, false}, {3, 30, 1, 0, false}, {4, 31, 1, 1, false}, {5, 32, 1, 3, false},
		}},
		{"standing still proves nothing", []reading{
			{1, 10, 1, 0, true}, {2, 12, 1, 1, false}, {3, 12, 1, 0, false}, {90, 12, 1, 0, false}, {91, 13, 1, 1, false}, {92, 14, 1, 90, false},
		}},
		{"a smaller number begins anew", []reading{
			{1, 10, 1, 0, true}, {2, 12, 1, 1, false}, {3, 11, 1, 0, true}, {4, 12, 1, 0, false}, {5, 13, 1, 3, false},
		}},
		{"a heartbeat made anew begins anew, however large its number", []reading{
			{1, 10, 1, 0, true}, {2, 12, 1, 1, false}, {3, 900, 900, 0, true}, {4, 901, 900, 0, false}, {5, 902, 900, 3, false},
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var a anchor
			for i, r := range row.readings {
				proved, ok, anew := a.see(r.issued, r.number, r.origin)
				if !ok {
					proved = 0
				}
				if proved != r.proved || ok != (r.proved != 0) || anew != r.anew {
					t.Errorf("reading %d: proved %d (%v), anew %v; want %d, %v", i, proved, ok, anew, r.proved, r.anew)
				}
			}
		})
	}
}

// An eraser that proves and writes at any speed, and a reader that reads at any speed: what the reader takes as proved was
// proved.
func TestAnchorNeverProvesTooMuch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		now := time.Duration(1)
		tick := func() time.Duration { now += time.Duration(1 + r.IntN(5)); return now }
		const first = 100
		number := uint64(first)
		proofs := map[uint64]time.Duration{}
		var proof time.Duration // of number+1, begun; 0 is not yet
		var a anchor
		var issued time.Duration // of the reading under way; 0 is none
		var saw uint64
		executed := false
		proven := 0
		for range 300 {
			switch r.IntN(5) {
			case 0: // the proof for the next number begins
				if proof == 0 {
					proof = tick()
				}
			case 1: // and is written
				if proof != 0 {
					number++
					proofs[number] = proof
					proof = 0
					tick()
				}
			case 2: // a reading is issued
				if issued == 0 {
					issued, executed = tick(), false
				}
			case 3: // Valkey executes it
				if issued != 0 && !executed {
					saw, executed = number, true
				}
			case 4: // its answer arrives
				if executed {
					if proved, ok, _ := a.see(issued, saw, first); ok {
						proven++
						if proved > proofs[saw] {
							t.Fatalf("number %d was proved at %d, and taken as proved at %d", saw, proofs[saw], proved)
						}
					}
					issued, executed = 0, false
				}
			}
		}
		if proven == 0 && number > first+20 {
			t.Fatalf("nothing was proved by %d numbers", number-first)
		}
	}
}
