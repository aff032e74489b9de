package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
)

var updateDocs = flag.Bool("update", false, "write the page about the API anew")

// The page is made from the document here and not in the program: html/template calls methods by names that it finds at run time, and would keep
// every method of every type in it.
func TestDocsAreMadeFromTheDocument(t *testing.T) {
	t.Parallel()
	page, err := docsPage(openAPI())
	if err != nil {
		t.Fatal(err)
	}
	if *updateDocs {
		if err := os.WriteFile("docs.html", page, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(page), docs); diff != "" {
		t.Errorf("make docs-page would change docs.html (-made +there):\n%s", diff)
	}
}

type docsOperation struct {
	*huma.Operation
	Answers []docsAnswer
	Bodies  []docsBody
}

type docsAnswer struct {
	Status string
	*huma.Response
	Bodies []docsBody
}

type docsBody struct{ Media, Schema string }

// docsPage makes the page from the document.
func docsPage(api *huma.OpenAPI) ([]byte, error) {
	var operations []docsOperation
	for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
		item := api.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			shown, err := docsOf(op)
			if err != nil {
				return nil, err
			}
			operations = append(operations, shown)
		}
	}
	source, err := template.ParseFiles("testdata/docs.html.tmpl")
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = source.Execute(&page, map[string]any{"Info": api.Info, "Operations": operations})
	return page.Bytes(), err
}

func docsOf(op *huma.Operation) (shown docsOperation, err error) {
	shown.Operation = op
	if op.RequestBody != nil {
		if shown.Bodies, err = docsBodies(op.RequestBody.Content); err != nil {
			return docsOperation{}, err
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		a := docsAnswer{Status: status, Response: op.Responses[status]}
		if a.Content[problemType[0]] == nil {
			if a.Bodies, err = docsBodies(a.Content); err != nil {
				return docsOperation{}, err
			}
		}
		shown.Answers = append(shown.Answers, a)
	}
	return shown, nil
}

// docsBodies spells the schemas out, so that nothing has to be looked up.
func docsBodies(content map[string]*huma.MediaType) (bodies []docsBody, err error) {
	for _, media := range slices.Sorted(maps.Keys(content)) {
		schema := content[media].Schema
		for schema.Ref != "" {
			schema = schemas.SchemaFromRef(schema.Ref)
		}
		spelled, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("describing %s: %w", media, err)
		}
		bodies = append(bodies, docsBody{media, string(spelled)})
	}
	return bodies, nil
}
