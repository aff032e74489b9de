package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"walkey/internal/cache"
)

// Header values that answers share. They are never changed.
var (
	jsonType     = []string{"application/json"}
	problemType  = []string{"application/problem+json"}
	noCache      = []string{"no-cache"}
	noStore      = []string{"no-store"}
	challenge    = []string{`Cookie realm="editors"`}
	varyCoding   = []string{"Accept-Encoding"}
	nosniff      = []string{"nosniff"}
	codedDeflate = []string{"deflate"}
	codedZstd    = []string{"zstd"}
	codedGzip    = []string{"gzip"}
)

// codings are the names in HTTP of what bodies may be stored in.
var codings = []string{"deflate", "zstd", "gzip"}

// resource is something that is answered from the cache.
type resource struct {
	at   cache.Address
	ttl  cache.TTL
	load cache.Loader
	// absent is the answer when there is none.
	absent *problem
	// groups is the value of Cache-Groups.
	groups []string
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
	var times timing
	begun := time.Now()
	if since == 0 {
		value, outcome, err = a.cache.Fetch(r.Context(), res.at, res.ttl, times.loading(res.load))
	} else {
		value, outcome, err = a.cache.FetchSince(r.Context(), res.at, res.ttl, since, times.loading(res.load))
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h["Cache-Status"] = cacheStatus(outcome)
	h["Cache-Control"] = noCache
	h["Cache-Groups"] = res.groups
	h["Server-Timing"] = times.header(time.Since(begun))
	if value.Absent() {
		return res.absent
	}
	coding := sharedCoding(value.ContentCoding())
	if coding != nil && !acceptsCoding(r.Header["Accept-Encoding"], coding[0]) {
		coding = nil
	}
	tag := entityTag(value.Tag(), coding)
	h["Vary"] = varyCoding
	h["Etag"] = []string{tag}
	if known := r.Header["If-None-Match"]; len(known) > 0 && matchesTag(known, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}

	body := value.Encoded()
	if coding == nil || res.link != nil {
		plain, err := value.Identity()
		if err != nil {
			// The next request loads it anew.
			return errors.Join(fmt.Errorf("decoding a stored value: %w", err), a.cache.Delete(r.Context(), res.at))
		}
		if res.link != nil {
			if link, ok := res.link(plain); ok {
				h["Link"] = []string{link}
			}
		}
		if coding == nil {
			body = plain
		}
	}
	if coding != nil {
		h["Content-Encoding"] = coding
	}
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = nosniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(body) // a client that has gone needs no answer
	return nil
}

// sharedCoding is a coding as the value of a header; nil for plain bytes.
func sharedCoding(name string) []string {
	switch name {
	case "deflate":
		return codedDeflate
	case "zstd":
		return codedZstd
	case "gzip":
		return codedGzip
	}
	return nil
}

// entityTag tells the codings of the same bytes apart.
func entityTag(hash string, coding []string) string {
	if coding == nil {
		return `"` + hash + `"`
	}
	return `"` + hash + "-" + coding[0] + `"`
}

// cacheStatuses are the values of Cache-Status by outcome.
var cacheStatuses = func() (values [16][]string) {
	for i := range values {
		values[i] = []string{cache.Outcome(i).String()}
	}
	return values
}()

func cacheStatus(o cache.Outcome) []string {
	if int(o) < len(cacheStatuses) {
		return cacheStatuses[o]
	}
	return []string{o.String()}
}
