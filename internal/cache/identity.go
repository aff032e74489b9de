package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// An Identity tells one run of a Valkey primary from every other. RunID changes with each start, ReplicationID with each
// new history of the data (a promotion, a restart).
type Identity struct {
	RunID         string
	ReplicationID string
	Version       string
}

// Identify asks who answers. It is an error when nobody does, when the server still loads its data, and when it is not
// a primary.
func (e *Eraser) Identify(ctx context.Context) (Identity, error) {
	var answers [2]string
	for i, section := range []string{"server", "replication"} {
		text, err := e.client.Do(ctx, e.client.B().Info().Section(section).Build()).ToString()
		if err != nil {
			return Identity{}, fmt.Errorf("ask Valkey who it is: %w", err)
		}
		answers[i] = text
	}
	server, replication := infoFields(answers[0]), infoFields(answers[1])
	id := Identity{RunID: server["run_id"], ReplicationID: replication["master_replid"], Version: server["valkey_version"]}
	if id.Version == "" {
		id.Version = server["redis_version"]
	}
	if id.RunID == "" || id.ReplicationID == "" {
		return Identity{}, errors.New("ask Valkey who it is: the answer names no run or no replication history")
	}
	if role := replication["role"]; role != "master" {
		return Identity{}, fmt.Errorf("ask Valkey who it is: its role is %q, not a primary", role)
	}
	return id, nil
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
