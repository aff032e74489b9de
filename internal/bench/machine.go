package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

var cpuModel = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

// describeMachine says in a line on what was measured.
func describeMachine(ctx context.Context) string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := cpuModel.FindSubmatch(text); m != nil {
			model = string(m[1])
		}
	}
	version := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return name + " of an unknown version"
		}
		return strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0])
	}
	return fmt.Sprintf("%s, %d cores; %s; %s; %s, Linux %s", model, runtime.NumCPU(), version("psql", "--version"), version("valkey-server", "--version"), runtime.Version(), version("uname", "-r"))
}
