package api

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"walkey/internal/cache"
)

// schemas are the types that the OpenAPI document names. It is filled while the program starts and never changed after.
var schemas = huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)

// materialInput is what a client gives for a material. What is left out is the default.
type materialInput struct {
	Title        string `json:"title" minLength:"1" maxLength:"300" pattern:"^[^\\x00-\\x1f\\x7f]*$" doc:"What lists show."`
	Description  string `json:"description,omitempty" maxLength:"100000" pattern:"^[^\\x00]*$" doc:"A text of any number of lines."`
	MaterialType string `json:"material_type,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" doc:"A word such as video."`
	IconName     string `json:"icon_name,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f]*$" doc:"The icon beside the title."`
	File         string `json:"file,omitempty" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f]*$" doc:"Where the file is, below the folder of uploads."`
	IsActive     bool   `json:"is_active,omitempty" default:"true" doc:"Whether readers see it."`
}

var (
	materialForm    = newForm(reflect.TypeFor[materialInput](), false)
	patchForm       = newForm(reflect.TypeFor[materialInput](), true)
	credentialsForm = newForm(reflect.TypeFor[credentials](), false)
)

// fullMaterial is a material as an editor sees it.
type fullMaterial struct {
	Material
	Active bool `json:"is_active"`
}

// newRow is a material of which nothing was said.
func newRow() fullMaterial { return fullMaterial{Active: true} }

// apply takes what a body gives. A member that is nil is set to its default.
func (m *fullMaterial) apply(given values) {
	for name, to := range map[string]*string{
		"title": &m.Title, "description": &m.Description, "material_type": &m.MaterialType, "icon_name": &m.IconName, "file": &m.File,
	} {
		if _, ok := given[name]; ok {
			*to = given.text(name)
		}
	}
	if active, ok := given["is_active"]; ok {
		m.Active = active != false
	}
}

// state is the hash that the entity tags of this material are made of: that of what readers get, and for one that they
// don't get, of what editors get.
func (m fullMaterial) state() (string, error) {
	var v any = m
	if m.Active {
		v = m.Material
	}
	body, err := jsonBody(v)
	return cache.TagOf(body), err
}

// jsonBody is how every answer is encoded.
func jsonBody(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return append(body, '\n'), nil
}
