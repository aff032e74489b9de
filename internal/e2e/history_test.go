package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// history is what a writer committed to the title of row 1, whose titles are "v1", "v2" and so on, and when.
// Every answer is held against it.
type history struct {
	mu       sync.Mutex
	returned []time.Time // guarded by mu: returned[i] is when the COMMIT of version i+1 had returned
}

func (h *history) committed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.returned = append(h.returned, time.Now())
}

func (h *history) latest() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.returned)
}

// age is for how long version had been overwritten when a request began: zero when it was the newest whose COMMIT had
// returned, or newer.
func (h *history) age(version int, began time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if version >= len(h.returned) {
		return 0
	}
	return max(0, began.Sub(h.returned[version])) // returned[version] belongs to version+1
}

// version reads the version of row 1 out of an answer.
func version(a answer) (int, error) {
	for _, title := range a.titles() {
		if n, err := strconv.Atoi(strings.TrimPrefix(title, "v")); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no version in %s", a)
}

// writeVersions overwrites row 1 again and again until ctx ends. It gives up at the first error.
func writeVersions(ctx context.Context, conn *pgx.Conn, h *history, pause time.Duration) error {
	for ctx.Err() == nil {
		next := fmt.Sprintf("v%d", h.latest()+1)
		// The commit must not be torn from its entry in the history by the end of the test.
		if _, err := conn.Exec(context.WithoutCancel(ctx), "update materials set title = $1 where id = 1", next); err != nil {
			return err
		}
		h.committed()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// reader asks again and again and keeps the worst it has seen.
type reader struct {
	reads, hits int
	worst       time.Duration // age of the oldest answer
	slowest     time.Duration
	failure     error // the first answer that was no 200
}

// read asks api for path until ctx ends.
func (r *reader) read(ctx context.Context, api *program, path string, h *history) {
	for ctx.Err() == nil {
		a, err := api.try(path)
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%s", a)
		}
		var v int
		if err == nil {
			v, err = version(a)
		}
		if err != nil {
			if r.failure == nil {
				r.failure = err
			}
			return
		}
		r.reads++
		if strings.HasPrefix(a.Cache, "walkey; hit") {
			r.hits++
		}
		r.worst = max(r.worst, h.age(v, a.Began))
		r.slowest = max(r.slowest, a.Took)
	}
}

// reading runs readers of the list and the detail on every api until stop is called, which gives what they saw together.
func reading(t testing.TB, h *history, apis ...*program) (stop func() reader) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var readers []*reader
	for _, api := range apis {
		for _, path := range []string{listPath, detailPath(1)} {
			r := &reader{}
			readers = append(readers, r)
			wait.Go(func() { r.read(ctx, api, path, h) })
		}
	}
	t.Cleanup(func() { cancel(); wait.Wait() })
	return func() reader {
		cancel()
		wait.Wait()
		var all reader
		for _, r := range readers {
			all.reads += r.reads
			all.hits += r.hits
			all.worst = max(all.worst, r.worst)
			all.slowest = max(all.slowest, r.slowest)
			if all.failure == nil {
				all.failure = r.failure
			}
		}
		return all
	}
}

// writing overwrites row 1 until stop is called.
func (s *servers) writing(h *history, pause time.Duration) (stop func()) {
	s.t.Helper()
	conn := s.connect()
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- writeVersions(ctx, conn, h, pause) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("write: %v", err)
			}
		})
	}
	s.t.Cleanup(stop)
	return stop
}

// versioned puts in row 1 with version 1.
func (s *servers) versioned() *history {
	s.t.Helper()
	s.seed("v1")
	h := &history{}
	h.committed()
	return h
}

// wantLatest checks that every api has the newest version.
func wantLatest(t testing.TB, h *history, apis ...*program) {
	t.Helper()
	newest := fmt.Sprintf("v%d", h.latest())
	for _, api := range apis {
		for _, path := range []string{listPath, detailPath(1)} {
			api.waitFor(path, newest, hasTitle(newest))
			if a := api.waitHit(path); !hasTitle(newest)(a) {
				t.Errorf("%s does not stay at %s: %s", path, newest, a)
			}
		}
	}
}
