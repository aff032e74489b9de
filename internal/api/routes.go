package api

import (
	"net/http"
	"slices"
	"strings"
)

// handler answers a request or returns why it could not: a *problem for the client to see, or an error that
// answerErrors makes one of.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one thing that a client can ask for.
type route struct {
	method string // GET stands for HEAD too
	path   string // with the last slash; it answers without one alike
	name   string // in metrics
	handle handler
}

func (a *API) routes(healthz, readyz http.Handler) http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, route := range []route{
		{http.MethodGet, "/api/materials/", "materials", a.listMaterials},
		{http.MethodGet, "/api/materials/{id}/", "material", a.showMaterial},
		{http.MethodGet, "/healthz/", "healthz", plain(healthz)},
		{http.MethodGet, "/readyz/", "readyz", plain(readyz)},
	} {
		h := a.chain(route.name, route.handle)
		for _, path := range bothForms(route.path) {
			mux.Handle(route.method+" "+path, h)
			allowed[path] = append(allowed[path], route.method)
		}
	}
	for path, methods := range allowed {
		mux.Handle(path, a.chain("other", methodNotAllowed(methods)))
	}
	a.routeTypes(mux)
	mux.Handle("/", a.chain("other", notFound))
	return mux
}

// chain is the way of every request: it is counted, its panic becomes an error, and its error an answer.
func (a *API) chain(name string, h handler) http.Handler {
	return a.count(name, a.answerErrors(recovered(h)))
}

// bothForms gives the patterns for a path with and without the last slash. "{$}" keeps the first from taking all that
// is below it.
func bothForms(path string) [2]string {
	return [2]string{path + "{$}", strings.TrimSuffix(path, "/")}
}

func plain(h http.Handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h.ServeHTTP(w, r)
		return nil
	}
}

func notFound(http.ResponseWriter, *http.Request) error {
	return newProblem(http.StatusNotFound, "nothing is here")
}

func methodNotAllowed(methods []string) handler {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(slices.Clone(methods), http.MethodHead)
	}
	slices.Sort(methods)
	allow := []string{strings.Join(methods, ", ")}
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header()["Allow"] = allow
		return newProblem(http.StatusMethodNotAllowed, "this address does not answer "+r.Method)
	}
}
