package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// cpuTime is the CPU time that the threads of a process have used, by the scheduler's own account: times(2) counts in steps of 10 ms.
// Threads that have ended are not in it; Go's do not end.
func cpuTime(pid int) (total time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no process %d", pid)
	}
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n)
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
