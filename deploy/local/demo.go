package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"walkey/internal/child"
)

// demo is the sub-command.
type demo struct {
	Rounds int `default:"20" help:"How many more edits to measure after the first."`
}

// Run starts a stack of its own on free ports, tells the story and ends it.
func (d *demo) Run(ctx context.Context, p *printer, l *logs) (err error) {
	p.line("%s", p.paint(bold, "Walkey: a row edited in psql is fresh in the API"))
	// The caller's own settings for the programs have no say here.
	s, err := start(ctx, stackOptions{env: basicEnv()}, p, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	client := newReader(s.apiURL)
	defer client.close()
	told := story{reader: client, edit: s.edit, print: p, rounds: d.Rounds}
	if err := told.tell(ctx); err != nil {
		return fmt.Errorf("%w%s", err, s.tails())
	}
	return nil
}

func basicEnv() []string {
	env := []string{"LOG_FORMAT=json", "LOG_LEVEL=info"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// edit sets a title by psql, as a person would, and returns the statement and the time of its commit by the database's clock.
func (s *stack) edit(ctx context.Context, id int64, title string) (statement string, committed time.Time, err error) {
	statement = fmt.Sprintf("UPDATE materials SET title = '%s' WHERE id = %d", strings.ReplaceAll(title, "'", "''"), id)
	asked := fmt.Sprintf("SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM materials WHERE id = %d", id)
	var out bytes.Buffer
	if err := child.Run(ctx, child.Command{
		Path:   s.psql(),
		Args:   []string{"--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "-v", "ON_ERROR_STOP=1", "-d", s.postgres.URL(), "-c", statement, "-c", asked},
		Env:    basicEnv(),
		Output: &out,
	}); err != nil {
		return statement, time.Time{}, fmt.Errorf("psql: %w\n%s", err, out.String())
	}
	micros, err := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	if err != nil {
		return statement, time.Time{}, fmt.Errorf("psql did not tell the time of the commit: %w", err)
	}
	return statement, time.UnixMicro(micros), nil
}

// psql is the program that belongs to the server, or the one in PATH.
func (s *stack) psql() string {
	path := filepath.Join(s.postgres.Bin(), "psql")
	if _, err := exec.LookPath(path); err == nil {
		return path
	}
	return "psql"
}
