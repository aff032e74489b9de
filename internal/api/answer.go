package api

import (
	"errors"
	"fmt"
	"net/http"

	"walkey/internal/cache"
)

// Header values that answers share. They are never changed.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
	noCache     = []string{"no-cache"}
	noStore     = []string{"no-store"}
	challenge   = []string{`Cookie realm="editors"`}
	nosniff     = []string{"nosniff"}
)

// resource is something that is answered from the cache.
type resource struct {
	at   cache.Address
	ttl  cache.TTL
	load cache.Loader // timed
	// absent is the answer when there is none.
	absent *problem
	// link makes the Link header of a body; nil makes none.
	link func(body []byte) (header string, ok bool)
}

// answer gets a resource and answers with it: in the coding that it is stored in where the client takes that, else in
// plain bytes; or with 304, from the value's head alone, when the client has it.
func (a *API) answer(w http.ResponseWriter, r *http.Request, res resource) error {
	since, err := a.since(r)
	if err != nil {
		return err
	}
	var value cache.Value
	var outcome cache.Outcome
	times := &timing{Context: r.Context()}
	if since == 0 {
		value, outcome, err = a.cache.Fetch(times, res.at, res.ttl, res.load)
	} else {
		value, outcome, err = a.cache.FetchSince(times, res.at, res.ttl, since, res.load)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h["Cache-Status"] = outcome.Header()
	h["Cache-Control"] = noCache
	if outcome != cache.HitLocal {
		h["Server-Timing"] = times.header(a.took(w))
	}
	if value.Absent() {
		return res.absent
	}
	view := value.View(r.Header)
	if view.Validate(h, r.Header) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = nosniff
	if res.link != nil {
		var plain []byte
		if plain, err = value.Identity(); err == nil {
			if link, ok := res.link(plain); ok {
				h["Link"] = []string{link}
			}
		}
	}
	if err == nil {
		err = view.Send(w, r)
	}
	if err != nil {
		// The next request loads it anew.
		return errors.Join(fmt.Errorf("decoding a stored value: %w", err), a.cache.Delete(r.Context(), res.at))
	}
	return nil
}
