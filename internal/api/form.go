package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

const (
	maxBody     = 1 << 20 // bytes of a body with a material
	maxLogin    = 16 << 10
	bodyTimeout = 10 * time.Second
	maxMistakes = 50  // that one answer names
	maxQuoted   = 100 // bytes of an unknown name that an answer repeats

	mediaJSON       = "application/json"
	mediaMergePatch = "application/merge-patch+json"
)

// form is what the body of a request may hold: an object whose members are texts and truth values. It is read from the
// schema that the OpenAPI document shows, so the two can't differ.
type form struct {
	schema  *huma.Schema
	members map[string]member
	order   []string
	partial bool // merge patch: nothing is required, and null takes a member back to its default
}

type member struct {
	schema   *huma.Schema
	pattern  *regexp.Regexp // nil: any text
	required bool
}

// newForm makes the form of a struct type, by its tags.
func newForm(t reflect.Type, partial bool) *form {
	f := &form{schema: huma.SchemaFromType(schemas, t), members: map[string]member{}, partial: partial}
	for name, schema := range f.schema.Properties {
		m := member{schema: schema, required: slices.Contains(f.schema.Required, name)}
		if schema.Pattern != "" {
			m.pattern = regexp.MustCompile(schema.Pattern)
		}
		f.members[name] = m
		f.order = append(f.order, name)
	}
	slices.Sort(f.order)
	return f
}

// values are the members that a body gives: string or bool, and nil for a member that is to be its default again.
type values map[string]any

func (v values) text(name string) string {
	s, _ := v[name].(string)
	return s
}

// readBody reads a request's body by a form. Everything that is wrong with its members is told at once.
func readBody(w http.ResponseWriter, r *http.Request, f *form, media string, limit int64) (values, error) {
	if err := checkMedia(w, r, media); err != nil {
		return nil, err
	}
	tooLarge := newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", limit))
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	connection := http.NewResponseController(w)
	_ = connection.SetReadDeadline(time.Now().Add(bodyTimeout)) // where it can't be set, the server's own bound holds
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		// The server goes on reading while the request is answered, to learn that the client has left.
		_ = connection.SetReadDeadline(time.Time{})
	} else {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge
		}
		w.Header()["Connection"] = []string{"close"} // what is left of the body can't be told from the next request
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, newProblem(http.StatusRequestTimeout, "the body did not come in time")
		}
		return nil, newProblem(http.StatusBadRequest, "the body can't be read")
	}
	return f.parse(body)
}

func checkMedia(w http.ResponseWriter, r *http.Request, media string) error {
	given, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := parameters["charset"]
	coded := r.Header.Get("Content-Encoding")
	if err == nil && given == media && (charset == "" || strings.EqualFold(charset, "utf-8")) && (coded == "" || coded == "identity") {
		return nil
	}
	if r.Method == http.MethodPatch {
		w.Header()["Accept-Patch"] = []string{media}
	} else {
		w.Header()["Accept"] = []string{media}
	}
	return newProblem(http.StatusUnsupportedMediaType, "the body must be "+media+" in UTF-8, without a content coding")
}

// parse reads a body.
func (f *form) parse(body []byte) (values, error) {
	if !utf8.Valid(body) {
		return nil, newProblem(http.StatusBadRequest, "the body is not UTF-8")
	}
	var wrong []mistake
	complain := func(name, detail string) {
		if len(wrong) < maxMistakes {
			wrong = append(wrong, mistake{Pointer: pointer(name), Detail: detail})
		}
	}
	given := values{}
	err := eachMember(body, func(name string, raw json.RawMessage) {
		m, known := f.members[name]
		_, twice := given[name]
		switch {
		case !known:
			complain(name, "there is no such member")
		case twice:
			complain(name, "given more than once")
		default:
			value, err := f.read(m, raw)
			if err != nil {
				complain(name, err.Error())
			}
			given[name] = value
		}
	})
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, "the body is not a JSON object: "+err.Error())
	}
	if !f.partial {
		for _, name := range f.order {
			if _, ok := given[name]; !ok && f.members[name].required {
				complain(name, "is required")
			}
		}
	}
	if len(wrong) > 0 {
		p := newProblem(http.StatusUnprocessableEntity, "the body holds what can't be stored")
		p.Errors = wrong
		return nil, p
	}
	return given, nil
}

// eachMember calls visit for every member of a JSON object, in the order given.
func eachMember(body []byte, visit func(name string, raw json.RawMessage)) error {
	d := json.NewDecoder(bytes.NewReader(body))
	start, err := d.Token()
	if err != nil {
		return jsonMistake(err)
	}
	if start != json.Delim('{') {
		return errors.New("it is another value")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return jsonMistake(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return jsonMistake(err)
		}
		visit(name.(string), raw) // nothing else stands there in an object
	}
	if _, err := d.Token(); err != nil {
		return jsonMistake(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

func jsonMistake(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early")
	}
	return err
}

// read reads one member.
func (f *form) read(m member, raw json.RawMessage) (any, error) {
	if string(raw) == "null" {
		switch {
		case !f.partial:
			return nil, errors.New("must not be null; leave it out for its default")
		case m.required:
			return nil, errors.New("can't be taken away")
		}
		return nil, nil
	}
	if m.schema.Type == huma.TypeBoolean {
		var value bool
		if json.Unmarshal(raw, &value) != nil {
			return nil, errors.New("must be true or false")
		}
		return value, nil
	}
	var value string
	if json.Unmarshal(raw, &value) != nil {
		return nil, errors.New("must be a text")
	}
	return value, m.check(value, raw)
}

func (m member) check(value string, raw json.RawMessage) error {
	length := utf8.RuneCountInString(value)
	switch {
	case m.schema.MinLength != nil && length < *m.schema.MinLength:
		return errors.New("must not be empty")
	case m.schema.MaxLength != nil && length > *m.schema.MaxLength:
		return fmt.Errorf("must not be longer than %d characters", *m.schema.MaxLength)
	case m.pattern != nil && !m.pattern.MatchString(value):
		return errors.New("holds a control character")
	case strings.IndexByte(value, 0) >= 0:
		return errors.New("holds a NUL character")
	case strings.ContainsRune(value, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) && !bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)):
		return errors.New(`holds half a character: a \u escape of a surrogate without its other half`)
	}
	return nil
}

// pointer names a member of the body (RFC 6901, section 6).
func pointer(name string) string {
	if len(name) > maxQuoted {
		name = strings.ToValidUTF8(name[:maxQuoted], "") + "…"
	}
	return "#/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}
