package api

import (
	"maps"
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

func (a *API) routes(healthz, readyz http.Handler) (http.Handler, error) {
	description, err := describe()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	// Each path is registered once, for all methods: else a path that is a literal where another has a wildcard would be
	// neither the more special pattern nor the more general one.
	paths := map[string]byMethod{}
	for _, route := range []route{
		{http.MethodGet, "/api/materials/", "materials", a.listMaterials},
		{http.MethodPost, "/api/materials/", "add_material", a.editing(a.addMaterial)},
		{http.MethodGet, typesPath, "types", a.typesPage()},
		{http.MethodGet, "/api/materials/{id}/", "material", a.showMaterial},
		{http.MethodPut, "/api/materials/{id}/", "replace_material", a.editing(a.replaceMaterial)},
		{http.MethodPatch, "/api/materials/{id}/", "patch_material", a.editing(a.patchMaterial)},
		{http.MethodDelete, "/api/materials/{id}/", "delete_material", a.editing(a.deleteMaterial)},
		{http.MethodPost, "/api/session/", "log_in", a.logIn},
		{http.MethodGet, "/api/session/", "session", a.whoAmI},
		{http.MethodDelete, "/api/session/", "log_out", a.logOut},
		{http.MethodGet, "/openapi.json/", "openapi", description.document.answer},
		{http.MethodGet, "/docs/", "docs", description.page.answer},
		{http.MethodGet, "/healthz/", "healthz", plain(healthz)},
		{http.MethodGet, "/readyz/", "readyz", plain(readyz)},
	} {
		h := a.chain(route.name, route.path, route.handle)
		for _, path := range bothForms(route.path) {
			if paths[path] == nil {
				paths[path] = byMethod{}
			}
			paths[path][route.method] = h
			if route.method == http.MethodGet {
				paths[path][http.MethodHead] = h
			}
		}
	}
	known := map[string]byMethod{}
	for path, methods := range paths {
		if !strings.Contains(path, "{id}") {
			known[strings.TrimSuffix(path, "{$}")] = methods
		}
		allow := methods.allow()
		methods[anyOther] = a.chain("other", "", methodNotAllowed(allow))
		methods[http.MethodOptions] = a.chain("options", "", options(allow))
		mux.Handle(path, methods)
	}
	mux.Handle("/", a.chain("other", "", notFound))
	return addresses{known: known, others: mux}, nil
}

// addresses finds what answers at a path. Most requests are for a path without a wildcard, which is found at once.
type addresses struct {
	known  map[string]byMethod
	others *http.ServeMux // all paths, those that are known too
}

// ServeHTTP answers a request.
func (a addresses) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if methods, known := a.find(r); known {
		methods.ServeHTTP(w, r)
		return
	}
	a.others.ServeHTTP(w, r)
}

// find finds a path that is known. One with characters in a form of their own is left to the router: %2F is no slash.
func (a addresses) find(r *http.Request) (byMethod, bool) {
	methods, known := a.known[r.URL.Path]
	return methods, known && r.URL.RawPath == ""
}

// chain is the way of every request: it is counted and traced, its panic becomes an error, and its error an answer.
func (a *API) chain(name, path string, h handler) http.Handler {
	return a.count(name, a.traced(path, a.answerErrors(recovered(h))))
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

// byMethod holds what answers at one address, and under anyOther what answers every other method.
type byMethod map[string]http.Handler

const anyOther = ""

// ServeHTTP answers a request.
func (m byMethod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, ok := m[r.Method]
	if !ok {
		h = m[anyOther]
	}
	h.ServeHTTP(w, r)
}

// allow is the value of Allow for an address with these methods.
func (m byMethod) allow() []string {
	methods := slices.AppendSeq([]string{http.MethodOptions}, maps.Keys(m))
	slices.Sort(methods)
	return []string{strings.Join(methods, ", ")}
}

func methodNotAllowed(allow []string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header()["Allow"] = allow
		return newProblem(http.StatusMethodNotAllowed, "this address does not answer "+r.Method)
	}
}

// options tells what an address can do.
func options(allow []string) handler {
	patch := strings.Contains(allow[0], http.MethodPatch)
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Allow"] = allow
		if patch {
			w.Header()["Accept-Patch"] = []string{mediaMergePatch}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
