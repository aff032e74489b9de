package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cache"
)

const (
	typesPath        = "/api/materials/types/"
	pagesOfMaterials = "materials" // as cache.Page names what depends on materials
)

// TypeCount is how many active materials are of one type.
type TypeCount struct {
	MaterialType string `json:"material_type"`
	Count        int64  `json:"count"`
}

type typeCounts struct {
	Types []TypeCount `json:"types"`
}

// typesPage answers GET typesPath, by the page middleware.
func (a *API) typesPage() handler {
	counted := a.answerErrors(recovered(a.countTypes))
	overloaded := a.answerErrors(func(http.ResponseWriter, *http.Request) error { return cache.ErrOverloaded })
	page := cache.Page(a.cache, pagesOfMaterials, cache.Lists, cache.PageOptions{
		Overloaded: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { overloaded(&recorder{ResponseWriter: w, request: r}, r) }),
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { counted(&recorder{ResponseWriter: w, request: r}, r) }))
	return func(w http.ResponseWriter, r *http.Request) error {
		since, err := a.since(r)
		if err != nil {
			return err
		}
		timed := &timedWriter{ResponseWriter: w, timing: timing{Context: r.Context()}, begun: time.Now()}
		one := r.WithContext(cache.NotOlder(&timed.timing, since))
		// Nothing in a query or in Authorization makes a difference, and both forms of the path are one address.
		one.URL = &url.URL{Path: typesPath}
		if len(r.Header["Authorization"]) > 0 {
			one.Header = r.Header.Clone()
			one.Header.Del("Authorization")
		}
		page.ServeHTTP(timed, one)
		if !timed.written {
			return context.Cause(r.Context()) // nil but for a client that has gone
		}
		return nil
	}
}

// countTypes answers how many active materials there are of each type.
func (a *API) countTypes(w http.ResponseWriter, r *http.Request) error {
	ctx, span := startSpan(r.Context(), "load")
	begun := time.Now()
	types, err := a.store.types(ctx)
	timingOf(ctx).loaded(time.Since(begun))
	err = failed(span, err)
	span.End()
	if err != nil {
		return err
	}
	body, err := jsonBody(typeCounts{types})
	if err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = nosniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body) // a client that has gone needs no answer
	return nil
}

// types counts the active materials of each type, by type.
func (s *Store) types(ctx context.Context) (types []TypeCount, err error) {
	types, err = load(ctx, s, pgx.RowToStructByPos[TypeCount],
		`SELECT material_type, count(*) FROM public.materials WHERE is_active GROUP BY material_type ORDER BY material_type`)
	if err != nil {
		return nil, fmt.Errorf("counting the types of materials: %w", err)
	}
	if types == nil {
		types = []TypeCount{}
	}
	return types, nil
}
