package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// An Identity tells one run of a Valkey primary from every other. RunID changes with each start, ReplicationID with each
// new history of the data (a promotion, a restart). That of a cluster lists those of all its primaries.
type Identity struct {
	RunID         string
	ReplicationID string
	Version       string
}

// run is what a primary says of itself.
type run struct {
	Identity
	offset int64 // of its history, when it was asked
	// former is the history that it followed before it was promoted, up to the offset before next.
	former string
	next   int64
}

// primaries are all that serve something.
type primaries struct {
	layout *layout
	runs   map[*node]run
}

// identity is that of all.
func (p *primaries) identity() Identity {
	if len(p.layout.nodes) == 1 {
		return p.runs[p.layout.nodes[0]].Identity
	}
	var id Identity
	for i, n := range p.layout.nodes {
		r := p.runs[n]
		if i == 0 {
			id.Version = r.Version
		} else {
			id.RunID += " "
			id.ReplicationID += " "
		}
		id.RunID += n.address + "=" + r.RunID
		id.ReplicationID += n.address + "=" + r.ReplicationID
	}
	return id
}

// Identify asks who answers. It is an error when nobody does, when a server still loads its data, and when one is not
// a primary.
func (e *Eraser) Identify(ctx context.Context) (Identity, error) {
	if err := e.topology.refresh(ctx); err != nil {
		return Identity{}, fmt.Errorf("ask who serves what: %w", err)
	}
	found, err := e.identify(ctx, e.topology.present.Load())
	if err != nil {
		return Identity{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.found = found
	return found.identity(), nil
}

// identify asks the primaries of a layout who they are.
func (e *Eraser) identify(ctx context.Context, l *layout) (*primaries, error) {
	p := &primaries{layout: l, runs: make(map[*node]run, len(l.nodes))}
	var mu sync.Mutex
	err := e.everywhere(l.nodes, func(n *node) error {
		r, err := askRun(ctx, n.writer)
		mu.Lock()
		defer mu.Unlock()
		p.runs[n] = r
		return err
	})
	return p, err
}

// askRun asks one primary who it is.
func askRun(ctx context.Context, client rueidis.Client) (run, error) {
	var answers [2]string
	for i, section := range []string{"server", "replication"} {
		text, err := client.Do(ctx, client.B().Info().Section(section).Build()).ToString()
		if err != nil {
			return run{}, fmt.Errorf("ask Valkey who it is: %w", err)
		}
		answers[i] = text
	}
	server, replication := infoFields(answers[0]), infoFields(answers[1])
	r := run{
		Identity: Identity{RunID: server["run_id"], ReplicationID: replication["master_replid"], Version: server["valkey_version"]},
		former:   replication["master_replid2"],
	}
	if r.Version == "" {
		r.Version = server["redis_version"]
	}
	if r.RunID == "" || r.ReplicationID == "" {
		return run{}, errors.New("ask Valkey who it is: the answer names no run or no replication history")
	}
	if role := replication["role"]; role != "master" {
		return run{}, fmt.Errorf("ask Valkey who it is: its role is %q, not a primary", role)
	}
	var err1, err2 error
	r.offset, err1 = strconv.ParseInt(replication["master_repl_offset"], 10, 64)
	r.next, err2 = strconv.ParseInt(replication["second_repl_offset"], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return run{}, fmt.Errorf("ask Valkey who it is: %w", err)
	}
	return r, nil
}

func infoFields(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}
