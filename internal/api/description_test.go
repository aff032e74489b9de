package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cache"
)

// schema is as much of JSON Schema as the document uses. A keyword that is not here fails the test.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 types
	Description          string
	Format               string
	Default              any
	Pattern              string
	MinLength, MaxLength *int
	Minimum, Maximum     *float64
	Required             []string
	Properties           map[string]*schema
	AdditionalProperties *bool
	Items                *schema
}

// types are one name or a list of them.
type types []string

func (t *types) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = types{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

type apiParameter struct {
	Name, In, Description string
	Required              bool
	Schema                *schema
}

type apiContent map[string]struct{ Schema *schema }

type apiResponse struct {
	Description string
	Headers     map[string]struct {
		Description string
		Schema      *schema
	}
	Content apiContent
}

type apiOperation struct {
	OperationID, Summary, Description string
	Tags                              []string
	Parameters                        []apiParameter
	RequestBody                       *struct {
		Required bool
		Content  apiContent
	}
	Responses map[string]apiResponse
	Security  []map[string][]string
}

type apiDocument struct {
	OpenAPI string
	Info    struct{ Title, Version, Description string }
	Tags    []struct{ Name, Description string }
	Paths   map[string]map[string]apiOperation

	Components struct {
		Schemas         map[string]*schema
		SecuritySchemes map[string]map[string]string
	}
}

func readDocument(t *testing.T, s *service) apiDocument {
	t.Helper()
	a := s.ask(t, http.MethodGet, "/openapi.json")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != mediaJSON {
		t.Fatalf("%v", a)
	}
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	var doc apiDocument
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func (d apiDocument) resolve(s *schema) *schema {
	for s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// wrong tells how a value differs from a schema.
func (d apiDocument) wrong(s *schema, value any, at string) (found []string) {
	s = d.resolve(s)
	complain := func(format string, args ...any) { found = append(found, at+": "+fmt.Sprintf(format, args...)) }
	kind := map[bool]string{}
	switch v := value.(type) {
	case nil:
		kind[true] = "null"
	case bool:
		kind[true] = "boolean"
	case string:
		kind[true] = "string"
		n := utf8.RuneCountInString(v)
		if s.MinLength != nil && n < *s.MinLength || s.MaxLength != nil && n > *s.MaxLength {
			complain("%d characters", n)
		}
		if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			complain("%q does not match %s", v, s.Pattern)
		}
	case json.Number:
		kind[true] = "integer"
		n, err := v.Float64()
		if err != nil || strings.ContainsAny(v.String(), ".eE") {
			complain("%s is not whole", v)
		}
		if s.Minimum != nil && n < *s.Minimum || s.Maximum != nil && n > *s.Maximum {
			complain("%s is out of range", v)
		}
	case []any:
		kind[true] = "array"
		for i, item := range v {
			found = append(found, d.wrong(s.Items, item, at+"/"+strconv.Itoa(i))...)
		}
	case map[string]any:
		kind[true] = "object"
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				complain("%s is missing", name)
			}
		}
		for name, member := range v {
			if property := s.Properties[name]; property != nil {
				found = append(found, d.wrong(property, member, at+"/"+name)...)
			} else if s.AdditionalProperties == nil || *s.AdditionalProperties {
				complain("the schema is open")
			} else {
				complain("%s is not described", name)
			}
		}
	}
	if !slices.Contains(s.Type, kind[true]) {
		complain("is %s and not %v", kind[true], s.Type)
	}
	return found
}

// agrees compares an answer with what the document says about it.
func (d apiDocument) agrees(op apiOperation, method string, a answer) (found []string) {
	described, ok := op.Responses[strconv.Itoa(a.status)]
	if !ok {
		return []string{fmt.Sprintf("status %d is not described", a.status)}
	}
	if a.status >= 500 {
		found = append(found, fmt.Sprintf("status %d", a.status))
	}
	for name, h := range described.Headers {
		given := a.header.Values(name)
		if optional := name == "Link" || name == "Set-Cookie" || name == "Server-Timing" && strings.HasSuffix(a.header.Get("Cache-Status"), "local") || name == "ETag" && method == http.MethodHead; len(given) == 0 && !optional {
			found = append(found, "no "+name)
		}
		for _, value := range given {
			found = append(found, d.wrong(h.Schema, value, name)...)
		}
	}
	if method == http.MethodHead || len(described.Content) == 0 {
		if a.body != "" {
			found = append(found, "a body that is not described: "+a.body)
		}
		return found
	}
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	content, ok := described.Content[media]
	if err != nil || !ok {
		return append(found, fmt.Sprintf("Content-Type %q is not described", a.header.Get("Content-Type")))
	}
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return append(found, err.Error())
	}
	return append(found, d.wrong(content.Schema, value, "body")...)
}

// generator makes requests by the document: some as it says, some with one thing wrong.
type generator struct {
	*rand.Rand
	doc apiDocument
}

func (g generator) one(of ...string) string { return of[g.IntN(len(of))] }

var alphabet = []rune("abc XYZ 019 äß 漢字 😀 \"\\/<>&'%+;{}[]")

func (g generator) text(s *schema) string {
	shortest, longest := 0, 40
	if s.MinLength != nil {
		shortest = *s.MinLength
	}
	if s.MaxLength != nil {
		if longest = min(longest, *s.MaxLength); g.IntN(8) == 0 {
			shortest, longest = *s.MaxLength, *s.MaxLength
		}
	}
	runes := make([]rune, shortest+g.IntN(longest-shortest+1))
	for i := range runes {
		runes[i] = alphabet[g.IntN(len(alphabet))]
	}
	return string(runes)
}

func (g generator) body(s *schema) map[string]any {
	body := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := g.doc.resolve(s.Properties[name])
		if !slices.Contains(s.Required, name) && g.IntN(2) == 0 {
			continue
		}
		switch {
		case slices.Contains(property.Type, "null") && g.IntN(4) == 0:
			body[name] = nil
		case slices.Contains(property.Type, "boolean"):
			body[name] = g.IntN(2) == 0
		default:
			body[name] = g.text(property)
		}
	}
	return body
}

// spoil makes one thing of a body wrong.
func (g generator) spoil(s *schema, body map[string]any) {
	names := slices.Sorted(maps.Keys(s.Properties))
	name := names[g.IntN(len(names))]
	property := s.Properties[name]
	switch g.IntN(4) {
	case 0:
		body[g.one("colour", "", "Title", "id", "__proto__")] = "x"
	case 1:
		body[name] = []any{1, map[string]any{}, -0.5}[g.IntN(3)]
	case 2:
		if len(s.Required) > 0 {
			delete(body, s.Required[0])
			return
		}
		body[name] = 7
	case 3:
		if property.MaxLength == nil {
			body[name] = "true"
			return
		}
		body[name] = g.one(strings.Repeat("漢", *property.MaxLength+1), "a\x00b")
	}
}

type generated struct {
	method, path string
	body         string
	header       []string
	valid        bool // by the document
}

func (g generator) request(method, path string, op apiOperation, ids []string) generated {
	r := generated{method: strings.ToUpper(method), valid: true}
	query := url.Values{}
	spoilt := g.IntN(3) == 0
	for _, p := range op.Parameters {
		s := g.doc.resolve(p.Schema)
		value := ""
		switch {
		case p.In == "path":
			value = ids[g.IntN(len(ids))]
			if spoilt {
				value = g.one("0", "-1", "99999999999999999999", "x", "1e3", "%00", "01", "9223372036854775807")
				r.valid = false
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", value)
			continue
		case g.IntN(2) == 0:
			continue
		case p.Name == "If-Match" || p.Name == "If-None-Match":
			r.valid = false // whether it holds depends on what went before
			value = g.one("*", `"x"`, `W/"x"`, "x", "", `"`, `"0123456789abcdef0123456789abcdef"`)
		case p.Name == "Consistency-Token":
			value = g.one("0/0", "16/B374D848", "ffffffff/FFFFFFFF")
			if spoilt {
				value, r.valid = g.one("x", "1/", "1/2/3"), false
			}
		case s.Type[0] == "integer":
			value = g.one("1", "2", "500")
			if spoilt {
				value, r.valid = g.one("x", "0", "501", "-1", "99999999999999999999", "1.5"), false
			}
		default:
			value = g.text(s)
			if spoilt {
				value, r.valid = g.one("a\x00", "\xff\xfe", strings.Repeat("x", 101)), false
			}
		}
		if p.In == "query" {
			query.Add(p.Name, value)
		} else {
			r.header = append(r.header, p.Name, value)
		}
	}
	if op.RequestBody != nil {
		for media, content := range op.RequestBody.Content {
			s := g.doc.resolve(content.Schema)
			body := g.body(s)
			if g.IntN(3) == 0 {
				g.spoil(s, body)
				r.valid = false
			}
			text, _ := json.Marshal(body)
			r.body = string(text)
			if g.IntN(12) == 0 {
				r.body, r.valid = g.one("", "null", "[]", "{", `{"title":"`+"\xff"+`"}`, `{"title":"\ud800"}`, r.body+"x"), false
			}
			if g.IntN(12) == 0 {
				media, r.valid = g.one("", "text/plain", "application/xml", "*/*"), false
			}
			r.header = append(r.header, "Content-Type", media)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if g.IntN(4) == 0 && len(query) == 0 {
		path = strings.TrimSuffix(path, "/")
	}
	r.path = path
	return r
}

// Whatever is asked by the document, and whatever is a little beside it, is answered as the document says.
func TestAnswersAgreeWithTheDocument(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.loginsByAddress, s.loginsByName = cache.Limit{Burst: 8, Every: time.Hour}, cache.Limit{Burst: 8, Every: time.Hour}
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	s.deletedUpTo(t, unknownPosition-1) // else each read of a writer would wait for that
	doc := readDocument(t, s)
	g := generator{rand.New(rand.NewPCG(1, 2)), doc}
	requests := 2500
	if testing.Short() {
		requests = 300
	}
	seen := map[string]map[int]int{}
	paths := slices.Sorted(maps.Keys(doc.Paths))
	for range requests {
		path := paths[g.IntN(len(paths))]
		methods := slices.Sorted(maps.Keys(doc.Paths[path]))
		method := methods[g.IntN(len(methods))]
		op := doc.Paths[path][method]
		if op.OperationID == "log_out" && g.IntN(4) > 0 || op.OperationID == "delete_material" && g.IntN(3) > 0 {
			continue
		}
		r := g.request(method, path, op, []string{"1", "2", "5"})
		if r.method == http.MethodGet && g.IntN(5) == 0 {
			r.method = http.MethodHead
		}
		authorised := op.OperationID != "log_out" && g.IntN(6) > 0
		if authorised && op.OperationID != "log_in" {
			r.header = append(r.header, name, session)
		}
		a := s.send(t, r.method, r.path, strings.NewReader(r.body), r.header...)
		if found := doc.agrees(op, r.method, a); len(found) > 0 {
			t.Fatalf("%+v\n%v\n%s", r, a, strings.Join(found, "\n"))
		}
		switch id := op.OperationID; {
		case id == "log_in":
		case !authorised && len(op.Security) > 0 && a.status != http.StatusUnauthorized:
			t.Fatalf("without a session: %+v\n%v", r, a)
		case authorised && r.valid && a.status >= 400 && a.status != http.StatusNotFound:
			t.Fatalf("valid by the document: %+v\n%v", r, a)
		case !r.valid && id == "add_material" && authorised && a.status < 400:
			t.Fatalf("not valid by the document: %+v\n%v", r, a)
		}
		if seen[op.OperationID] == nil {
			seen[op.OperationID] = map[int]int{}
		}
		seen[op.OperationID][a.status]++
		if a.status == http.StatusNoContent && op.OperationID == "delete_material" {
			s.change(t, insertThree+` ON CONFLICT DO NOTHING`)
		}
	}
	t.Logf("answers: %v", seen)
	for id, want := range map[string][]int{
		"materials": {200, 304, 400}, "types": {200, 304, 400}, "material": {200, 400, 404}, "add_material": {201, 400, 401, 415, 422}, "session": {200, 401},
		"patch_material": {200, 401, 404, 412, 415, 422}, "replace_material": {200, 412, 422}, "delete_material": {204, 401, 404}, "log_in": {401, 422, 429}, "log_out": {204},
	} {
		for _, status := range want {
			if seen[id][status] == 0 && !testing.Short() {
				t.Errorf("%s never answered %d", id, status)
			}
		}
	}
}

func TestDocumentNamesEveryRoute(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	doc := readDocument(t, s)
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" {
		t.Errorf("%s, %q", doc.OpenAPI, doc.Info.Title)
	}
	for path, operations := range doc.Paths {
		want := []string{http.MethodOptions}
		for method := range operations {
			want = append(want, strings.ToUpper(method))
			if method == "get" {
				want = append(want, http.MethodHead)
			}
		}
		slices.Sort(want)
		a := s.ask(t, http.MethodOptions, strings.ReplaceAll(path, "{id}", "1"))
		if diff := cmp.Diff(strings.Join(want, ", "), a.header.Get("Allow")); diff != "" {
			t.Errorf("%s (-document +service):\n%s", path, diff)
		}
	}
	want := []string{"/api/materials/", "/api/materials/types/", "/api/materials/{id}/", "/api/session/"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(doc.Paths))); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

// The page asks for nothing from anywhere, and shows every operation.
func TestDocs(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	a := s.ask(t, http.MethodGet, "/docs")
	if a.status != 200 || a.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v", a.status, a.header)
	}
	for _, operations := range readDocument(t, s).Paths {
		for _, op := range operations {
			if !strings.Contains(a.body, `id="`+op.OperationID+`"`) {
				t.Errorf("%s is not shown", op.OperationID)
			}
		}
	}
	if found := regexp.MustCompile(`(?i)<script|<img|<link|src=|url\(|https?://|ZgotmplZ|&lt;nil&gt;`).FindString(a.body); found != "" {
		t.Errorf("the page holds %q", found)
	}
	for _, path := range []string{"/docs/", "/openapi.json"} {
		tag := s.ask(t, http.MethodGet, path).header.Get("Etag")
		if again := s.ask(t, http.MethodGet, path, "If-None-Match", tag); tag == "" || again.status != http.StatusNotModified || again.body != "" {
			t.Errorf("%s: %v", path, again)
		}
		if head := s.ask(t, http.MethodHead, path); head.body != "" || head.header.Get("Content-Length") == "0" {
			t.Errorf("HEAD %s: %v", path, head)
		}
	}
}
