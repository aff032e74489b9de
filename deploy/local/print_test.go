package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestColoursOnTerminalsOnly(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	for name, tt := range map[string]struct {
		file *os.File
		env  map[string]string
		want bool
	}{
		"a character device":  {device, nil, true},
		"a file":              {file, nil, false},
		"NO_COLOR":            {device, map[string]string{"NO_COLOR": "1"}, false},
		"NO_COLOR, but empty": {device, map[string]string{"NO_COLOR": ""}, true},
		"a dumb terminal":     {device, map[string]string{"TERM": "dumb"}, false},
	} {
		if got := colourful(tt.file, func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func TestPrinterPaintsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	for colour, want := range map[bool]string{
		false: "ok ready (1.5 s)\n",
		true:  "\x1b[32mok\x1b[0m ready \x1b[2m(1.5 s)\x1b[0m\n",
	} {
		var out bytes.Buffer
		p := printer{out: &out, colour: colour}
		p.done(1500*time.Millisecond, "ready")
		if out.String() != want {
			t.Errorf("printed %q, want %q", out.String(), want)
		}
	}
}

func TestLogsPassWholeLinesAndKeepTheEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &logs{out: &out}
	a, b := l.named("a"), l.named("b")
	write := func(n *namedLog, text string) {
		t.Helper()
		if _, err := n.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(a, "hidden\n")
	l.shown(true)
	write(a, "one ")
	write(b, "two\nthree\nfo")
	write(a, "line\n")
	if got, want := out.String(), "b           | two\nb           | three\na           | one line\n"; got != want {
		t.Errorf("passed on %q, want %q", got, want)
	}
	if got, want := a.String(), "hidden\none line\n"; got != want {
		t.Errorf("kept %q, want %q", got, want)
	}
	write(a, strings.Repeat("x\n", 10*keptLog))
	if n := len(a.String()); n < keptLog || n > 2*keptLog {
		t.Errorf("kept %d bytes, want %d to %d", n, keptLog, 2*keptLog)
	}
}
