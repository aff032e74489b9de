package footprint

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smaps = `00400000-01300000 r-xp 00000000 fe:00 9979902                            /opt/my programs/api
Size:              15360 kB
Rss:               10240 kB
Pss:               10240 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
Swap:                  0 kB
SwapPss:               0 kB
VmFlags: rd ex mr mw me
01300000-02416000 r--p 00f00000 fe:00 9979902                            /opt/my programs/api
Rss:               12824 kB
Anonymous:             0 kB
Swap:                  0 kB
02416000-024da000 rw-p 02016000 fe:00 9979902                            /opt/my programs/api
Rss:                 528 kB
Anonymous:             0 kB
Swap:                  0 kB
024da000-04000000 rw-p 00000000 00:00 0
Rss:                 528 kB
Anonymous:           528 kB
Swap:                  0 kB
04000000-04001000 r-xp 00000000 fe:00 9979902                            /opt/my programs/api
Rss:                   4 kB
Anonymous:             4 kB
Swap:                  0 kB
04001000-04002000 r-xp 00000000 fe:00 9979902                            /opt/my programs/api
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  4 kB
04002000-04003000 r-xp 00000000 fe:00 9979902                            /opt/my programs/api
Rss:                   4 kB
04003000-04004000 r--s 00000000 fe:00 9979902                            /opt/my programs/api
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 12                         /lib/libc.so.6
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
`

func TestUnwritten(t *testing.T) {
	t.Parallel()
	got, err := unwritten(strings.NewReader(smaps), "/opt/my programs/api")
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{{0x400000, 0x1300000, 10240}, {0x1300000, 0x2416000, 12824}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"1-", "1-2 r-xp", "x-2 r-xp 0 fe:00 1 /api", "1-x r-xp 0 fe:00 1 /api", "1-2 r-xp 0 fe:00 1 /api\nRss: many kB"} {
		if got, err := unwritten(strings.NewReader(text), "/api"); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

// resident counts the pages of the test program's own file, in KiB.
func resident(t *testing.T) (total uint64, all []mapping) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = text.Close() }()
	if all, err = unwritten(text, exe); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		total += m.resident
	}
	return total, all
}

func TestReleaseProgram(t *testing.T) { // not parallel: what others do maps pages again
	_, all := resident(t)
	if len(all) == 0 {
		t.Fatal("the program has no mappings")
	}
	for _, m := range all {
		const populateRead = 22 // MADV_POPULATE_READ: as if each page had been read
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, populateRead); errno != 0 && !errors.Is(errno, syscall.EINVAL) {
			t.Fatal(errno)
		}
	}
	before, _ := resident(t)
	released, err := releaseProgram()
	if err != nil {
		t.Fatal(err)
	}
	after, _ := resident(t)
	if released == 0 || after >= before {
		t.Errorf("%d KiB before, %d released, %d after", before, released, after)
	}
	// Code, constants and what the runtime needs to unwind a stack are all there.
	defer func() {
		if recover() == nil || !regexp.MustCompile(`^a+b$`).MatchString("aaab") {
			t.Error("the program is not what it was")
		}
	}()
	var none *mapping
	t.Log(none.end)
}
