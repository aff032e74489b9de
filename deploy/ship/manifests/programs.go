package manifests

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Programs knows what the programs can be told, by asking them.
type Programs struct {
	folder    string
	variables map[string]map[string]string // program → variable → default
	flags     map[string]map[string]bool   // "program command" → flag
}

// ofOthers are variables that others than Walkey read in its processes: Go, and pgx as libpq does.
var ofOthers = []string{"GOMEMLIMIT", "PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "PGSSLROOTCERT"}

// AskPrograms reads the help of the programs in a folder.
func AskPrograms(ctx context.Context, folder string) (*Programs, error) {
	p := &Programs{folder: folder, variables: map[string]map[string]string{"api": {}, "invalidator": {}}, flags: map[string]map[string]bool{}}
	for name, commands := range map[string][]string{"api": {"serve", "migrate", "seed"}, "invalidator": {"run", "setup", "doctor"}} {
		for _, command := range commands {
			help, err := exec.CommandContext(ctx, filepath.Join(folder, name), command, "--help").Output()
			if err != nil {
				return nil, fmt.Errorf("asking %s %s for its help: %w", name, command, err)
			}
			p.read(name, command, string(help))
		}
	}
	return p, nil
}

var (
	variable = regexp.MustCompile(`\[\$([A-Z_]+)(?:, default ([^\]]+))?\]`)
	flagName = regexp.MustCompile(`(?m)^ +(?:-\w, )?--(?:\[no-\])?([a-z-]+)`)
)

func (p *Programs) read(name, command, help string) {
	flags := map[string]bool{}
	for _, m := range flagName.FindAllStringSubmatch(help, -1) {
		flags[m[1]] = true
	}
	p.flags[name+" "+command] = flags
	// The help is wrapped, so a variable may stand apart from its default.
	for _, m := range variable.FindAllStringSubmatch(strings.Join(strings.Fields(help), " "), -1) {
		p.variables[name][m[1]] = m[2]
	}
}

// Default is the default of a variable of a program.
func (p *Programs) Default(program, variable string) string { return p.variables[program][variable] }

// CheckVariables gives the names that no program knows. What both programs are given need be known to one of them only.
func (p *Programs) CheckVariables(env map[string]string) (problems []string) {
	for name := range env {
		plain := strings.TrimSuffix(name, "_FILE")
		_, api := p.variables["api"][name]
		_, apiFile := p.variables["api"][plain]
		_, invalidator := p.variables["invalidator"][name]
		_, invalidatorFile := p.variables["invalidator"][plain]
		if !api && !apiFile && !invalidator && !invalidatorFile && !slices.Contains(ofOthers, name) {
			problems = append(problems, fmt.Sprintf("no program knows the variable %s", name))
		}
	}
	return problems
}

// CheckCommand gives what is wrong with how a program is called: /api migrate --wait=120s.
func (p *Programs) CheckCommand(words []string) (problems []string) {
	name := strings.TrimPrefix(words[0], "/")
	command := map[string]string{"api": "serve", "invalidator": "run"}[name]
	if command == "" {
		return []string{fmt.Sprintf("%s is no program of the image", words[0])}
	}
	rest := words[1:]
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		command, rest = rest[0], rest[1:]
	}
	flags := p.flags[name+" "+command]
	if flags == nil {
		return []string{fmt.Sprintf("%s has no command %s", name, command)}
	}
	for _, word := range rest {
		flag, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
		if !strings.HasPrefix(word, "--") || !flags[flag] {
			problems = append(problems, fmt.Sprintf("%s %s does not know %s", name, command, word))
		}
	}
	return problems
}
