package api

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// problem is an error that a client is told about as it is (RFC 9457). Handlers return it.
type problem struct {
	Type   string    `json:"type" doc:"about:blank: the status tells all there is to tell."`
	Title  string    `json:"title" doc:"The status in words."`
	Status int       `json:"status"`
	Detail string    `json:"detail,omitempty" doc:"What happened, for people."`
	Errors []mistake `json:"errors,omitempty" nullable:"false" doc:"Every parameter or member that is wrong."`

	retryAfter int  // seconds; 0 sends no Retry-After
	challenge  bool // send WWW-Authenticate
}

func newProblem(status int, detail string) *problem {
	// "about:blank" says that the status tells all there is to tell, and asks for its text as the title.
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

// write answers with the problem. Headers that were set before stay, other than those of a body that will not come.
func (p *problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers always marshal
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500}`)
	}
	body = append(body, '\n')
	h := w.Header()
	h["Content-Type"] = problemType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	delete(h, "Content-Encoding")
	delete(h, "Etag")
	delete(h, "Location")
	if p.challenge {
		h["Www-Authenticate"] = challenge
	}
	if p.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(p.retryAfter)}
	}
	if _, set := h["Cache-Control"]; !set {
		h["Cache-Control"] = noStore
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}
