package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"walkey/internal/child"
	"walkey/internal/freeport"
	"walkey/internal/stack"
)

//go:embed rival.py
var rival []byte

// python is the distribution's, for which the packages are.
const python = "/usr/bin/python3"

// startDjango starts the rival and gives the URL of its list, which it has cached.
func (w *world) startDjango(ctx context.Context) (url string, err error) {
	if err := os.WriteFile(filepath.Join(w.dir, "rival.py"), rival, 0o600); err != nil {
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
		Env: []string{"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1", "PGPORT=" + strconv.Itoa(w.postgres.Port()), fmt.Sprintf("CACHE_URL=redis://%s/0", w.valkey.Addr())},
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
