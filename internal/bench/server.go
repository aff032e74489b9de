package main

import (
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"net"
	"net/http"
	"os"
	"time"
)

// canned is an answer that plainServer gives from memory.
type canned struct {
	Path   string
	Status int
	Header http.Header
	Body   []byte
}

// plainServer is the plainest HTTP server: each of its handlers sends the same bytes from memory, or a bare 304.
func plainServer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("floor-server", flag.ContinueOnError)
	addr := flags.String("addr", "", "where to serve")
	file := flags.String("answers", "", "file with what to answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(*file)
	if err != nil {
		return err
	}
	var answers []canned
	err = errors.Join(gob.NewDecoder(f).Decode(&answers), f.Close())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for _, a := range answers {
		mux.HandleFunc("GET "+a.Path, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			for name, values := range a.Header {
				h[name] = values
			}
			if a.Status != http.StatusOK {
				w.WriteHeader(a.Status)
				return
			}
			_, _ = w.Write(a.Body) // wrk may have gone
		})
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err = server.Close()
	if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, stopped)
	}
	return err
}
