package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEnvExampleHasEveryVariable holds .env.example against the variables that the programs' flags name.
func TestEnvExampleHasEveryVariable(t *testing.T) {
	t.Parallel()
	tag := regexp.MustCompile(`\benv:"([A-Z_]+)"`)
	var want []string
	for _, root := range []string{"../../cmd", "../../internal/program"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range tag.FindAllStringSubmatch(string(text), -1) {
				want = append(want, match[1])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(want) == 0 {
		t.Fatal("the programs name no variable")
	}
	text, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, match := range regexp.MustCompile(`(?m)^([A-Z_]+)=`).FindAllStringSubmatch(string(text), -1) {
		got = append(got, match[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("variables in .env.example (-of the programs +in the file):\n%s", diff)
	}
}
