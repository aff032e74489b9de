package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"walkey/internal/freeport"
)

// up is the sub-command.
type up struct {
	Dir string `placeholder:"DIR" help:"Folder that keeps the servers' data. Default: a temporary one."`
}

// Run starts a stack, on the default ports where they are free, and keeps it until ctx ends.
func (u *up) Run(ctx context.Context, p *printer, l *logs) (err error) {
	l.shown(true)
	s, err := start(ctx, stackOptions{dir: u.Dir, defaultPorts: true, env: ownEnv(os.Environ())}, p, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	valkeyCLI := "valkey-cli"
	if _, err := exec.LookPath(valkeyCLI); err != nil {
		valkeyCLI = "redis-cli"
	}
	p.line("")
	for _, row := range [][2]string{
		{"api", s.apiURL + "/api/materials/"},
		{"api's metrics", s.adminURL + "/metrics"},
		{"invalidator", s.invalidatorURL + "/metrics"},
		{"edit a row", fmt.Sprintf(`psql '%s' -c "UPDATE materials SET title = 'new' WHERE id = 1"`, s.postgres.URL())},
		{"look at it", fmt.Sprintf("curl -i %s/api/materials/1/", s.apiURL)},
		{"see the cache", fmt.Sprintf("%s -h %s -p %d monitor", valkeyCLI, freeport.Host, s.valkey.Port())},
	} {
		p.line("%-15s %s", row[0], p.paint(bold, row[1]))
	}
	p.line("%-15s %s\n", "end it", "Ctrl-C")
	ended, stop := s.watch(ctx)
	defer stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		p.line("stopping")
		return nil
	}
}

// ownEnv is the environment for the programs without what names other servers than the stack's own.
func ownEnv(environ []string) []string {
	own := []string{"LOG_FORMAT=console"} // a LOG_FORMAT that follows is the one that counts
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "VALKEY_") && !strings.HasPrefix(variable, "DATABASE_") && !strings.HasPrefix(variable, "PG") {
			own = append(own, variable)
		}
	}
	return own
}
