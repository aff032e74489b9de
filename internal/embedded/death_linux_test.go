package embedded

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"walkey/internal/child"
)

func TestServersDieWithAKilledParent(t *testing.T) {
	t.Parallel()
	for name, frozen := range map[string]bool{"running": false, "frozen": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out logBuffer
			p, err := child.Start(child.Command{Path: os.Args[0], Env: append(os.Environ(), "EMBEDDED_TEST_PARENT=1"), Output: &out})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the parent has its servers", func() bool { return strings.HasSuffix(out.String(), "ready") || !p.Running() })
			var postgres, valkey int
			var url, postgresDir, valkeyDir string
			if _, err := fmt.Sscan(out.String(), &postgres, &valkey, &url, &postgresDir, &valkeyDir); err != nil {
				t.Fatalf("%v in %q", err, out.String())
			}
			t.Cleanup(func() {
				_ = os.RemoveAll(postgresDir)
				_ = os.RemoveAll(valkeyDir)
			})
			if uid := processUser(t, postgres); uid == 0 {
				t.Error("Postgres runs as root")
			}
			all := append(childrenOf(t, postgres), postgres, valkey)
			if len(all) < 5 {
				t.Fatalf("processes %v, want the postmaster's children among them", all)
			}
			if frozen {
				for _, pid := range all {
					if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			for _, pid := range all {
				eventually(t, fmt.Sprintf("process %d of %v is gone", pid, all), func() bool { return !alive(pid) })
			}
		})
	}
}

// alive tells whether a process is there; one that has ended and that nobody has waited for is not.
func alive(pid int) bool {
	fields := statOf(pid)
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// statOf is what /proc says of a process after its name: state, parent and so on. Nil when there is none.
func statOf(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var children []int
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		if fields := statOf(pid); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			children = append(children, pid)
		}
	}
	return children
}

func processUser(t *testing.T, pid int) int {
	t.Helper()
	return ownerOf(t, fmt.Sprintf("/proc/%d", pid))
}
