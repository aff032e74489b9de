package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want int
		says string
	}{
		"help":            {[]string{"--help"}, exitDone, "Usage: local"},
		"no command":      {nil, exitUsage, "expected"},
		"unknown command": {[]string{"fly"}, exitUsage, "fly"},
		"unknown flag":    {[]string{"demo", "--fast"}, exitUsage, "--fast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), tt.args, &stdout, &stderr, false); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			if text := stdout.String() + stderr.String(); !strings.Contains(text, tt.says) {
				t.Errorf("said %q, want something of %q", text, tt.says)
			}
		})
	}
}
