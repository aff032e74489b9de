// Package explain says of a row which keys its change deletes, and of a key which rules and rows name it, what is stored there,
// and what may keep an old value there.
//
// It guarantees that it changes nothing, neither in Postgres nor in Valkey; a row is read by one SELECT, where the role may. What it
// finds held at some moment while it looked.
package explain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cache"
	"walkey/internal/cdc"
	"walkey/internal/doctor"
	"walkey/internal/invalidate"
)

// Options say where to look.
type Options struct {
	DatabaseURL string
	Rules       *invalidate.Rules
	Eraser      *cache.Eraser
	// Timeout bounds what is asked of Postgres and Valkey, together.
	Timeout time.Duration
	// Findings gives what is wrong with the servers; nil asks nobody.
	Findings func(context.Context) []doctor.Result
}

// Report is what was found.
type Report struct {
	Table string `json:"table,omitempty"` // of a row
	Row   *Row   `json:"row,omitempty"`
	// Counts is false when the rule's condition does not hold for the row.
	Counts   bool            `json:"counts"`
	Keys     []Key           `json:"keys"`
	Advice   []string        `json:"advice"`   // what to know, and what to do
	Findings []doctor.Result `json:"findings"` // what is wrong with the servers
}

// Key is a key and what is stored there.
type Key struct {
	Key      string   `json:"key,omitempty"`
	Pattern  string   `json:"pattern,omitempty"` // when the key is not known; Key is empty then
	Template string   `json:"template,omitempty"`
	Rules    []Rule   `json:"rules"` // those that name it
	Stored   []Stored `json:"stored"`
	More     bool     `json:"more,omitempty"` // there is more stored under the pattern
}

// Rule is a rule that names a key.
type Rule struct {
	Table    string             `json:"table"`
	Template string             `json:"template"`
	Row      map[string]*string `json:"row,omitempty"` // of which a change deletes the key; of any row when empty
	When     string             `json:"when,omitempty"`
	Columns  []string           `json:"columns,omitempty"`
}

// Stored is what is under a key.
type Stored struct {
	Key    string   `json:"key"`
	Type   string   `json:"type"`                  // "none" when there is nothing
	TTL    *float64 `json:"ttl_seconds,omitempty"` // none: until it is deleted
	Memory int64    `json:"memory_bytes"`
	Fields int64    `json:"fields,omitempty"`
	Parts  []Part   `json:"parts,omitempty"`
}

// Part is a stored value or a lease; see [cache.Part].
type Part struct {
	Field  string     `json:"field,omitempty"`
	Kind   string     `json:"kind"`
	Coding string     `json:"coding,omitempty"`
	Size   int64      `json:"size_bytes"`
	Length int64      `json:"body_bytes,omitempty"`
	Tag    string     `json:"tag,omitempty"`
	Begun  *time.Time `json:"load_began,omitempty"`
}

// fewStored is how many keys of one pattern are shown.
const fewStored = 10

// OfRow explains a row: values of its primary key, or column=value. An error that is [ErrRow] says that they name none.
func OfRow(ctx context.Context, o Options, t cdc.Table, values []string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	r := Report{Table: t.String(), Keys: []Key{}, Advice: []string{}}
	if o.Rules.Columns(t) == nil {
		return r, fmt.Errorf("%w: no rule names table %s", ErrRow, t)
	}
	conn, unreachable := connect(ctx, o.DatabaseURL)
	if conn != nil {
		defer leave(ctx, conn)
	}
	row, err := readRow(ctx, conn, unreachable, o.Rules, t, values)
	if err != nil {
		return r, err
	}
	r.Row = &row
	var named []invalidate.NamedKey
	named, r.Counts = o.Rules.RowKeys(t, row.columns)
	for _, n := range named {
		k := Key{Key: n.Key, Pattern: n.Pattern, Template: n.Template, Rules: []Rule{}}
		if err := k.look(ctx, o.Eraser); err != nil {
			return r, err
		}
		if k.Key != "" {
			k.name(o.Rules)
		}
		r.Keys = append(r.Keys, k)
	}
	if !r.Counts {
		r.advise("the rule's `when` does not hold for this row as it is: an update that leaves it so deletes nothing")
	}
	if row.State == RowMissing {
		r.advise("the table has no such row now: the keys are those of the values given")
	}
	r.judge(ctx, o)
	return r, nil
}

// OfKey explains a full key.
func OfKey(ctx context.Context, o Options, fullKey string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	k := Key{Key: fullKey, Rules: []Rule{}}
	k.name(o.Rules)
	r := Report{Counts: len(k.Rules) > 0, Advice: []string{}}
	err := k.look(ctx, o.Eraser)
	r.Keys = []Key{k}
	if err != nil {
		return r, err
	}
	r.judge(ctx, o)
	return r, nil
}

// name finds the rules of a key.
func (k *Key) name(rules *invalidate.Rules) {
	for _, o := range rules.Origins(k.Key) {
		rule := Rule{Table: o.Table.String(), Template: o.Template, When: o.When, Columns: o.Changed}
		for _, c := range o.Row {
			if rule.Row == nil {
				rule.Row = map[string]*string{}
			}
			rule.Row[c.Name] = c.Value
		}
		k.Rules = append(k.Rules, rule)
	}
}

// look finds what is stored.
func (k *Key) look(ctx context.Context, eraser *cache.Eraser) error {
	keys := []string{k.Key}
	if k.Key == "" {
		keys = nil
		for page, err := range eraser.Scan(ctx, k.Pattern) {
			if err != nil {
				return err
			}
			if keys = append(keys, page...); len(keys) > fewStored {
				keys, k.More = keys[:fewStored], true
				break
			}
		}
	}
	k.Stored = []Stored{}
	for _, key := range keys {
		entry, err := eraser.Peek(ctx, key)
		if err != nil {
			return err
		}
		k.Stored = append(k.Stored, stored(entry))
	}
	return nil
}

func stored(e cache.Entry) Stored {
	s := Stored{Key: e.Key, Type: e.Type, Memory: e.Memory, Fields: e.Fields}
	if e.TTL >= 0 {
		seconds := e.TTL.Seconds()
		s.TTL = &seconds
	}
	for _, p := range e.Parts {
		part := Part{Field: p.Field, Kind: p.Kind, Coding: p.Coding, Size: p.Size, Length: p.Length, Tag: p.Tag}
		if !p.Begun.IsZero() {
			part.Begun = &p.Begun
		}
		s.Parts = append(s.Parts, part)
	}
	return s
}

func (r *Report) advise(format string, args ...any) {
	r.Advice = append(r.Advice, fmt.Sprintf(format, args...))
}

// judge says what may keep an old value there.
func (r *Report) judge(ctx context.Context, o Options) {
	for _, k := range r.Keys {
		for _, s := range k.Stored {
			switch {
			case o.Eraser.Spared(s.Key):
				r.advise("%s: a session or Walkey's own state; no rule and no flush touches it", s.Key)
			case len(k.Rules) == 0 && k.Key != "":
				r.advise("%s: no rule names it, so no change of any row deletes it: what is stored lasts until its TTL. Add it to the table's keys in RULES_FILE, and restart the invalidator", s.Key)
			}
			for _, p := range s.Parts {
				if p.Kind == cache.KindOther && !o.Eraser.Spared(s.Key) {
					r.advise("%s: stored by another program, which may store an old value after a delete; Walkey deletes it and promises no more", s.Key)
					break
				}
			}
		}
	}
	r.Findings = []doctor.Result{}
	if o.Findings == nil {
		return
	}
	for _, f := range o.Findings(ctx) {
		if f.Status == doctor.Fail || f.Status == doctor.Warn {
			r.Findings = append(r.Findings, f)
		}
	}
}

// connect opens a connection whose text form is the stream's.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the connection string can't be read") // it may hold a password
	}
	settings := config.RuntimeParams
	settings["application_name"] = "walkey explain"
	settings["client_encoding"] = "UTF8"
	settings["DateStyle"] = "ISO"
	settings["IntervalStyle"] = "postgres"
	settings["TimeZone"] = "UTC"
	settings["extra_float_digits"] = "3"
	settings["bytea_output"] = "hex"
	settings["default_transaction_read_only"] = "on"
	return pgx.ConnectConfig(ctx, config)
}

func leave(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the farewell
}
