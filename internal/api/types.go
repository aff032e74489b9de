package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cache"
)

const (
	typesPath  = "/api/materials/types/"
	pagesGroup = "materials" // of the pages that depend on materials: the key page:materials
)

// TypeCount is how many active materials are of one type.
type TypeCount struct {
	MaterialType string `json:"material_type"`
	Count        int64  `json:"count"`
}

// routeTypes adds the answer to typesPath, which the page middleware keeps. A path that is a literal where another route
// has a wildcard can't be refused for all other methods at once, so each is named.
func (a *API) routeTypes(mux *http.ServeMux) {
	counted := a.answerErrors(recovered(a.countTypes))
	page := cache.Page(a.cache, pagesGroup, cache.Lists, cache.PageOptions{}, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { counted(&recorder{ResponseWriter: w}, r) }))
	show := a.chain("types", func(w http.ResponseWriter, r *http.Request) error {
		// Nothing in a query makes a difference, and both forms of the path are one address.
		one := r.WithContext(r.Context())
		one.URL = &url.URL{Path: typesPath}
		page.ServeHTTP(w, one)
		if answered, ok := w.(*recorder); ok && answered.status == 0 {
			return context.Cause(r.Context()) // nil but for a client that has gone
		}
		return nil
	})
	refuse := a.chain("other", methodNotAllowed([]string{http.MethodGet}))
	for _, path := range bothForms(typesPath) {
		mux.Handle(http.MethodGet+" "+path, show)
		for _, method := range []string{
			http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace,
		} {
			mux.Handle(method+" "+path, refuse)
		}
	}
}

// countTypes answers how many active materials there are of each type.
func (a *API) countTypes(w http.ResponseWriter, r *http.Request) error {
	types, err := a.store.types(r.Context())
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Types []TypeCount `json:"types"`
	}{types})
	if err != nil {
		return fmt.Errorf("encoding the types of materials: %w", err)
	}
	body = append(body, '\n')
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = nosniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body) // a client that has gone needs no answer
	return nil
}

// types counts the active materials of each type, by type.
func (s *Store) types(ctx context.Context) (types []TypeCount, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT material_type, count(*) FROM public.materials WHERE is_active
			GROUP BY material_type ORDER BY material_type`)
		if err != nil {
			return err
		}
		types, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TypeCount])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting the types of materials: %w", err)
	}
	if types == nil {
		types = []TypeCount{}
	}
	return types, nil
}
