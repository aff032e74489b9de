package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// docs.html shows the document without scripts, pictures or anything from another address.
//
//go:embed docs.html
var docsSource string

var docsTemplate = template.Must(template.New("docs").Parse(docsSource))

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
	var page bytes.Buffer
	err := docsTemplate.Execute(&page, map[string]any{"Info": api.Info, "Operations": operations})
	if err != nil {
		return nil, fmt.Errorf("making the page about the API: %w", err)
	}
	return page.Bytes(), nil
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
