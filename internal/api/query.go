package api

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxLimit      = 500
	maxTypeLength = 100 // characters; a type is a word, and it becomes part of a key
)

// listQuery is the query of the list of materials. Two queries that ask for the same are equal.
type listQuery struct {
	materialType string // "" is any
	limit        int    // 0 is none
	after        int64  // an id; meaningful with hasAfter
	hasAfter     bool
}

// mistake is what is wrong with one parameter of a query, or with one member of a body.
type mistake struct {
	Parameter string `json:"parameter,omitempty" doc:"The parameter of the query."`
	Pointer   string `json:"pointer,omitempty" doc:"The member of the body, as a JSON pointer in a URI fragment."`
	Detail    string `json:"detail" doc:"What is wrong with it."`
}

// parseListQuery reads a raw query. Parameters that it does not know are ignored, and one without a value counts as not
// given, as forms send it. It names every parameter that is wrong.
func parseListQuery(raw string) (listQuery, []mistake) {
	var q listQuery
	if raw == "" {
		return q, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, []mistake{{Detail: "the query is not URL-encoded: " + err.Error()}}
	}
	var wrong []mistake
	read := func(name string, parse func(value string) error) {
		given := values[name]
		switch {
		case len(given) > 1:
			wrong = append(wrong, mistake{Parameter: name, Detail: "given more than once"})
		case len(given) == 1 && given[0] != "":
			if err := parse(given[0]); err != nil {
				wrong = append(wrong, mistake{Parameter: name, Detail: err.Error()})
			}
		}
	}
	read("type", q.parseType)
	read("limit", q.parseLimit)
	read("after", q.parseAfter)
	return q, wrong
}

func (q *listQuery) parseType(value string) error {
	if utf8.RuneCountInString(value) > maxTypeLength {
		return fmt.Errorf("longer than %d characters", maxTypeLength)
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("holds a character that no type has")
	}
	q.materialType = value
	return nil
}

func (q *listQuery) parseLimit(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxLimit {
		return fmt.Errorf("must be a number from 1 to %d", maxLimit)
	}
	q.limit = n
	return nil
}

func (q *listQuery) parseAfter(value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return errors.New("must be the id of a material, a whole number")
	}
	q.after, q.hasAfter = n, true
	return nil
}

// encode gives the query in its one normal form, "" when it asks for everything.
func (q listQuery) encode() string {
	var b []byte
	add := func(name, value string) {
		if len(b) > 0 {
			b = append(b, '&')
		}
		b = append(append(append(b, name...), '='), value...)
	}
	if q.materialType != "" {
		add("type", url.QueryEscape(q.materialType))
	}
	if q.limit > 0 {
		add("limit", strconv.Itoa(q.limit))
	}
	if q.hasAfter {
		add("after", strconv.FormatInt(q.after, 10))
	}
	return string(b)
}

// field is the query's name among the fields of the list's key.
func (q listQuery) field() string {
	if encoded := q.encode(); encoded != "" {
		return encoded
	}
	return "all"
}
