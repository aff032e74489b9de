package program

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// checkTimeout bounds one check; probes of Kubernetes give up after a second by default.
const checkTimeout = 800 * time.Millisecond

// Check is one thing that readiness depends on.
type Check struct {
	Name string
	// Optional says that the program can do its job without: a failure is shown as degraded, and ready.
	Optional bool
	// Test returns nil when all is well, or why not. It must heed its context.
	Test func(ctx context.Context) error
}

// Statuses of readiness as a whole and of a single check.
const (
	statusReady    = "ready"
	statusDegraded = "degraded"
	statusNotReady = "not ready"
	statusOK       = "ok"
	statusFailed   = "failed"
)

type readiness struct {
	Status string        `json:"status"`
	Checks []checkResult `json:"checks,omitempty"`
}

type checkResult struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Healthz answers that the process is alive. It touches nothing outside.
func Healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, readiness{Status: statusOK})
	})
}

// Readyz answers 200 when all checks hold that are not optional, else 503. With ?verbose it lists every check and what
// is wrong with it.
func Readyz(checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := readiness{Status: statusReady, Checks: make([]checkResult, 0, len(checks))}
		for _, c := range checks {
			result := run(r.Context(), c)
			answer.Checks = append(answer.Checks, result)
			switch {
			case result.Status == statusFailed:
				answer.Status = statusNotReady
			case result.Status == statusDegraded && answer.Status == statusReady:
				answer.Status = statusDegraded
			}
		}
		if !r.URL.Query().Has("verbose") {
			answer.Checks = nil
		}
		code := http.StatusOK
		if answer.Status == statusNotReady {
			code = http.StatusServiceUnavailable
		}
		writeHealth(w, code, answer)
	})
}

func run(ctx context.Context, c Check) checkResult {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := c.Test(ctx)
	switch {
	case err == nil:
		return checkResult{Name: c.Name, Status: statusOK}
	case c.Optional:
		return checkResult{Name: c.Name, Status: statusDegraded, Detail: err.Error()}
	}
	return checkResult{Name: c.Name, Status: statusFailed, Detail: err.Error()}
}

func writeHealth(w http.ResponseWriter, code int, answer readiness) {
	body, err := json.Marshal(answer)
	if err != nil { // strings always marshal
		code, body = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}
