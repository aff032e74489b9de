// Package stack builds Walkey's programs and runs them as processes upon servers that somebody else has started: for the tests of
// whole programs and for the torture run.
//
// It gives back errors and knows no testing.T. It does not start servers; package embedded does.
package stack

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"walkey/internal/child"
	"walkey/internal/freeport"
)

// addressVariables are those by which the programs are told where to serve.
var addressVariables = map[string]string{"api": "API_ADDR", "invalidator": "INVALIDATOR_ADDR"}

// Build compiles api and invalidator into a folder, with further flags of go build. They are static, as they are shipped, but for those with -race,
// which needs C.
func Build(ctx context.Context, folder string, flags ...string) error {
	arguments := append([]string{"build", "-o", folder + string(filepath.Separator)}, flags...)
	build := exec.CommandContext(ctx, "go", append(arguments, "walkey/cmd/api", "walkey/cmd/invalidator")...)
	if !slices.Contains(flags, "-race") {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Command says which program to start.
type Command struct {
	Folder string   // where Build has put it
	Name   string   // api or invalidator
	Dir    string   // working directory
	Addr   string   // where it serves, host:port; empty means a free port
	Env    []string // all of its environment but PATH and the address
}

// Program is a running api or invalidator.
type Program struct {
	*child.Process
	Name string
	Base string // URL of what it serves
	Log  *Log
}

// Start starts a program and does not wait until it is ready.
func Start(c Command) (*Program, error) {
	if c.Addr == "" {
		port, err := freeport.Pick()
		if err != nil {
			return nil, err
		}
		c.Addr = freeport.Host + ":" + strconv.Itoa(port)
	}
	p := &Program{Name: c.Name, Base: "http://" + c.Addr, Log: &Log{}}
	env := append([]string{"PATH=" + os.Getenv("PATH"), addressVariables[c.Name] + "=" + c.Addr}, c.Env...)
	var err error
	if p.Process, err = child.Start(child.Command{Path: filepath.Join(c.Folder, c.Name), Dir: c.Dir, Output: p.Log, Env: env}); err != nil {
		return nil, err
	}
	return p, nil
}

// Ready asks the program once whether it is ready; nil when it is.
func (p *Program) Ready(ctx context.Context, client *http.Client) error {
	if !p.Running() {
		return fmt.Errorf("%s ended: %w", p.Name, p.Err())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Base+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", response.Status)
	}
	return nil
}

// Log keeps what a program says.
type Log struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String is all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Tail is the end of it.
func (l *Log) Tail() string {
	text := l.String()
	return text[max(0, len(text)-6000):]
}
