package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"path"
)

//go:embed assets page.html
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// policy lets the page use what comes from here, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// types are those of the assets.
var types = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

// Handler answers
//
//	GET /         the page
//	GET /status   the latest report, as JSON
//	GET /events   a stream of events: ?table= and ?key= choose, see Filter
//	GET /live     the stream that the page lives by
//	GET /assets/  what the page is made of
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.page)
	mux.HandleFunc("GET /status", c.status)
	mux.HandleFunc("GET /events", c.events)
	mux.HandleFunc("GET /live", c.live)
	mux.HandleFunc("GET /assets/{name}", asset)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		mux.ServeHTTP(w, r)
	})
}

// page writes the page as it is before its script runs: the sentence is there already.
func (c *Console) page(w http.ResponseWriter, r *http.Request) {
	report := c.report(r.Context())
	if report == nil {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	var body bytes.Buffer
	if err := page.Execute(&body, report); err != nil {
		http.Error(w, fmt.Sprintf("write the page: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body.Bytes()) // a client that has gone needs no answer
}

func (c *Console) status(w http.ResponseWriter, r *http.Request) {
	report := c.report(r.Context())
	if report == nil {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	body, err := json.Marshal(report)
	if err != nil {
		http.Error(w, fmt.Sprintf("write the report: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n'))
}

func asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	kind, known := types[path.Ext(name)]
	body, err := files.ReadFile("assets/" + name)
	if err != nil || !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache") // another version of the program has other files
	_, _ = w.Write(body)
}
