package api

import (
	"context"
	"net/http"
	"strconv"

	"walkey/internal/cache"
)

// Keys, as rules for changes name them.
const (
	listKey     = "materials_list_active" // a hash with a field for each query
	materialKey = "material"
)

// listMaterials answers GET /api/materials/.
func (a *API) listMaterials(w http.ResponseWriter, r *http.Request) error {
	query, wrong := parseListQuery(r.URL.RawQuery)
	if len(wrong) > 0 {
		p := newProblem(http.StatusBadRequest, "the query can't be understood")
		p.Errors = wrong
		return p
	}
	if query == (listQuery{}) {
		return a.answer(w, r, a.all)
	}
	return a.answer(w, r, a.listed(query))
}

// listed is the list that a query asks for.
func (a *API) listed(query listQuery) resource {
	res := resource{at: a.cache.Field(listKey, query.field()), ttl: cache.Lists, load: timed(func(ctx context.Context) (cache.Content, error) {
		materials, more, err := a.store.list(ctx, query)
		if err != nil {
			return cache.Content{}, err
		}
		body, err := listBody(materials, more)
		return cache.Content{Body: body}, err
	})}
	if query.limit > 0 {
		res.link = query.linkNext
	}
	return res
}

// linkNext names the next page when more materials follow than are in the body.
func (q listQuery) linkNext(body []byte) (header string, ok bool) {
	last, more := nextAfter(body)
	if !more {
		return "", false
	}
	q.after, q.hasAfter = last, true
	return "</api/materials/?" + q.encode() + `>; rel="next"`, true
}

// showMaterial answers GET /api/materials/{id}/.
func (a *API) showMaterial(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return noMaterial
	}
	at := a.cache.At(materialKey + ":" + strconv.FormatInt(id, 10))
	return a.answer(w, r, resource{at: at, ttl: cache.Default, absent: noMaterial, load: timed(func(ctx context.Context) (cache.Content, error) {
		material, found, err := a.store.material(ctx, id)
		if err != nil {
			return cache.Content{}, err
		}
		if !found {
			return cache.Content{Absent: true}, nil
		}
		body, err := jsonBody(material)
		return cache.Content{Body: body}, err
	})})
}

// noMaterial is never changed.
var noMaterial = newProblem(http.StatusNotFound, "there is no active material with this id")

// parseID reads an id in the one form that it is written in, so that a material has one address.
func parseID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && strconv.FormatInt(id, 10) == s
}
