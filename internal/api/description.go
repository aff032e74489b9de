package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"walkey/internal/cache"
)

// docs shows the document without scripts, pictures or anything from another address. `make docs-page` makes it.
//
//go:embed docs.html
var docs string

// description is what the API says about itself: an OpenAPI 3.1 document and a page made from it. Both are made once;
// requests, which mostly are answered by stored bytes, don't pass through the library that makes them.
type description struct {
	document, page static
}

// describe makes the description once: it adds to schemas, which all that is described shares.
var describe = sync.OnceValues(newDescription)

func newDescription() (description, error) {
	api := openAPI()
	document, err := json.MarshalIndent(api, "", "  ")
	if err != nil {
		return description{}, fmt.Errorf("encoding the OpenAPI document: %w", err)
	}
	return description{
		document: newStatic(mediaJSON, append(document, '\n'), ""),
		page:     newStatic("text/html; charset=utf-8", []byte(docs), "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
	}, nil
}

// static is an answer that stays the same for as long as the program runs.
type static struct {
	mediaType, policy, length, tag []string
	body                           []byte
}

func newStatic(mediaType string, body []byte, policy string) static {
	s := static{mediaType: []string{mediaType}, length: []string{strconv.Itoa(len(body))}, tag: []string{`"` + cache.TagOf(body) + `"`}, body: body}
	if policy != "" {
		s.policy = []string{policy}
	}
	return s
}

func (s static) answer(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h["Cache-Control"], h["Etag"], h["X-Content-Type-Options"] = noCache, s.tag, nosniff
	if s.policy != nil {
		h["Content-Security-Policy"] = s.policy
	}
	if known := r.Header["If-None-Match"]; len(known) > 0 && cache.MatchesTag(known, s.tag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Type"], h["Content-Length"] = s.mediaType, s.length
	if r.Method != http.MethodHead {
		_, _ = w.Write(s.body) // a client that has gone needs no answer
	}
	return nil
}

// openAPI describes what routes answers, from the same types and bounds.
func openAPI() *huma.OpenAPI {
	api := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Materials", Version: "1",
			Description: "Materials from a cache that stays true to its database. Every address answers with and without its last slash, GET stands for HEAD too, and every error is a problem document (RFC 9457).",
		},
		Tags: []*huma.Tag{{Name: "materials", Description: "Reading needs no login; changing does."}, {Name: "session", Description: "Editors log in here."}},
		Components: &huma.Components{
			Schemas: schemas,
			SecuritySchemes: map[string]*huma.SecurityScheme{"session": {
				Type: "apiKey", In: "cookie", Name: secureCookie,
				Description: "The cookie that logging in sets. It is called " + openCookie + " where the service runs without TLS.",
			}},
		},
	}
	operations := []*described{
		read("materials", "/api/materials/", "List the active materials by id", answers[materialList]("The materials. With `limit`, and when more follow, `Link` names the next page.", linkHeader),
			http.StatusBadRequest).with(queryParameters()...),
		change("add_material", http.MethodPost, "/api/materials/", "Add a material", http.StatusCreated, answers[fullMaterial]("The material as it was stored.", locationHeader)).
			takes(mediaJSON, reference[materialInput]()),
		read("types", typesPath, "Count the active materials of each type", answers[typeCounts]("The types that there are, in order."), http.StatusBadRequest),
		read("material", "/api/materials/{id}/", "Show one active material", answers[Material]("The material."), http.StatusBadRequest, http.StatusNotFound).with(idParameter()),
		change("replace_material", http.MethodPut, "/api/materials/{id}/", "Replace a material", http.StatusOK, answers[fullMaterial]("The material as it was stored."), http.StatusNotFound, http.StatusPreconditionFailed).
			with(idParameter()).with(conditions()...).takes(mediaJSON, reference[materialInput]()),
		change("patch_material", http.MethodPatch, "/api/materials/{id}/", "Change parts of a material by a JSON merge patch", http.StatusOK, answers[fullMaterial]("The material as it was stored."), http.StatusNotFound, http.StatusPreconditionFailed).
			with(idParameter()).with(conditions()...).takes(mediaMergePatch, patchSchema()),
		change("delete_material", http.MethodDelete, "/api/materials/{id}/", "Delete a material", http.StatusNoContent, nothing("The material is deleted."), http.StatusNotFound, http.StatusPreconditionFailed).
			with(idParameter()).with(conditions()...),
		operation("log_in", http.MethodPost, "/api/session/", "Log in", http.StatusOK, answers[person]("Who has logged in.", cookieHeader),
			http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests).tagged("session").takes(mediaJSON, reference[credentials]()),
		operation("session", http.MethodGet, "/api/session/", "Show who is logged in", http.StatusOK, answers[person]("Who is logged in.", header{"Cache-Status", "Where the profile came from (RFC 9211).", ""}),
			http.StatusUnauthorized).tagged("session").secured(),
		operation("log_out", http.MethodDelete, "/api/session/", "Log out", http.StatusNoContent, nothing("There is no session any more.", cookieHeader),
			http.StatusForbidden).tagged("session"),
	}
	for _, op := range operations {
		api.AddOperation((*huma.Operation)(op))
	}
	return api
}

// described is an operation in the making.
type described huma.Operation

type header struct{ name, doc, pattern string }

const tokenPattern = `^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`

var (
	tagHeader      = header{"ETag", "Names this state of what is answered in this coding.", ""}
	linkHeader     = header{"Link", "The next page, when there is one (RFC 8288).", ""}
	locationHeader = header{"Location", "Where the new material is.", `^/api/materials/-?\d+/$`}
	cookieHeader   = header{"Set-Cookie", "The session's cookie.", ""}
	retryHeader    = header{"Retry-After", "In how many seconds another attempt may succeed.", `^\d+$`}
	readHeaders    = []header{
		{"Cache-Status", "Where the answer came from (RFC 9211).", `^walkey; (hit|fwd=)`},
		{"Server-Timing", "How long it took to get, in milliseconds, unless this process had it in memory; db is the database's part.", `^cache;dur=`},
	}
	changeHeaders = []header{
		{"Consistency-Token", "Send it with a GET, and the answer is not older than this change.", tokenPattern},
	}
)

func text(pattern string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: pattern}
}

func (h header) param() *huma.Param {
	return &huma.Param{Description: h.doc, Schema: text(h.pattern)}
}

func withHeaders(r *huma.Response, headers ...header) *huma.Response {
	if r.Headers == nil {
		r.Headers = map[string]*huma.Param{}
	}
	for _, h := range headers {
		r.Headers[h.name] = h.param()
	}
	return r
}

func reference[T any]() *huma.Schema { return schemas.Schema(reflect.TypeFor[T](), true, "") }

func answers[T any](doc string, headers ...header) *huma.Response {
	return withHeaders(&huma.Response{Description: doc, Content: map[string]*huma.MediaType{mediaJSON: {Schema: reference[T]()}}}, headers...)
}

func nothing(doc string, headers ...header) *huma.Response {
	return withHeaders(&huma.Response{Description: doc}, headers...)
}

// failure is a problem document.
func failure(status int) *huma.Response {
	r := &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{problemType[0]: {Schema: reference[problem]()}}}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		withHeaders(r, retryHeader)
	}
	return r
}

func operation(name, method, path, summary string, status int, success *huma.Response, failures ...int) *described {
	op := &described{
		OperationID: name, Method: method, Path: path, Summary: summary, Tags: []string{"materials"},
		Responses: map[string]*huma.Response{strconv.Itoa(status): success},
	}
	return op.fails(append(failures, http.StatusInternalServerError, http.StatusServiceUnavailable)...)
}

// read is an operation that is answered from the cache.
func read(name, path, summary string, success *huma.Response, failures ...int) *described {
	withHeaders(success, append(readHeaders, tagHeader)...)
	op := operation(name, http.MethodGet, path, summary, http.StatusOK, success, failures...)
	op.Responses["304"] = withHeaders(nothing("What the client has is up to date."), append(readHeaders, tagHeader)...)
	return op.with(
		&huma.Param{Name: "If-None-Match", In: "header", Description: "Entity tags that the client has.", Schema: text("")},
		&huma.Param{Name: "Consistency-Token", In: "header", Description: "Of a change that the answer has to show.", Schema: text(tokenPattern)},
	)
}

// change is an operation of an editor.
func change(name, method, path, summary string, status int, success *huma.Response, failures ...int) *described {
	withHeaders(success, changeHeaders...)
	if status != http.StatusNoContent {
		withHeaders(success, tagHeader)
	}
	return operation(name, method, path, summary, status, success, append(failures, http.StatusUnauthorized, http.StatusForbidden)...).secured()
}

func (op *described) fails(statuses ...int) *described {
	for _, status := range statuses {
		op.Responses[strconv.Itoa(status)] = failure(status)
	}
	return op
}

func (op *described) tagged(tag string) *described {
	op.Tags = []string{tag}
	return op
}

func (op *described) secured() *described {
	op.Security = []map[string][]string{{"session": {}}}
	return op
}

func (op *described) with(parameters ...*huma.Param) *described {
	op.Parameters = append(op.Parameters, parameters...)
	return op
}

// takes says what the body of a request is, and with it all that can be wrong with one.
func (op *described) takes(media string, schema *huma.Schema) *described {
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{media: {Schema: schema}}}
	return op.fails(http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
}

func idParameter() *huma.Param {
	return &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64"}}
}

func queryParameters() []*huma.Param {
	one, limit, longest := 1.0, float64(maxLimit), maxTypeLength
	return []*huma.Param{
		{Name: "type", In: "query", Description: "Only materials of this type.", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &longest, Pattern: materialForm.members["material_type"].schema.Pattern}},
		{Name: "limit", In: "query", Description: "No more than so many.", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &one, Maximum: &limit}},
		{Name: "after", In: "query", Description: "Only materials whose id is greater.", Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64"}},
	}
}

func conditions() []*huma.Param {
	return []*huma.Param{
		{Name: "If-Match", In: "header", Description: "Only when the material is in a state with one of these entity tags, in any coding.", Schema: text("")},
		{Name: "If-None-Match", In: "header", Description: "Only when it is not.", Schema: text("")},
	}
}

// patchSchema is that of a material of which nothing is required, and whose members null takes back to their defaults.
func patchSchema() *huma.Schema {
	patch := *materialForm.schema
	patch.Description = "Members that are left out stay as they are; null takes one back to its default."
	patch.Required = nil
	patch.Properties = make(map[string]*huma.Schema, len(materialForm.members))
	for name, m := range materialForm.members {
		property := *m.schema
		property.Nullable = !m.required
		patch.Properties[name] = &property
	}
	return &patch
}
