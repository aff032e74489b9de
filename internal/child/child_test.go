package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const outer = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_PARENT") != "" {
		parent()
		return
	}
	goleak.VerifyTestMain(m)
}

// output is a buffer that a child writes to while a test reads.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(outer)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// shell starts a script and waits until it has printed "ready".
func shell(t *testing.T, script string) (*Process, *output) {
	t.Helper()
	var out output
	p, err := Start(Command{Path: "sh", Args: []string{"-c", script}, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the script is ready", func() bool { return strings.Contains(out.String(), "ready\n") })
	return p, &out
}

func TestStopEndsInGoodOrder(t *testing.T) {
	t.Parallel()
	p, out := shell(t, `trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done`)
	if err := p.Err(); err != nil || !p.Running() {
		t.Fatalf("running is %t with error %v, want a child that runs", p.Running(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), outer)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "ready\nbye\n" {
		t.Errorf("output %q, want all of it", got)
	}
	var exit *exec.ExitError
	if !errors.As(p.Err(), &exit) || exit.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit code 3", p.Err())
	}
	if err := errors.Join(p.Stop(ctx, syscall.SIGTERM), p.Kill()); err != nil {
		t.Errorf("stopped a second time: %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signalled after its end: %v, want %v", err, os.ErrProcessDone)
	}
}

func TestStopContinuesAFrozenChild(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), outer)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); err != nil || p.Err() != nil {
		t.Errorf("stopped with %v, ended with %v; want neither", err, p.Err())
	}
}

func TestStopKillsWhoDoesNotListen(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx, syscall.SIGTERM); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped with %v, want an error that says it was killed", err)
	}
	if p.Running() {
		t.Error("the child still runs")
	}
}

func TestStartOfAMissingProgramFails(t *testing.T) {
	t.Parallel()
	if _, err := Start(Command{Path: "/nowhere/at/all"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("started with %v, want %v", err, os.ErrNotExist)
	}
}

func TestRunWaitsAndIsCutShort(t *testing.T) {
	t.Parallel()
	var out output
	if err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", "echo out; echo err >&2"}, Output: &out}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "out\nerr\n" {
		t.Errorf("output %q, want both streams", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Run(ctx, Command{Path: "sleep", Args: []string{"600"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ran with %v, want %v", err, context.DeadlineExceeded)
	}
}

// parent is this test binary as a process that is killed: it starts two children, one of them frozen, and prints their ids.
func parent() {
	for _, c := range []Command{
		{Path: "sleep", Args: []string{"600"}},
		{Path: "sleep", Args: []string{"600"}, OnParentDeath: syscall.SIGTERM},
	} {
		p, err := Start(c)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if c.OnParentDeath != 0 {
			if err := p.Signal(syscall.SIGSTOP); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		fmt.Println(p.PID())
	}
	fmt.Println("ready")
	select {}
}
