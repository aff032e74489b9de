package cache

import (
	"context"
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// PageOptions say what a kept answer may depend on, and how large it may be.
type PageOptions struct {
	// Vary names the headers of a request that its answer may depend on; "Host" counts as one. Each combination of their
	// values is kept by itself.
	Vary []string
	// Overloaded answers when the handler is not asked because too many loads wait already. By default it is 503 with Retry-After.
	Overloaded http.Handler
	// MaxBytes bounds the body of an answer that is kept; 1 MiB when zero.
	MaxBytes int
}

// A PageCache is where Page keeps answers. *Cache is one.
type PageCache interface {
	Field(key, field string) Address
	Fetch(ctx context.Context, at Address, ttl TTL, load Loader) (Value, Outcome, error)
	FetchSince(ctx context.Context, at Address, ttl TTL, since uint64, load Loader) (Value, Outcome, error)
	Delete(ctx context.Context, at ...Address) error
}

const (
	defaultPageBytes = 1 << 20
	maxPageField     = 2 << 10 // bytes; a longer address is answered without being kept
)

// Page keeps the answers of next under the key page:GROUP, which a rule deletes when something changes that they depend on:
// one field of it for each path, query and combination of the headers in PageOptions.Vary. The order of a query's parameters
// makes no difference, and HEAD is answered from what GET has. All that a Cache promises holds for them, and they are shown
// like everything else: with Cache-Status, an ETag for each coding, 304, and Cache-Control: no-cache.
//
// To be kept, an answer has to be a whole 200 without Set-Cookie, without "private" or "no-store" in Cache-Control, without a
// coding of its own, no larger than MaxBytes, and its Vary may name nothing but PageOptions.Vary and Accept-Encoding.
// Another 200 is remembered as one that can't be kept, under the same rules.
//
// So that an answer can't depend on what does not tell it from others, next sees of the request that it answers for all only
// the path, the query, and the headers in PageOptions.Vary: no cookies, no client's address, no range. It also sees the
// values of the request's context, in which there should be nothing about who asks. When its answer can't be shared, it
// is asked again with the request as it is. That is also the way of requests with other methods than GET and HEAD, and
// of requests with Authorization.
func Page(c PageCache, group string, ttl TTL, o PageOptions, next http.Handler) http.Handler {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultPageBytes
	}
	if o.Overloaded == nil {
		o.Overloaded = http.HandlerFunc(comeAgain)
	}
	p := &page{cache: c, key: pageKeys + group, ttl: ttl, limit: min(o.MaxBytes, maxBody), next: next, overloaded: o.Overloaded}
	for _, name := range o.Vary {
		p.dependsOn = append(p.dependsOn, textproto.CanonicalMIMEHeaderKey(name))
	}
	slices.Sort(p.dependsOn)
	p.dependsOn = slices.Compact(p.dependsOn)
	p.vary = []string{strings.Join(append(slices.Clone(p.dependsOn), varyCoding...), ", ")}
	return p
}

// NotOlder makes a context for a request to a Page whose answer is not to be older than the change that ended at a position
// in the WAL, as in FetchSince.
func NotOlder(ctx context.Context, since uint64) context.Context {
	return context.WithValue(ctx, notOlder{}, since)
}

type notOlder struct{}

type page struct {
	cache     PageCache
	key       string
	ttl       TTL
	limit     int
	dependsOn []string // canonical, sorted
	vary      []string // the value of Vary
	next      http.Handler

	overloaded http.Handler
}

func comeAgain(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Retry-After"] = []string{"1"}
	http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
}

// ServeHTTP answers from what is kept, or by the handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, field, ok := p.field(r)
	if !ok {
		p.next.ServeHTTP(w, r)
		return
	}
	at := p.cache.Field(p.key, field)
	load := func(ctx context.Context) (Content, error) { return p.load(p.bare(ctx, r, query)) }
	var value Value
	var outcome Outcome
	var err error
	if since, _ := r.Context().Value(notOlder{}).(uint64); since == 0 {
		value, outcome, err = p.cache.Fetch(r.Context(), at, p.ttl, load)
	} else {
		value, outcome, err = p.cache.FetchSince(r.Context(), at, p.ttl, since, load)
	}
	if err == nil && !value.Absent() {
		if p.answer(w, r, value, outcome) == nil {
			return
		}
		// What is stored is damaged; the next request loads it anew, if this succeeds.
		_ = p.cache.Delete(r.Context(), at)
	}
	if shared, ok := errors.AsType[*sharedAnswer](err); ok {
		shared.write(w, r)
		return
	}
	if loader, ok := errors.AsType[*LoadPanic](err); ok {
		panic(loader.Value) // as it would have without a cache
	}
	if err != nil && r.Context().Err() != nil {
		return // nobody waits for an answer
	}
	if errors.Is(err, ErrOverloaded) {
		p.overloaded.ServeHTTP(w, r)
		return
	}
	p.next.ServeHTTP(w, r)
}

// field is where the answer to a request is kept, and its query in the one form that all handlers are shown. It is not ok
// for requests whose answers are not.
func (p *page) field(r *http.Request) (query, field string, ok bool) {
	h := r.Header
	if r.Method != http.MethodGet && r.Method != http.MethodHead || len(h["Authorization"]) > 0 || len(h["Upgrade"]) > 0 {
		return "", "", false
	}
	field = http.MethodGet + " " + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", "", false
		}
		query = values.Encode()
		field += "?" + query
	}
	for _, name := range p.dependsOn {
		// Quoted, so that no value can look like the name of another.
		field += " " + name + ":" + strconv.Quote(dependency(r, name))
	}
	return query, field, len(field) <= maxPageField
}

// dependency is the value of a header that answers depend on.
func dependency(r *http.Request, name string) string {
	if name == "Host" {
		return r.Host
	}
	return strings.Join(r.Header[name], ", ")
}

// bare is the request without all that its answer must not depend on.
func (p *page) bare(ctx context.Context, r *http.Request, query string) *http.Request {
	bare := r.Clone(ctx)
	bare.Method = http.MethodGet
	bare.Header = make(http.Header)
	bare.Host, bare.RemoteAddr, bare.TLS = "", "", nil
	for _, name := range p.dependsOn {
		if name == "Host" {
			bare.Host = r.Host
		} else if values := r.Header[name]; len(values) > 0 {
			bare.Header[name] = []string{dependency(r, name)}
		}
	}
	bare.URL.Host, bare.URL.User, bare.URL.Fragment, bare.URL.RawFragment = "", nil, "", ""
	bare.URL.RawQuery = query
	bare.RequestURI = bare.URL.RequestURI()
	bare.Body, bare.ContentLength, bare.TransferEncoding, bare.Trailer = http.NoBody, 0, nil, nil
	bare.Form, bare.PostForm, bare.MultipartForm = nil, nil, nil
	return bare
}

// load runs the handler.
func (p *page) load(bare *http.Request) (Content, error) {
	rec := &recording{header: make(http.Header), limit: p.limit}
	p.next.ServeHTTP(rec, bare)
	return rec.content(p.dependsOn)
}

// answer answers with what is kept. When it is damaged nothing has been sent.
func (p *page) answer(w http.ResponseWriter, r *http.Request, value Value, outcome Outcome) error {
	kept, err := parsePageHead(value.Meta())
	if err != nil {
		return err
	}
	h := w.Header()
	outer := h["Vary"] // of those around this handler
	view := value.View(r.Header)
	known := view.Validate(h, r.Header)
	h["Vary"] = p.vary
	if len(outer) > 0 {
		h["Vary"] = append(slices.Clone(outer), p.vary...)
	}
	h["Cache-Status"] = outcome.Header()
	h["Cache-Control"] = noCache
	if known {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	for name, values := range kept {
		h[name] = values
	}
	return view.Send(w, r)
}
