package program_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"walkey/internal/program"
)

// serving is a server under test: requests to it wait inside the handler until release is closed.
type serving struct {
	url     string
	stop    context.CancelFunc
	entered chan struct{}
	release chan struct{}
	done    chan error
}

func startServing(t *testing.T, drain time.Duration) *serving {
	t.Helper()
	s := &serving{entered: make(chan struct{}, 1), release: make(chan struct{}), done: make(chan error, 1)}
	server, err := program.Listen(t.Context(), program.ServerOptions{
		Name: "test API", Addr: "127.0.0.1:0", Drain: drain, Logger: zap.NewNop(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.entered <- struct{}{}
			select {
			case <-s.release:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, "whole")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + server.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	go func() { s.done <- server.Serve(ctx) }()
	t.Cleanup(cancel)
	return s
}

// get asks once, over a connection of its own.
func (s *serving) get(t *testing.T) <-chan error {
	t.Helper()
	answered := make(chan error, 1)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(response.Body)
			err = errors.Join(err, response.Body.Close())
			if string(body) != "whole" {
				err = errors.Join(err, errors.New("the answer is not whole"))
			}
		}
		answered <- err
	}()
	return answered
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	s := startServing(t, time.Minute)
	answered := s.get(t)
	<-s.entered
	s.stop()
	// New connections are refused while the request under way goes on.
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-s.done:
		t.Fatalf("stopped with a request under way: %v", err)
	default:
	}
	close(s.release)
	if err := <-answered; err != nil {
		t.Errorf("the request under way got %v", err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestServeCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := startServing(t, time.Millisecond)
	answered := s.get(t)
	<-s.entered
	s.stop()
	if err := <-s.done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped with %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
}

func TestListenOnATakenPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, err = program.Listen(t.Context(), program.ServerOptions{Name: "test API", Addr: program.Address(taken.Addr().String())})
	if err == nil || !strings.Contains(err.Error(), "test API") {
		t.Errorf("got %v", err)
	}
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	good := program.Check{Name: "database", Test: func(context.Context) error { return nil }}
	bad := program.Check{Name: "schema", Test: func(context.Context) error { return errors.New("not there") }}
	optional := program.Check{Name: "cache", Optional: true, Test: func(context.Context) error { return errors.New("away") }}
	slow := program.Check{Name: "slow", Test: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	tests := []struct {
		name    string
		checks  []program.Check
		query   string
		code    int
		want    string
		listing string // part of the listing
	}{
		{"all well", []program.Check{good}, "", 200, "ready", ""},
		{"degraded", []program.Check{good, optional}, "", 200, "degraded", ""},
		{"not ready", []program.Check{good, bad, optional}, "", 503, "not ready", ""},
		{"order does not matter", []program.Check{optional, bad, good}, "", 503, "not ready", ""},
		{"verbose", []program.Check{good, bad, optional}, "?verbose", 503, "not ready", `{"name":"schema","status":"failed","detail":"not there"},{"name":"cache","status":"degraded","detail":"away"}`},
		{"a check that hangs", []program.Check{slow}, "", 503, "not ready", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			program.Readyz(tt.checks...).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz"+tt.query, nil))
			var answer struct {
				Status string
				Checks json.RawMessage
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.code || answer.Status != tt.want {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if !bytes.Contains(answer.Checks, []byte(tt.listing)) || tt.query == "" && answer.Checks != nil {
				t.Errorf("listing %s", answer.Checks)
			}
		})
	}
}

func TestHealthz(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	program.Healthz().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
	if w.Code != http.StatusOK || w.Body.String() != "{\"status\":\"ok\"}\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, level := (&program.Logging{LogLevel: "warn"}).Logger(&program.Process{Name: "worker", Stderr: &out})
	log.Info("quiet")
	level.SetLevel(zap.InfoLevel)
	log.Info("loud", zap.Int("n", 1))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line["msg"] != "loud" || line["logger"] != "worker" || line["n"] != 1.0 {
		t.Errorf("got %v", line)
	}
	out.Reset()
	for i := range 1000 {
		log.Warn("again", zap.Int("i", i))
	}
	// The window may end in between.
	if n := strings.Count(out.String(), "again"); n < 10 || n > 20 {
		t.Errorf("a line that is repeated was logged %d times", n)
	}
	level.SetLevel(zap.DebugLevel)
	out.Reset()
	for range 1000 {
		log.Debug("every one")
	}
	if n := strings.Count(out.String(), "every one"); n != 1000 {
		t.Errorf("%d of 1000 lines at debug", n)
	}
	out.Reset()
	log, _ = (&program.Logging{LogLevel: "info", LogFormat: "console"}).Logger(&program.Process{Name: "worker", Stderr: &out})
	log.Info("loud")
	if json.Valid(out.Bytes()) || !strings.Contains(out.String(), "INFO") {
		t.Errorf("got %q", out.String())
	}
}

// waitFor polls until the condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("waited a minute in vain")
		}
	}
}
