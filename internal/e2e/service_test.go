package e2e

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"walkey/internal/stack"
)

// service spreads requests over the ready ones of some api processes, in turn, as a Service of Kubernetes does with its pods.
type service struct {
	t      testing.TB
	server *httptest.Server

	mu        sync.Mutex
	endpoints []*endpoint // guarded by mu
	turn      int         // guarded by mu
}

type endpoint struct {
	program *program
	forward *httputil.ReverseProxy
	ready   bool           // guarded by the service's mu: what the last probe found
	busy    sync.WaitGroup // requests that were handed to it
}

// probeEvery is how often readiness is asked for.
const probeEvery = 50 * time.Millisecond

func newService(t testing.TB) *service {
	t.Helper()
	s := &service{t: t}
	s.server = httptest.NewServer(s)
	ctx, cancel := context.WithCancel(t.Context())
	var probing sync.WaitGroup
	probing.Go(func() {
		for ctx.Err() == nil {
			s.probe()
			select {
			case <-ctx.Done():
			case <-time.After(probeEvery):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		probing.Wait()
		s.server.Close()
	})
	return s
}

func (s *service) probe() {
	s.mu.Lock()
	present := append([]*endpoint(nil), s.endpoints...)
	s.mu.Unlock()
	for _, e := range present {
		ready := e.program.ready() == nil
		s.mu.Lock()
		e.ready = ready
		s.mu.Unlock()
	}
}

// ServeHTTP hands a request to the next endpoint that is ready.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e := s.pick(); e != nil {
		defer e.busy.Done()
		e.forward.ServeHTTP(w, r)
		return
	}
	http.Error(w, "no endpoint is ready", http.StatusServiceUnavailable)
}

func (s *service) pick() *endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.endpoints {
		s.turn++
		if e := s.endpoints[s.turn%len(s.endpoints)]; e.ready {
			e.busy.Add(1)
			return e
		}
	}
	return nil
}

// add makes a process an endpoint; it gets requests once a probe has found it ready.
func (s *service) add(p *program) {
	s.t.Helper()
	base, err := url.Parse(p.Base)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	e := &endpoint{program: p, forward: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(base) },
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // a request that fails is counted by who made it
	}}
	s.mu.Lock()
	s.endpoints = append(s.endpoints, e)
	s.mu.Unlock()
	eventually(s.t, "a probe finds it ready", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !e.ready {
			return context.DeadlineExceeded
		}
		return nil
	})
}

// remove takes a process out: it gets no new requests, and has ended those that it was handed when this returns. In a cluster the latter is
// what the preStop sleep of a pod is for, since not everybody who hands out requests knows at once.
func (s *service) remove(p *program) {
	s.mu.Lock()
	var gone *endpoint
	for i, e := range s.endpoints {
		if e.program == p {
			gone = e
			s.endpoints = append(s.endpoints[:i:i], s.endpoints[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	if gone != nil {
		gone.busy.Wait()
	}
}

// front is the service as something that can be asked like a program.
func (s *service) front() *program {
	return &program{Program: &stack.Program{Name: "service", Base: s.server.URL}, t: s.t}
}
