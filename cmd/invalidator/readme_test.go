package main

import (
	"os"
	"strings"
	"testing"

	"walkey/internal/program"
)

// The README's table of variables says what --help says.
func TestReadmeHasEverySetting(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := program.Settings(new(grammar))
	if err != nil {
		t.Fatal(err)
	}
	if len(settings) < 10 {
		t.Fatalf("only %d settings were found", len(settings))
	}
	for _, s := range settings {
		if !strings.Contains(string(readme), "\n"+s.Row()+"\n") {
			t.Errorf("README.md lacks the row\n%s", s.Row())
		}
	}
}
