package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// sharing lets pages of other origins call the API from a browser (CORS). Cookies go with requests of origins that are
// named, never with those of any origin.
type sharing struct {
	any   bool
	named []string
}

const (
	sharedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	sharedRequest = "Consistency-Token, Content-Type, If-Match, If-None-Match"
	sharedAnswer  = "Cache-Status, Consistency-Token, ETag, Link, Location, Retry-After, Server-Timing"
	sharedSeconds = "600" // that a browser keeps the answer to its question
)

// newSharing reads origins as browsers send them.
func newSharing(origins []string) (sharing, error) {
	var s sharing
	for _, origin := range origins {
		if origin == "*" {
			s.any = true
			continue
		}
		if err := CheckOrigin(origin); err != nil {
			return sharing{}, err
		}
		s.named = append(s.named, origin)
	}
	return s, nil
}

// CheckOrigin tells what is wrong with an origin: it must be "*", or a scheme, a host and perhaps a port, as browsers write it.
func CheckOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || origin != u.Scheme+"://"+strings.ToLower(u.Host) {
		return fmt.Errorf("%q is not an origin; write https://example.org, in lower case and without a path, or *", origin)
	}
	return nil
}

// wrap lets the named origins in. Without any it adds nothing to the way of a request.
func (s sharing) wrap(next http.Handler) http.Handler {
	if !s.any && len(s.named) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		origin := r.Header.Get("Origin")
		named := slices.Contains(s.named, origin)
		switch {
		case named:
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
		case s.any:
			h.Set("Access-Control-Allow-Origin", "*")
		}
		if origin != "" && (named || s.any) {
			h.Set("Access-Control-Expose-Headers", sharedAnswer)
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", sharedMethods)
				h.Set("Access-Control-Allow-Headers", sharedRequest)
				h.Set("Access-Control-Max-Age", sharedSeconds)
			}
		}
		if len(s.named) > 0 {
			w = &varying{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

// varying adds to Vary that an answer depends on the origin, whatever else the handlers write there.
type varying struct {
	http.ResponseWriter
	written bool
}

func (w *varying) add() {
	if !w.written {
		w.written = true
		h := w.Header()
		h["Vary"] = append(slices.Clone(h["Vary"]), "Origin") // handlers share their values
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *varying) WriteHeader(status int) {
	w.add()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *varying) Write(b []byte) (int, error) {
	w.add()
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *varying) Unwrap() http.ResponseWriter { return w.ResponseWriter }
