package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"walkey/internal/child"
	"walkey/internal/freeport"
	"walkey/internal/stack"
)

//go:embed rival.py
var rival []byte

// python is the distribution's, for which the packages are.
const python = "/usr/bin/python3"

// writeRival writes the rival's program, and gives the environment that it runs in.
func (w *world) writeRival() (env []string, err error) {
	if err := os.WriteFile(filepath.Join(w.dir, "rival.py"), rival, 0o600); err != nil {
		return nil, err
	}
	return []string{
		"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1",
		"PGPORT=" + strconv.Itoa(w.postgres.Port()), fmt.Sprintf("CACHE_URL=redis://%s/0", w.valkey.Addr()),
	}, nil
}

// askDjango lets the rival measure something in its own process, and gives the figures.
func (w *world) askDjango(ctx context.Context, args ...string) (figures []float64, err error) {
	command := exec.CommandContext(ctx, python, append([]string{"rival.py"}, args...)...)
	command.Dir = w.dir
	if command.Env, err = w.writeRival(); err != nil {
		return nil, err
	}
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("rival.py %s (`sh deploy/local/setup.sh bench` installs what it needs): %w\n%s", args, err, said.String())
	}
	for _, field := range strings.Fields(string(out)) {
		value, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, fmt.Errorf("rival.py %s: %w", args, err)
		}
		figures = append(figures, value)
	}
	return figures, nil
}

// measuredByDjango is a round of that.
func (w *world) measuredByDjango(what string, duration time.Duration) func(context.Context) ([]float64, error) {
	return func(ctx context.Context) ([]float64, error) {
		return w.askDjango(ctx, what, strconv.FormatFloat(duration.Seconds(), 'f', -1, 64))
	}
}

// startDjango starts the rival and gives the URL of its list, which it has cached.
func (w *world) startDjango(ctx context.Context) (url string, err error) {
	env, err := w.writeRival()
	if err != nil {
		return "", err
	}
	port, err := freeport.Pick()
	if err != nil {
		return "", err
	}
	addr := net.JoinHostPort(freeport.Host, strconv.Itoa(port))
	var log stack.Log
	p, err := child.Start(child.Command{
		Path: python, Args: []string{"-m", "gunicorn", "--workers", "2", "--bind", addr, "rival:application"}, Dir: w.dir, Output: &log,
		Env: env,
	})
	if err != nil {
		return "", err
	}
	w.onClose(func() error { return stop(p) })
	url = "http://" + addr + listPath
	return url, eventually(ctx, "Django answers (`sh deploy/local/setup.sh bench` installs what it needs)", &stack.Program{Process: p, Log: &log}, func() error {
		if !p.Running() {
			return fmt.Errorf("it ended: %w", p.Err())
		}
		_, err := get(ctx, url)
		return err
	})
}
