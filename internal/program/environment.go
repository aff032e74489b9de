package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/joho/godotenv"
)

// fileSuffix makes the name of the variable that says in which file another variable's value stands.
const fileSuffix = "_FILE"

// layer is one source of variables.
type layer map[string]string

// environment is where variables are looked up: the process' own environment, then .env.
type environment struct {
	layers []layer
}

// newEnvironment reads .env beside the process' own environment. A .env that is there but can't be used is an error.
func newEnvironment(p *Process) (environment, error) {
	own := make(layer, len(p.Environ))
	for _, pair := range p.Environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			own[name] = value
		}
	}
	file, err := readDotEnv(filepath.Join(p.Dir, ".env"))
	return environment{layers: []layer{own, file}}, err
}

// lookup gives a variable's value: its own, or the content of the file that X_FILE names. An empty value counts as not
// given, as manifests and compose files like to set variables to nothing.
func (e environment) lookup(variable string) (value string, found bool, err error) {
	for _, l := range e.layers {
		direct, path := l[variable], l[variable+fileSuffix]
		switch {
		case direct != "" && path != "":
			return "", false, fmt.Errorf("both %s and %s are set; keep one of them", variable, variable+fileSuffix)
		case direct != "":
			return direct, true, nil
		case path != "":
			content, err := os.ReadFile(path)
			if err != nil {
				return "", false, fmt.Errorf("%s names a file that can't be read: %w", variable+fileSuffix, err)
			}
			return trimNewline(string(content)), true, nil
		}
	}
	return "", false, nil
}

// trimNewline removes the one line end that editors and `kubectl create secret --from-file` leave.
func trimNewline(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

func readDotEnv(path string) (layer, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf(".env can't be read: %w", err)
	}
	values, err := godotenv.Unmarshal(string(content))
	if err != nil {
		// The parser's own message quotes the rest of the file, secrets included.
		return nil, fmt.Errorf("%s: line %d is not of the form NAME=value", path, malformedLine(string(content)))
	}
	return values, nil
}

// malformedLine gives the number of the line behind the longest beginning that can be read.
func malformedLine(content string) int {
	lines := strings.SplitAfter(content, "\n")
	good := 0
	for i := range lines {
		if _, err := godotenv.Unmarshal(strings.Join(lines[:i], "")); err == nil {
			good = i
		}
	}
	return good + 1
}
