package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// Api has no call that finds a method by a name which only the running program knows: for the sake of one the linker keeps every exported method of
// every type, and the program is two thirds larger. (The invalidator has expr-lang/expr, which can't do without.)
func TestUnusedMethodsAreLeftOut(t *testing.T) {
	t.Parallel()
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-ldflags", "-dumpdep", "-o", os.DevNull, "./cmd/api")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(out) < 1<<20 {
		t.Fatalf("the linker tells little:\n%s", out)
	}
	var found []string
	for _, line := range regexp.MustCompile(`(?m)^(\S+) <ReflectMethod>`).FindAllSubmatch(out, -1) {
		found = append(found, string(line[1]))
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) > 0 {
		t.Errorf("methods are called by name in %q", found)
	}
}
