package program

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
)

// version is set by the linker in builds that can't see the repository: -X walkey/internal/program.version=v1.2.3.
var version string

// Version is the sub-command that says which build this is.
type Version struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Build says from what a program was made.
type Build struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision, RFC 3339
	Modified bool   `json:"modified"`       // the tree held changes beyond the revision
	Go       string `json:"go"`
}

// ReadBuild reads what the Go tool chain wrote into the running program.
func ReadBuild(program string) Build {
	b := Build{Program: program, Version: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	if version != "" {
		b.Version = version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// Run prints the build.
func (c *Version) Run(_ context.Context, p *Process) error {
	b := ReadBuild(p.Name)
	if c.JSON {
		return PrintJSON(p.Stdout, b)
	}
	_, err := fmt.Fprintf(p.Stdout, "%s %s (%s)\n", b.Program, b.Version, b.Go)
	return err
}

// PrintJSON writes v as one line of JSON.
func PrintJSON(w io.Writer, v any) error {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return fmt.Errorf("printing JSON: %w", err)
	}
	return nil
}
