package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// transcript is one command of a document with what it is said to print.
type transcript struct {
	line          int
	command, want string
}

// transcripts reads the console blocks of a document.
func transcripts(t *testing.T, path string) (found []transcript) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for i, line := range strings.Split(string(text), "\n") {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			found = append(found, transcript{line: i + 1, command: command})
		case inside && len(found) > 0:
			found[len(found)-1].want += line + "\n"
		}
	}
	return found
}

// matches compares what was printed with what a document says, where … stands for anything.
func (c transcript) matches(got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(c.want), "…", ".*")
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.ReplaceAll(got, "\r", ""))
}

// The transcripts of docs/api.md are what really happens.
func TestTranscriptsOfTheAPI(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI("API_COOKIE_SECURE=false")
	s.startInvalidator()
	environ := append(os.Environ(), "DATABASE_URL="+s.url, "PATH="+programs+string(filepath.ListSeparator)+os.Getenv("PATH"))
	dir := t.TempDir()
	run := func(command string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		shell := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(command, "localhost:8080", strings.TrimPrefix(api.base, "http://")))
		shell.Dir, shell.Env = dir, environ
		out, err := shell.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	run("api seed")
	commands := transcripts(t, filepath.Join("..", "..", "docs", "api.md"))
	if len(commands) < 20 {
		t.Fatalf("%d commands found", len(commands))
	}
	for _, c := range commands {
		if got := run(c.command); !c.matches(got) {
			t.Errorf("docs/api.md, line %d\n$ %s\n%s\nand not\n%s", c.line, c.command, got, c.want)
		}
	}
}
