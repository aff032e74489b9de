package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const requestTimeout = 10 * time.Second

// reader reads materials from the API over one kept connection.
type reader struct {
	base   string
	client *http.Client
}

func newReader(base string) *reader {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	return &reader{base: base, client: &http.Client{Transport: transport, Timeout: requestTimeout}}
}

func (r *reader) close() { r.client.CloseIdleConnections() }

// answer is what the API said about one material.
type answer struct {
	ID    int64  `json:"id"`
	Title string `json:"title"`

	status string        // Cache-Status
	took   time.Duration // from the request to the last byte
	at     time.Time     // when the last byte was there
}

func materialPath(id int64) string { return fmt.Sprintf("/api/materials/%d/", id) }

// material reads one material.
func (r *reader) material(ctx context.Context, id int64) (answer, error) {
	var a answer
	err := r.get(ctx, materialPath(id), &a, &a)
	return a, err
}

// list reads the list of active materials.
func (r *reader) list(ctx context.Context) ([]answer, answer, error) {
	var body struct {
		Materials []answer `json:"materials"`
	}
	var a answer
	err := r.get(ctx, "/api/materials/", &body, &a)
	return body.Materials, a, err
}

func (r *reader) get(ctx context.Context, path string, body any, a *answer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, http.NoBody)
	if err != nil {
		return err
	}
	began := time.Now()
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	a.at = time.Now()
	a.took = a.at.Sub(began)
	a.status = response.Header.Get("Cache-Status")
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, text)
	}
	if err := json.Unmarshal(text, body); err != nil {
		return fmt.Errorf("GET %s: %w in %s", path, err, text)
	}
	return nil
}
