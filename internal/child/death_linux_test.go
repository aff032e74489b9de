package child

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestChildrenDieWithAKilledParent(t *testing.T) {
	t.Parallel()
	var out output
	p, err := Start(Command{Path: os.Args[0], Env: append(os.Environ(), "CHILD_TEST_PARENT=1"), Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the parent has its children", func() bool { return strings.Contains(out.String(), "ready\n") || !p.Running() })
	var killed, frozen int
	if _, err := fmt.Sscan(out.String(), &killed, &frozen); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if !alive(killed) || !alive(frozen) {
		t.Fatal("the children are not there before their parent is killed")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the children are gone", func() bool { return !alive(killed) && !alive(frozen) })
}

// alive tells whether a process is there; one that has ended and that nobody has waited for is not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, ok := bytes.Cut(stat, []byte(") "))
	return ok && state[0] != 'Z' && state[0] != 'X'
}
