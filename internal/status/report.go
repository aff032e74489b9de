package status

import (
	"time"

	"walkey/internal/cache"
)

// State is what there is to say, in a word or two.
type State string

// The states.
const (
	Healthy         State = "healthy"
	Standby         State = "standby" // all is well, by another process than the one that was asked
	CatchingUp      State = "catching up"
	Resynchronising State = "resynchronising"
	Starting        State = "starting"
	NobodyActive    State = "nobody active"
	ValkeyDown      State = "valkey down"
	PostgresDown    State = "postgres down"
)

// Colour is how bad it is.
type Colour string

// The colours.
const (
	Green  Colour = "green"  // all is well
	Yellow Colour = "yellow" // it passes by itself, or somebody should have a look
	Red    Colour = "red"    // somebody must do something
)

// A Report is what is true right now.
type Report struct {
	At       time.Time `json:"at"`
	State    State     `json:"state"`
	Colour   Colour    `json:"colour"`
	Sentence string    `json:"sentence"`
	Reason   string    `json:"reason,omitempty"`  // why it is not as it should be
	Remarks  []string  `json:"remarks,omitempty"` // what else deserves a look

	MaxStaleness float64  `json:"max_staleness_seconds"`
	Process      *Process `json:"process"` // the invalidator that was asked; null when both servers were asked instead
	Stream       Stream   `json:"stream"`
	Slot         Slot     `json:"slot"`
	Postgres     Postgres `json:"postgres"`
	Valkey       Valkey   `json:"valkey"`
	APIs         []API    `json:"apis"`
}

// Process is what a running invalidator knows of itself.
type Process struct {
	Role      string    `json:"role"` // "starting", "standby" or "active"
	RoleSince time.Time `json:"role_since"`
	Since     time.Time `json:"since"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	// Waiting is what it waits for before it can hold the slot.
	Waiting string `json:"waiting,omitempty"`
	// Failure is why the last session ended; empty once the next one follows the stream.
	Failure      string    `json:"failure,omitempty"`
	Resync       *Resync   `json:"resync,omitempty"` // under way
	Uncovered    []string  `json:"uncovered,omitempty"`
	Transactions uint64    `json:"transactions"` // since the process began
	Keys         uint64    `json:"keys"`         // deleted ones
	Proved       time.Time `json:"proved"`       // every change that was visible then is deleted; zero: none yet

	Received  uint64    `json:"-"` // LSN
	Deleted   uint64    `json:"-"` // LSN
	Confirmed uint64    `json:"-"` // LSN
	Held      int       `json:"-"`
	Oldest    time.Time `json:"-"`
}

// Resync is a resynchronisation under way.
type Resync struct {
	Reason  string  `json:"reason"`
	Deleted int     `json:"deleted"` // keys so far
	Seconds float64 `json:"seconds"` // so far
}

// Stream says how far the changes have come. Positions are empty where they are not known.
type Stream struct {
	Received  string `json:"received_lsn,omitempty"`  // by the process that was asked
	Deleted   string `json:"deleted_lsn,omitempty"`   // all that is visible up to there is deleted
	Confirmed string `json:"confirmed_lsn,omitempty"` // by the slot
	WALEnd    string `json:"wal_end_lsn,omitempty"`   // of the server
	// LagBytes is from what is deleted, or confirmed where that is not known, to the end of the WAL.
	LagBytes *int64 `json:"lag_bytes"`
	// LagSeconds is how long ago the moment is up to which everything visible is proved to be deleted. Where another
	// process proves it: for how long the heartbeat has been seen to stand still.
	LagSeconds *float64 `json:"lag_seconds"`
	// Held are transactions whose keys are not deleted yet, mostly because nobody can see their commit yet.
	Held       int      `json:"held"`
	HeldOldest *float64 `json:"held_oldest_seconds,omitempty"`
}

// Slot is the replication slot.
type Slot struct {
	Name     string `json:"name"`
	Exists   bool   `json:"exists"`
	Active   bool   `json:"active"`
	PID      int32  `json:"pid,omitempty"`        // of the server's process that sends
	Status   string `json:"wal_status,omitempty"` // reserved, extended, unreserved or lost
	Retained int64  `json:"retained_bytes"`       // WAL that it keeps
	Safe     *int64 `json:"safe_bytes"`           // until the server gives it up; null is without limit
}

// Postgres is the primary.
type Postgres struct {
	Up      bool   `json:"up"`
	Error   string `json:"error,omitempty"`
	Version string `json:"version,omitempty"`
}

// Valkey is the store.
type Valkey struct {
	Up    bool   `json:"up"`
	Error string `json:"error,omitempty"`
	Nodes []Node `json:"nodes,omitempty"`
	// Heartbeat says for how long the heartbeat has been seen to stand still; null when there is none, or nobody has
	// seen it rise.
	Heartbeat *float64 `json:"heartbeat_seconds"`
}

// Node is one primary of Valkey.
type Node struct {
	Address     string   `json:"address"`
	Product     string   `json:"product"` // "valkey" or "redis"
	Version     string   `json:"version"`
	PingSeconds float64  `json:"ping_seconds"`
	UsedMemory  int64    `json:"used_memory"` // bytes
	MaxMemory   int64    `json:"max_memory"`  // bytes; 0 is no limit
	Policy      string   `json:"policy"`      // maxmemory-policy
	Keys        int64    `json:"keys"`        // of all its databases
	Evicted     int64    `json:"evicted"`     // keys since it began, because memory was full
	Clients     int64    `json:"clients"`
	Hits        int64    `json:"hits"` // lookups of keys that were there, since it began
	Misses      int64    `json:"misses"`
	HitRate     *float64 `json:"hit_rate"` // null before the first lookup
}

// API is one process that serves from the cache.
type API struct {
	cache.Presence
	AgeSeconds float64  `json:"age_seconds"` // since it said so
	HitRate    *float64 `json:"hit_rate"`    // of answers since it began; null before the first
	RecentRate *float64 `json:"recent_rate"` // of the last half minute
	PerSecond  float64  `json:"per_second"`  // answers, of the last half minute
}
