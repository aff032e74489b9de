package program

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Setting is one environment variable that a program reads, as its --help describes it.
type Setting struct {
	Variable string
	Default  string
	Help     string
}

// Row is the setting as a row of a Markdown table.
func (s Setting) Row() string {
	value := "–"
	if s.Default != "" {
		value = "`" + s.Default + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s |", s.Variable, value, strings.ReplaceAll(s.Help, "|", `\|`))
}

// Settings lists the variables of a grammar, by name.
func Settings(grammar any) ([]Setting, error) {
	k, err := kong.New(grammar)
	if err != nil {
		return nil, fmt.Errorf("describing the command line: %w", err)
	}
	byName := map[string]Setting{}
	eachFlag(k.Model.Node, func(flag *kong.Flag) {
		for _, variable := range flag.Tag.Envs {
			byName[variable] = Setting{Variable: variable, Default: flag.Tag.Default, Help: flag.Help}
		}
	})
	settings := make([]Setting, 0, len(byName))
	for _, s := range byName {
		settings = append(settings, s)
	}
	slices.SortFunc(settings, func(a, b Setting) int { return strings.Compare(a.Variable, b.Variable) })
	return settings, nil
}
