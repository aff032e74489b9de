package footprint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseProgram unmaps the pages of the program's own file that are in memory, and says how many KiB they were. They stay in the page cache, and one
// that is used again is mapped again by a minor fault, a microsecond or two, with its neighbours; but those that only starting needed are no
// longer this process', and the kernel can take them back before any that are in use.
func releaseProgram() (released uint64, err error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("ask for the program's file: %w", err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("ask for the mappings: %w", err)
	}
	mappings, err := unwritten(bytes.NewReader(smaps), exe)
	if err != nil {
		return 0, err
	}
	for _, m := range mappings {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			return released, fmt.Errorf("release %x-%x: %w", m.start, m.end, errno)
		}
		released += m.resident
	}
	return released, nil
}

// mapping is a piece of the address space.
type mapping struct {
	start, end uintptr
	resident   uint64 // KiB
}

// unwritten finds the mappings of a file, in the text of /proc/PID/smaps, that are read from it and nothing else: those that can't be written
// and of which no page is the process' own. A page becomes that when a debugger puts a breakpoint into it; to release it would undo that.
func unwritten(smaps io.Reader, file string) (found []mapping, err error) {
	var m mapping
	var own, swapped string // as the kernel says it: "0 kB"
	wanted := false
	end := func() {
		if wanted && own == "0 kB" && swapped == "0 kB" {
			found = append(found, m)
		}
		m, own, swapped, wanted = mapping{}, "", "", false
	}
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch {
		case name == "Anonymous":
			own = value
		case name == "Swap":
			swapped = value
		case name == "Rss":
			m.resident, err = strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 64)
		case strings.Contains(name, "-"): // 00400000-01300000 r-xp 00000000 fe:00 9979902   /path
			end()
			m, wanted, err = readMapping(lines.Text(), file)
		}
		if err != nil {
			return nil, fmt.Errorf("reading smaps: %q: %w", lines.Text(), err)
		}
	}
	end()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading smaps: %w", err)
	}
	return found, nil
}

var errNoMapping = errors.New("this is no mapping")

// readMapping reads the line that begins a mapping, and says whether it is one of the file that can't be written and is not shared.
func readMapping(line, file string) (m mapping, ofFile bool, err error) {
	const columns = 6 // addresses, rights, offset, device, inode, path; in front of the path are spaces
	fields := strings.SplitN(line, " ", columns)
	if len(fields) < columns-1 {
		return mapping{}, false, errNoMapping
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, false, err
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, false, err
	}
	rights := fields[1]
	ofFile = len(fields) == columns && strings.TrimLeft(fields[5], " ") == file && (rights == "r-xp" || rights == "r--p")
	return mapping{start: uintptr(start), end: uintptr(end)}, ofFile, nil
}
