// Package api answers HTTP: materials, from the cache where it can be trusted and from Postgres where not; their editors'
// sessions and writes; and the description of all that.
//
// It guarantees that every answer which could come from the cache says how it came about (Cache-Status), carries a
// validator of the exact bytes in the exact coding (ETag) and is to be asked for again before it is used (Cache-Control:
// no-cache); that every error is a problem document (RFC 9457); that a stored body reaches the client as the bytes
// that are stored, in one write; that only an editor who is active at that moment writes, and that whoever shows the
// Consistency-Token of a write, or its session, gets no older answer. How old an answer may be else is the cache's promise,
// not this package's. It never changes what is cached: that is for who follows the tables.
package api

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"walkey/internal/cache"
)

// Cache is what the handlers need of a cache. *cache.Cache is one.
type Cache interface {
	At(key string) cache.Address
	Field(key, field string) cache.Address
	// Fetch gives the value at an address, from the loader when there is none. Its error is the loader's, or ctx's.
	Fetch(ctx context.Context, at cache.Address, ttl cache.TTL, load cache.Loader) (cache.Value, cache.Outcome, error)
	// FetchSince is Fetch for who knows of a change that ended at a position in the WAL: the value is not older.
	FetchSince(ctx context.Context, at cache.Address, ttl cache.TTL, since uint64, load cache.Loader) (cache.Value, cache.Outcome, error)
	// Delete forgets what is stored at the addresses.
	Delete(ctx context.Context, at ...cache.Address) error
}

// Options says what an API works with.
type Options struct {
	Store    *Store
	Cache    Cache
	Sessions Sessions
	Limits   Limits
	// MaxStaleness is the cache's bound on the age of answers.
	MaxStaleness time.Duration
	// InsecureCookie lets browsers send the session's cookie without TLS.
	InsecureCookie bool
	// Origins are those whose pages may call the API from a browser: "https://example.org", or "*" for reading without
	// cookies from anywhere. None by default.
	Origins []string
	// Proxies are the networks whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// Healthz and Readyz answer the probes on the public address.
	Healthz, Readyz http.Handler
	Metrics         *Metrics
	// Tracer makes spans of requests, loads and changes; nil makes none, at no cost.
	Tracer trace.Tracer
	Logger *zap.Logger
}

// API is the public HTTP interface. It is ready for use from the start; until Migrated is called, failures of the
// database are told as those of a program that is still starting.
type API struct {
	store    *Store
	cache    Cache
	sessions *sessions
	limits   Limits
	clients  clients
	metrics  *Metrics
	tracer   trace.Tracer // nil: none
	log      *zap.Logger  // sampled: an outage is not a line for each request
	made     time.Time
	handler  http.Handler
	all      resource // the list without a query
	migrated atomic.Bool

	crossOrigin                   *http.CrossOriginProtection
	loginsByAddress, loginsByName cache.Limit
}

// New makes an API. An origin that is none is an error.
func New(o Options) (*API, error) {
	a := &API{
		store:           o.Store,
		cache:           o.Cache,
		sessions:        newSessions(o.Sessions, o.InsecureCookie, o.MaxStaleness),
		limits:          o.Limits,
		clients:         clients{o.Proxies},
		metrics:         o.Metrics,
		tracer:          o.Tracer,
		log:             sampled(o.Logger),
		made:            time.Now(),
		crossOrigin:     http.NewCrossOriginProtection(),
		loginsByAddress: loginsByAddress,
		loginsByName:    loginsByName,
	}
	a.all = a.listed(listQuery{})
	shared, err := newSharing(o.Origins)
	if err != nil {
		return nil, err
	}
	for _, origin := range shared.named {
		if err := a.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	mux, err := a.routes(o.Healthz, o.Readyz)
	if err != nil {
		return nil, err
	}
	a.handler = shared.wrap(mux)
	return a, nil
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Migrated says that the schema is in place.
func (a *API) Migrated() { a.migrated.Store(true) }
