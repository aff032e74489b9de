package invalidate

import (
	"encoding/json"
	"fmt"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// note is what the invalidator leaves in Valkey before it confirms an LSN: of
// which server, in which Valkey, under which rules everything up to LSN has been
// deleted. What the next session finds there tells whether it may go on or has
// missed something.
type note struct {
	SystemID string         `json:"system_id"`
	Timeline int32          `json:"timeline"`
	Database string         `json:"database"`
	Slot     string         `json:"slot"`
	Boot     boot           `json:"boot"`
	Valkey   cache.Identity `json:"valkey"`
	Rules    string         `json:"rules"`
	LSN      string         `json:"lsn"`
	// Tables are hashes of what the catalog said of each table when its keys were last deleted because it changed.
	Tables map[string]string `json:"tables"`
	// Unsettled are transactions whose end has the keys of a table deleted again.
	Unsettled map[string][]uint64 `json:"unsettled,omitempty"`
	// Pending are transactions at or before LSN whose keys are not deleted yet.
	Pending []pending `json:"pending,omitempty"`
	// Ended: the server was shut down in order, and LSN is behind everything that its clients did.
	Ended bool `json:"ended,omitempty"`

	lsn cdc.LSN
}

func (n *note) encode() (string, error) {
	n.LSN = n.lsn.String()
	text, err := json.Marshal(n)
	if err != nil {
		return "", fmt.Errorf("write the note: %w", err)
	}
	return string(text), nil
}

func decodeNote(text string) (*note, error) {
	var n note
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return nil, fmt.Errorf("read the note: %w", err)
	}
	var err error
	if n.lsn, err = cdc.ParseLSN(n.LSN); err != nil {
		return nil, fmt.Errorf("read the note: %w", err)
	}
	return &n, nil
}

// Reasons of gap.
const (
	slotIsNew       = "the slot is new"
	anotherTimeline = "another timeline"
)

// gap says why a session that finds the note old can't trust what Valkey holds;
// "" when nothing was missed. now describes the session: its LSN is the slot's
// confirmed position, walEnd the end of the server's WAL.
func gap(old *note, now *note, slotCreated bool, walEnd cdc.LSN) string {
	switch {
	case slotCreated && old == nil:
		return slotIsNew
	case old == nil:
		return "Valkey holds no note of earlier progress"
	case old.SystemID != now.SystemID:
		return "another Postgres system"
	case old.Timeline != now.Timeline:
		return anotherTimeline
	case old.Database != now.Database || old.Slot != now.Slot:
		return "another database or slot"
	case slotCreated:
		return slotIsNew
	case walEnd < old.lsn:
		return "the server's WAL ends before the noted position: restored from a backup"
	case now.lsn > old.lsn:
		return "the slot moved on without Walkey, or was made anew"
	case !old.Boot.same(now.Boot):
		return "Postgres was restarted or crashed"
	case old.Valkey.RunID != now.Valkey.RunID || old.Valkey.ReplicationID != now.Valkey.ReplicationID:
		return "Valkey was restarted or replaced"
	case old.Rules != now.Rules:
		return "the rules changed"
	}
	return ""
}
