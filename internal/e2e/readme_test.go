package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The shell blocks of the README do what they say. Blocks that are transcripts (console) run elsewhere: make test is what runs
// this, and make demo has a check of its own.
func TestReadmeBlocksRun(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.seed("one", "two", "three")
	api.waitHit(detailPath(1))
	here := strings.NewReplacer("http://localhost:8080", api.Base, "http://localhost:8081", invalidator.Base)
	blocks := 0
	for _, block := range strings.Split(string(text), "\n```sh\n")[1:] {
		script, _, closed := strings.Cut(block, "\n```")
		if !closed {
			t.Fatalf("a block has no end: %s", block)
		}
		blocks++
		command := exec.Command("bash", "-eu", "-o", "pipefail", "-c", here.Replace(script))
		command.Dir = filepath.Join("..", "..")
		command.Env = append(os.Environ(), "DATABASE_URL="+s.url)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s\n%v\n%s", script, err, out)
		}
	}
	if blocks != 3 {
		t.Errorf("%d blocks were found, want 3", blocks)
	}
}
