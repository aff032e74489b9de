package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs are those that are shipped.
var programs = []string{"api", "invalidator"}

// A Release says what is made from which source.
type Release struct {
	Source            string // a folder with go.mod, cmd and internal
	Version, Revision string
	Arches            []string // of Linux, in Go's terms
}

// Build compiles the programs of one architecture into a folder, as deploy/Dockerfile does.
func (r Release) Build(ctx context.Context, arch, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("folder for the programs: %w", err)
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return fmt.Errorf("folder for the programs: %w", err)
	}
	args := []string{
		"build", "-trimpath", "-tags", "grpcnotrace", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X walkey/internal/program.version=" + r.Version, "-o", folder + string(filepath.Separator),
	}
	for _, name := range programs {
		args = append(args, "./cmd/"+name)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Dir = r.Source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", arch, err, out)
	}
	return nil
}
