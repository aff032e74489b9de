package ledger_test

import (
	"testing"
	"time"

	"walkey/internal/torture/ledger"
)

var start = time.Unix(1_000_000, 0)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// answer is one whose request lasts from began for a tenth of a second.
func answer(began float64, states map[int]ledger.State) ledger.Answer {
	return ledger.Answer{Began: at(began), Ended: at(began + 0.1), States: states}
}

// twoIDs is a history in which ids 1 and 2 become a1 and a2 together at 10..11, and id 1 alone b1 at 20..21. A commit of id 2 was
// sent at 30 and is under way.
func twoIDs() *ledger.History {
	h := ledger.NewHistory(start, map[int]ledger.State{1: "o1", 2: "o2", 3: ledger.Absent})
	h.Begin(at(10), map[int]ledger.State{1: "a1", 2: "a2"}).Committed(at(11))
	h.Begin(at(20), map[int]ledger.State{1: "b1"}).Committed(at(21))
	h.Begin(at(30), map[int]ledger.State{2: "c2"})
	return h
}

func TestAge(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	for _, c := range []struct {
		name   string
		began  float64
		states states
		age    time.Duration
		fault  ledger.Fault
	}{
		{"true", 5, states{1: "o1", 2: "o2"}, 0, ""},
		{"old one while the commit is under way", 10.5, states{1: "o1", 2: "o2"}, 0, ""},
		{"new one while the commit is under way", 10.5, states{1: "a1", 2: "a2"}, 0, ""},
		{"half of a transaction while it is under way", 10.5, states{1: "a1", 2: "o2"}, 0, ledger.Torn},
		{"half of a transaction later", 15, states{1: "o1", 2: "a2"}, 0, ledger.Torn},
		{"overwritten", 14, states{1: "o1"}, 3 * time.Second, ""},
		{"overwritten as a whole", 25, states{1: "a1", 2: "a2"}, 4 * time.Second, ""},
		{"one that overlaps", 25, states{1: "b1", 2: "a2"}, 0, ""},
		{"never together", 25, states{1: "o1", 2: "c2"}, 0, ledger.Unknown},
		{"not yet", 9, states{1: "a1"}, 0, ledger.Unknown},
		{"rolled back", 9, states{1: "x"}, 0, ledger.Unknown},
		{"absent", 9, states{3: ledger.Absent}, 0, ""},
		{"not absent", 9, states{1: ledger.Absent}, 0, ledger.Unknown},
		{"hanging commit, old", 300, states{2: "a2"}, 0, ""},
		{"hanging commit, new", 300, states{2: "c2"}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			age, fault := twoIDs().Age(answer(c.began, c.states))
			if age != c.age || fault != c.fault {
				t.Errorf("age %s, fault %q; want %s, %q", age, fault, c.age, c.fault)
			}
		})
	}
}

func TestStatesThatWereNeverTrueTogether(t *testing.T) {
	t.Parallel()
	h := twoIDs()
	h.Begin(at(40), map[int]ledger.State{3: "d3"}).Committed(at(41))
	if _, fault := h.Age(answer(50, map[int]ledger.State{1: "a1", 3: "d3"})); fault != ledger.Torn {
		t.Errorf("fault %q, want %q", fault, ledger.Torn)
	}
}

// Absent is absent, however often: an answer from before a row came is not taken for one from after it went.
func TestAbsentTwice(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	h := ledger.NewHistory(start, states{1: "o1", 2: ledger.Absent})
	h.Begin(at(10), states{2: "a2"}).Committed(at(11))
	h.Begin(at(12), states{1: "b1", 2: ledger.Absent}).Committed(at(13))
	if age, fault := h.Age(answer(12.5, states{1: "o1", 2: ledger.Absent})); age != 1500*time.Millisecond || fault != "" {
		t.Errorf("age %s, fault %q; want 1.5s and none", age, fault)
	}
}

// A crash takes back an asynchronous commit, and one that was under way never comes.
func TestRecovered(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	h := ledger.NewHistory(start, states{1: "o1", 2: "o2"})
	h.Begin(at(10), states{1: "a1"}).Committed(at(10))
	h.Begin(at(11), states{2: "a2"})
	h.Recovered(at(20), states{1: "o1", 2: "o2"})
	for _, c := range []struct {
		name   string
		began  float64
		states states
		age    time.Duration
	}{
		{"what was taken back, before", 15, states{1: "a1"}, 0},
		{"what was taken back, after", 25, states{1: "a1"}, 5 * time.Second},
		{"what never came, after", 25, states{2: "a2"}, 5 * time.Second},
		{"what is true again, before that is known", 15, states{1: "o1"}, 0},
		{"what is true again", 25, states{1: "o1", 2: "o2"}, 0},
	} {
		if age, fault := h.Age(answer(c.began, c.states)); age != c.age || fault != "" {
			t.Errorf("%s: age %s, fault %q; want %s", c.name, age, fault, c.age)
		}
	}
	h.Begin(at(30), states{1: "b1"}).Committed(at(30))
	if age, _ := h.Age(answer(33, states{1: "o1"})); age != 3*time.Second {
		t.Errorf("after the next change: age %s, want 3s", age)
	}
	if h.Latest(1) != "b1" || h.Latest(2) != "o2" {
		t.Errorf("latest: %q %q", h.Latest(1), h.Latest(2))
	}
}

// A commit whose connection was lost, and that is there after the crash, is no new state.
func TestRecoveredKeepsWhatCame(t *testing.T) {
	t.Parallel()
	h := ledger.NewHistory(start, map[int]ledger.State{1: "o1"})
	h.Begin(at(10), map[int]ledger.State{1: "a1"})
	h.Recovered(at(20), map[int]ledger.State{1: "a1"})
	if age, _ := h.Age(answer(25, map[int]ledger.State{1: "o1"})); age != 5*time.Second {
		t.Errorf("age %s of what was overwritten, want 5s", age)
	}
	if age, _ := h.Age(answer(25, map[int]ledger.State{1: "a1"})); age != 0 {
		t.Errorf("age %s of what came, want 0", age)
	}
}

func TestBehind(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	h := ledger.NewHistory(start, states{1: "o1"})
	h.Begin(at(10), states{1: "a1"}).Committed(at(10))
	h.Begin(at(20), states{1: ledger.Absent}).Committed(at(20))
	h.Begin(at(30), states{1: "b1"}).Committed(at(30))
	h.Begin(at(40), states{1: ledger.Absent}).Committed(at(40))
	for _, c := range []struct {
		name   string
		first  ledger.State
		then   ledger.State
		began  float64
		behind bool
	}{
		{"forward", "o1", "a1", 50, false},
		{"same", "a1", "a1", 50, false},
		{"back", "a1", "o1", 50, true},
		{"to the later absence", "b1", ledger.Absent, 50, false},
		{"to an absence that was before", "b1", ledger.Absent, 35, true},
		{"from the earlier absence", ledger.Absent, "b1", 35, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var v ledger.View
			v.Saw(h, answer(c.began, states{1: c.first}))
			if got := h.Behind(v.Floor(), answer(c.began, states{1: c.then})); got != c.behind {
				t.Errorf("behind: %t", got)
			}
		})
	}
}

// Where commits may be seen early, what was seen before its COMMIT had returned may be gone again; what was seen after that may not.
func TestSeenEarly(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	for _, early := range []bool{false, true} {
		h := ledger.NewHistory(start, states{1: "o1"})
		h.Early = early
		change := h.Begin(at(10), states{1: "a1"})
		var v ledger.View
		v.Saw(h, answer(12, states{1: "a1"}))
		if got := v.Behind(h, answer(13, states{1: "o1"})); got == early {
			t.Errorf("early %t: while it hangs: %t", early, got)
		}
		change.Committed(at(20))
		v.Saw(h, answer(21, states{1: "a1"}))
		if !v.Behind(h, answer(22, states{1: "o1"})) {
			t.Errorf("early %t: what was committed is gone", early)
		}
	}
}

// Who shows the token of a change gets it or what came after.
func TestFloorOfAChange(t *testing.T) {
	t.Parallel()
	type states = map[int]ledger.State
	h := ledger.NewHistory(start, states{1: "o1", 2: "o2"})
	change := h.Begin(at(10), states{1: "a1"})
	change.Committed(at(11))
	h.Begin(at(20), states{1: "b1", 2: "b2"}).Committed(at(21))
	for _, c := range []struct {
		shows  states
		behind bool
	}{
		{states{1: "o1"}, true}, {states{1: "a1"}, false}, {states{1: "b1"}, false}, {states{2: "o2"}, false}, {states{1: "o1", 2: "b2"}, true},
	} {
		if got := h.Behind(change.Floor(), answer(30, c.shows)); got != c.behind {
			t.Errorf("%v: %t", c.shows, got)
		}
	}
}

// A client that saw a commit before a crash took it back has not gone back in time when it sees the truth.
func TestTakenBackIsNotBackward(t *testing.T) {
	t.Parallel()
	h := ledger.NewHistory(start, map[int]ledger.State{1: "o1"})
	h.Begin(at(10), map[int]ledger.State{1: "a1"}).Committed(at(10))
	var v ledger.View
	v.Saw(h, answer(12, map[int]ledger.State{1: "a1"}))
	h.Recovered(at(20), map[int]ledger.State{1: "o1"})
	after := answer(25, map[int]ledger.State{1: "o1"})
	if h.Behind(v.Floor(), after) {
		t.Error("the truth counts as back in time")
	}
	v.Saw(h, after)
	if !h.Behind(v.Floor(), answer(26, map[int]ledger.State{1: "a1"})) {
		t.Error("what was taken back does not count as back in time")
	}
}
