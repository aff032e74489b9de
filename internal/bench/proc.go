package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat: the kernel's USER_HZ, which is 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime is the CPU time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses, which may hold anything.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has another form", pid)
	}
	var total time.Duration
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * clockTick
	}
	return total, nil
}

var memoryLine = regexp.MustCompile(`(?m)^(VmHWM|VmRSS):\s*(\d+) kB$`)

// memory is the resident size of a process and the largest that it has had, in MiB.
func memory(pid int) (resident, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, m := range memoryLine.FindAllStringSubmatch(string(text), -1) {
		kib, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return 0, 0, err
		}
		if m[1] == "VmHWM" {
			peak = kib / 1024
		} else {
			resident = kib / 1024
		}
	}
	if resident == 0 {
		return 0, 0, fmt.Errorf("/proc/%d/status tells no resident size", pid)
	}
	return resident, peak, nil
}
