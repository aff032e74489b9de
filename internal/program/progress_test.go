package program

import (
	"bytes"
	"os"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	var off bytes.Buffer
	p := (&Process{Stderr: &off}).Progress("deleting", 10)
	p.add(5, p.begun.Add(time.Hour))
	p.Done()
	if off.Len() > 0 || p.done != 5 {
		t.Errorf("off a terminal it shows %q", off.String())
	}

	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	p = (&Process{Stderr: terminal}).Progress("deleting", 10)
	p.Add(1)
	if p.bar != nil {
		t.Error("what has just begun is shown")
	}
	p.add(3, p.begun.Add(2*time.Second))
	if p.bar == nil || p.bar.State().CurrentNum != 4 {
		t.Errorf("after two seconds it shows %+v", p.bar)
	}
	p.Done()
	p = (&Process{Stderr: terminal}).Progress("counting", -1)
	p.add(3, p.begun.Add(2*time.Second))
	p.Done()
}
