// Package child runs another program as a child process that one goroutine owns from its start to its end.
//
// It guarantees that the child does not outlive this process, however this process ends (on Linux also by SIGKILL), that a
// terminal's Ctrl-C reaches this process alone, and that after Stop, Kill or a closed Done channel the child is gone and reaped.
// It does not look after what the child itself starts.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputGrace is how long the end of a process waits for others that still hold its output open.
const outputGrace = 3 * time.Second

// Command says what to run.
type Command struct {
	Path string   // the program: a path, or a name that is looked up in PATH
	Args []string // without the program's own name
	Dir  string   // working directory; empty means this process' own
	Env  []string // the whole environment, as "NAME=value"; nil means this process' own

	// Output takes standard output and standard error. One goroutine writes to it. Nil means that output is dropped.
	Output io.Writer

	// User is whom the child runs as; nil means the user of this process. Only root can name another.
	User *syscall.Credential

	// OnParentDeath is sent to the child when this process dies without ending it; 0 means SIGKILL. Linux only.
	OnParentDeath syscall.Signal
}

// Process is a child that was started. Its methods may be called at the same time by several goroutines.
type Process struct {
	name    string
	process *os.Process
	done    chan struct{}
	err     error // written before done is closed, read only after it
}

// Start starts the command. The error is the system's when it could not be started.
func Start(c Command) (*Process, error) {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	if c.Output != nil {
		cmd.Stdout, cmd.Stderr = c.Output, c.Output
	}
	cmd.WaitDelay = outputGrace
	// A process group of its own keeps a terminal's signals away. It also lets the kernel continue (SIGCONT) a child that is
	// stopped when this process dies, so that the signal of OnParentDeath gets through.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.User}
	dieWithParent(cmd.SysProcAttr, c.OnParentDeath)

	p := &Process{name: cmd.Path, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the *thread* that forked ends, so this thread has to last as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.process = cmd.Process
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return p, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.process.Pid }

// Done is closed once the child has ended and its output has been written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the child has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Err is how the child ended, as of [exec.Cmd.Wait]: nil for exit code 0. It is nil as well while the child runs.
func (p *Process) Err() error {
	if p.Running() {
		return nil
	}
	return p.err
}

// Signal sends a signal to the child alone; [os.ErrProcessDone] when it has ended.
func (p *Process) Signal(s os.Signal) error { return p.process.Signal(s) }

// Stop sends the signal, waits for the end of the child until ctx is done, and then kills it. A child that SIGSTOP holds is
// continued first. It returns with the child gone; the error says that it had to be killed. A child that has ended is no error.
func (p *Process) Stop(ctx context.Context, s syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := errors.Join(p.Signal(syscall.SIGCONT), p.Signal(s)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s (pid %d): %w", p.name, p.PID(), err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s (pid %d) did not end on %s and was killed: %w", p.name, p.PID(), s, ctx.Err())
}

// Kill sends SIGKILL and waits until the child is gone. A child that has ended is no error.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s (pid %d): %w", p.name, p.PID(), err)
	}
	<-p.done
	return nil
}

// Run starts the command and waits for its end: nil for exit code 0. When ctx ends first the child is killed, and the error is ctx's.
func Run(ctx context.Context, c Command) error {
	p, err := Start(c)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Kill())
	}
}
