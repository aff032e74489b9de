// Package embedded starts private Postgres and Valkey servers from the programs that are installed on this machine: for tests, and
// for the local stack.
//
// Each server listens on a free loopback port and keeps its files in a folder of its own. It never outlives the process that
// started it, however that ends; a temporary folder that a killed process left behind is removed by the next one. The defaults
// trade durability against crashes of the whole machine for speed: this is no way to run a server whose data matters.
package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"walkey/internal/child"
)

const (
	startTimeout = 60 * time.Second // for a server to be ready, where the caller's context names no earlier time
	stopTimeout  = 5 * time.Second  // for an orderly shutdown, before a harder one
	pollInterval = 5 * time.Millisecond
	portTries    = 20 // how many free ports are tried when others are quicker to take them
	logTail      = 16 << 10
)

// errPortTaken says that a server could not start because of its port.
var errPortTaken = errors.New("port is taken")

// logBuffer keeps the end of a server's log and passes all of it on.
type logBuffer struct {
	next io.Writer // may be nil

	mu   sync.Mutex
	tail []byte // guarded by mu; at most twice logTail
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.tail = append(l.tail, b...)
	if len(l.tail) > 2*logTail {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-logTail:]...)
	}
	l.mu.Unlock()
	if l.next != nil {
		// A log that can't be written must not stop the server, which would get SIGPIPE.
		_, _ = l.next.Write(b)
	}
	return len(b), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.tail))
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = l.tail[:0]
}

// waitReady polls ready until it is true, p ends or ctx is done.
func waitReady(ctx context.Context, p *child.Process, ready func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("it ended at once (%w)", exitReason(p))
		case <-ctx.Done():
			return fmt.Errorf("it did not become ready: %w", ctx.Err())
		}
	}
	return nil
}

func exitReason(p *child.Process) error {
	if err := p.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
