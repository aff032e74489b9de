package program

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestNoColourOffATerminal(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	p := &Process{}
	if got := p.Paint(&bytes.Buffer{}, Red, "text"); got != "text" {
		t.Errorf("into a buffer: %q", got)
	}
	if got := p.Paint(null, Red, "text"); got != "text" {
		t.Errorf("into the null device: %q", got)
	}
}

func TestColourOnATerminal(t *testing.T) {
	t.Parallel()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	defer func() { _ = terminal.Close() }()
	for _, test := range []struct {
		environ []string
		want    string
	}{
		{nil, "\x1b[31mtext\x1b[0m"},
		{[]string{"NO_COLOR="}, "\x1b[31mtext\x1b[0m"}, // empty counts as not set
		{[]string{"NO_COLOR=1"}, "text"},
	} {
		if got := (&Process{Environ: test.environ}).Paint(terminal, Red, "text"); got != test.want {
			t.Errorf("%q: %q, want %q", test.environ, got, test.want)
		}
	}
}

func TestConfirmAsksNobodyOffATerminal(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	p := &Process{Stdin: strings.NewReader("yes\n"), Stderr: &stderr}
	if yes, err := p.Confirm("Drop this?"); yes || !errors.Is(err, ErrNotAsked) || stderr.Len() > 0 {
		t.Errorf("%t, %v, asked %q", yes, err, stderr.String())
	}
}
