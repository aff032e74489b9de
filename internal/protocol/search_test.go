package protocol

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// loaderStep is a step of one of the loaders. With nothing to do it is the step of the same name of the loader before.
func loaderStep(name string, do func(*state, mechanisms, int) bool, i int) step {
	if do == nil {
		do = loaderSteps[name]
	} else {
		loaderSteps[name] = do
	}
	return step{fmt.Sprintf("load %c %s", 'A'+i, name), func(s *state, m mechanisms) bool { return do(s, m, i) }}
}

var loaderSteps = map[string]func(*state, mechanisms, int) bool{}

// start is a state in which nothing has happened yet, and one in which all is well: the invalidator runs.
func start() state {
	return state{alive: true, sameRun: true, noted: true, before: useless}
}

// found is the end of a search.
type found struct {
	states int
	bad    string
	trace  []string // from the start to the bad state
}

// search looks at every state that can be reached, the nearest first, until one is bad.
func search(m mechanisms) found {
	first := start()
	var reached reached
	reached.add(first.pack(), 0, 0)
	for at := 0; at < len(reached.states); at++ {
		for i := range steps {
			s := unpack(reached.states[at])
			if !steps[i].do(&s, m) || !reached.add(s.pack(), at, i) {
				continue
			}
			if what := s.bad(m); what != "" {
				return found{len(reached.states), what, reached.trace(len(reached.states) - 1)}
			}
		}
	}
	return found{states: len(reached.states)}
}

// reached is a set of states, in the order in which they were found, with the way to each. A map would take several times the
// memory.
type reached struct {
	states []uint64
	from   []uint32
	by     []uint8
	table  []uint32 // open addressing: 1+index in states; its length is a power of two
}

// add puts a state in, unless it is there.
func (r *reached) add(packed uint64, from, by int) bool {
	if 2*len(r.states) >= len(r.table) {
		r.table = make([]uint32, max(1<<16, 2*len(r.table)))
		for i, packed := range r.states {
			r.table[r.slot(packed)] = uint32(i + 1)
		}
	}
	slot := r.slot(packed)
	if r.table[slot] != 0 {
		return false
	}
	r.states, r.from, r.by = append(r.states, packed), append(r.from, uint32(from)), append(r.by, uint8(by))
	r.table[slot] = uint32(len(r.states))
	return true
}

// slot is where a state is, or where it would be put.
func (r *reached) slot(packed uint64) int {
	mask := len(r.table) - 1
	slot := int(packed*0x9E3779B97F4A7C15>>20) & mask
	for r.table[slot] != 0 && r.states[r.table[slot]-1] != packed {
		slot = (slot + 1) & mask
	}
	return slot
}

// trace is the way to a state.
func (r *reached) trace(index int) []string {
	var names []string
	for ; index > 0; index = int(r.from[index]) {
		names = append(names, steps[r.by[index]].name)
	}
	slices.Reverse(names)
	return names
}

func TestPackIsReversible(t *testing.T) {
	t.Parallel()
	s := state{
		writes: 4, age: [changes]uint64{3, 1}, alive: true, deleted: 2, proving: 3, sent: true, ours: true, sameRun: true, key: 5, file: 6,
		noted: true, restart: true, gone: true, local: 3, push: true, seen: true, ahead: 2, last: 3, before: 2, reading: 4, trust: 2,
		loaders: [loaders]uint64{4, 1},
	}
	if got := unpack(s.pack()); got != s {
		t.Errorf("%+v became %+v", s, got)
	}
}

var full = flag.Bool("full", false, "two writers and a bound of two ticks instead of one each: minutes, and a gigabyte of memory")

func TestMain(m *testing.M) {
	flag.Parse()
	staleness = 1
	if *full {
		staleness = 2
	}
	old, useless = staleness+1, staleness
	m.Run()
}

func TestWithAllMechanismsNoStateIsBad(t *testing.T) {
	t.Parallel()
	got := search(mechanisms{oneChange: !*full})
	if got.bad != "" {
		t.Fatalf("%s:\n%s", got.bad, strings.Join(got.trace, "\n"))
	}
	t.Logf("%d states, none of them bad", got.states)
	if got.states < 500_000 {
		t.Errorf("only %d states were reached: the model does less than it should", got.states)
	}
}

func TestWithoutAMechanismSomeStateIsBad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		off  mechanisms
	}{
		{"gate", mechanisms{noGate: true, oneChange: true}},
		{"token of each load", mechanisms{noToken: true, oneChange: true}},
		{"heartbeat", mechanisms{noHeartbeat: true, oneChange: true}},
		{"resynchronisation", mechanisms{noResync: true, oneChange: true}},
		{"standby LSN", mechanisms{noStandbyLSN: true, oneChange: true}},
		{"order of beat and proof", mechanisms{noOrder: true, oneChange: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := search(c.off)
			if got.bad == "" {
				t.Fatalf("no bad state among %d", got.states)
			}
			t.Logf("after %d states, %s:\n%s", got.states, got.bad, strings.Join(got.trace, "\n"))
		})
	}
}
