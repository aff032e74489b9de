package program

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"walkey/internal/onewrite"
	"walkey/internal/patient"
)

// Time limits of a server.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 32 << 10
	drainTimeout      = 20 * time.Second // below the 30 s that Kubernetes waits before it kills
)

// ServerOptions says what to serve where.
type ServerOptions struct {
	Name    string // in messages: "public API"
	Addr    Address
	Handler http.Handler
	// Streams lifts the limit on the time that an answer may take, for event streams and profiles.
	Streams bool
	// Drain bounds how long Serve waits for requests under way when it is asked to stop. Default 20 s.
	Drain  time.Duration
	Logger *zap.Logger
}

// Server is an HTTP server that listens already.
type Server struct {
	name     string
	listener net.Listener
	http     *http.Server
	drain    time.Duration
}

// Listen takes the address. From then on connections wait until Serve is called. Whoever does not call Serve must call
// Close.
func Listen(ctx context.Context, o ServerOptions) (*Server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", string(o.Addr))
	if err != nil {
		return nil, fmt.Errorf("listening for the %s: %w", o.Name, err)
	}
	if o.Drain == 0 {
		o.Drain = drainTimeout
	}
	s := &Server{name: o.Name, listener: onewrite.Listener(patient.Listener(listener)), drain: o.Drain, http: &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       onewrite.Context,
	}}
	if o.Streams {
		s.http.WriteTimeout = 0
	}
	if o.Logger != nil {
		// What net/http has to say is about clients: handshakes cut short, superfluous headers.
		if s.http.ErrorLog, err = zap.NewStdLogAt(o.Logger, zap.DebugLevel); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing the log of the %s: %w", o.Name, err), listener.Close())
		}
	}
	return s, nil
}

// Addr is the address that is listened on, with the port that was taken.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests until ctx ends, then takes no new ones, waits for those under way for a bounded time and
// returns. Requests that had to be cut are an error.
func (s *Server) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving the %s: %w", s.name, err)
	case <-ctx.Done():
	}
	// The context that asked to stop has ended; the drain needs one that has not.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
	defer cancel()
	err := s.http.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("draining the %s: %w", s.name, err), s.http.Close())
	}
	if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serving the %s: %w", s.name, stopped))
	}
	return err
}

// Close stops listening without having served.
func (s *Server) Close() error { return s.listener.Close() }
