package cache

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// recording is the ResponseWriter of a handler whose answer may be kept.
type recording struct {
	header  http.Header
	status  int         // 0 until the header is written
	written http.Header // as it was then
	body    []byte
	limit   int // of body
	over    bool
}

var errPageTooLarge = errors.New("the answer is larger than what is kept of a page")

// Header implements http.ResponseWriter.
func (r *recording) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recording) WriteHeader(status int) {
	if r.status != 0 || status < 200 {
		return // what comes before the answer is for one client
	}
	r.status, r.written = status, r.header.Clone()
}

// Write implements http.ResponseWriter.
func (r *recording) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if len(r.body)+len(b) > r.limit {
		r.over, r.body = true, nil
	}
	if r.over {
		return 0, errPageTooLarge
	}
	r.body = append(r.body, b...)
	return len(b), nil
}

var errNotShared = errors.New("the answer is for one request alone")

// content is what is kept of the answer. Absent stands for an answer that can't be. An answer other than 200 is an error:
// a *sharedAnswer when it can be given to all who wait for it.
func (r *recording) content(dependsOn []string) (Content, error) {
	r.WriteHeader(http.StatusOK) // unless it has one
	h := r.written
	if _, set := h["Content-Type"]; !set && len(r.body) > 0 {
		h["Content-Type"] = []string{http.DetectContentType(r.body)} // as net/http does
	}
	shared := !r.over && r.whole() && r.forAll(dependsOn)
	switch r.status {
	case http.StatusOK:
		if !shared || slices.Contains(directives(h), "no-store") {
			return Content{Absent: true}, nil
		}
		return Content{Body: r.body, Meta: pageHead(h)}, nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusPartialContent, http.StatusNotModified:
		shared = false // it would be another one for the request as it is
	}
	if !shared {
		return Content{}, errNotShared
	}
	return Content{}, &sharedAnswer{status: r.status, header: h, body: r.body}
}

// whole says that no part of the answer is missing or was sent in another way.
func (r *recording) whole() bool {
	if length := r.written.Get("Content-Length"); length != "" && length != strconv.Itoa(len(r.body)) {
		return false
	}
	for name := range r.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return false
		}
	}
	return len(r.written["Trailer"]) == 0 && len(r.written["Content-Range"]) == 0
}

// forAll says that the answer is for everybody whose request has the same values in dependsOn.
func (r *recording) forAll(dependsOn []string) bool {
	h := r.written
	if len(h["Set-Cookie"]) > 0 || len(h["Www-Authenticate"]) > 0 || slices.Contains(directives(h), "private") {
		return false
	}
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return false
	}
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if name != "" && name != varyCoding[0] && !slices.Contains(dependsOn, name) {
				return false
			}
		}
	}
	return true
}

// directives are the names in Cache-Control.
func directives(h http.Header) (names []string) {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(directive, "=")
			names = append(names, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	return names
}

// sharedAnswer is an answer that is not kept, but is right for all who wait for it.
type sharedAnswer struct {
	status int
	header http.Header
	body   []byte
}

func (s *sharedAnswer) Error() string { return "the handler answered " + strconv.Itoa(s.status) }

var onlyMiss = []string{"walkey; fwd=miss"}

func (s *sharedAnswer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, values := range s.header {
		if !hopByHop[name] {
			h[name] = slices.Clone(values)
		}
	}
	h["Cache-Status"] = onlyMiss
	w.WriteHeader(s.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(s.body) // a client that has gone needs no answer
	}
}

// hopByHop headers belong to one connection.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true,
}

// madeAnew are the headers that every answer gets when it is given.
var madeAnew = map[string]bool{
	"Accept-Ranges": true, "Age": true, "Cache-Control": true, "Cache-Status": true, "Content-Encoding": true,
	"Content-Length": true, "Date": true, "Etag": true, "Expires": true, "Server-Timing": true, "Vary": true,
}

// The meta of a page is its status, which is 200 as yet, and its header: names and values, one after the other. Numbers and
// lengths are uvarints.

func pageHead(h http.Header) []byte {
	b := binary.AppendUvarint(nil, http.StatusOK)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if hopByHop[name] || madeAnew[name] {
			continue
		}
		for _, value := range h[name] {
			b = binary.AppendUvarint(b, uint64(len(name)))
			b = append(b, name...)
			b = binary.AppendUvarint(b, uint64(len(value)))
			b = append(b, value...)
		}
	}
	return b
}

// parsePageHead reads what pageHead has written, from bytes that may be anything. The header shares their memory.
func parsePageHead(b []byte) (http.Header, error) {
	status, n := binary.Uvarint(b)
	if n <= 0 || status != http.StatusOK {
		return nil, errMalformed
	}
	b = b[n:]
	text := func() (s string, ok bool) {
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return "", false
		}
		part := b[n : n+int(length)]
		b = b[n+int(length):]
		// A view and not a copy, as in Tag.
		return unsafe.String(unsafe.SliceData(part), len(part)), true
	}
	h := make(http.Header, 4)
	for len(b) > 0 {
		name, ok1 := text()
		value, ok2 := text()
		if !ok1 || !ok2 {
			return nil, errMalformed
		}
		h[name] = append(h[name], value)
	}
	return h, nil
}
