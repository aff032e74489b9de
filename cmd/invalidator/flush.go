package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
	"walkey/internal/program"
)

type flushCommand struct {
	stored `embed:""`

	Keys   []string `arg:"" optional:"" help:"Keys to delete, with or without the prefix."`
	Table  string   `placeholder:"TABLE" help:"Delete every key that a row of this table can have."`
	All    bool     `help:"Delete every key that rules can name, as a resync does."`
	Yes    bool     `help:"Do not ask. Needed when standard input is no terminal."`
	DryRun bool     `help:"Only show what would be deleted."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

// Check implements [program.Checker].
func (c *flushCommand) Check(p *program.Problems) {
	c.Rules.load(p, c.CachePrefix)
	ways := 0
	for _, given := range []bool{len(c.Keys) > 0, c.Table != "", c.All} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		p.Add("flush", "needs one of KEY..., --table TABLE and --all")
	}
}

// target is keys, and patterns of keys, that are to be deleted, and how many of each there are.
type target struct {
	keys     []string
	patterns []string
	found    int
	each     []matched
}

type matched struct {
	Name string `json:"name"` // a key or a pattern
	Keys int    `json:"keys"` // that exist
}

// Run deletes. Nothing that is stored meanwhile is older than the flush: a load that began before it has lost its lease.
func (c *flushCommand) Run(ctx context.Context, p *program.Process) error {
	eraser, err := c.open()
	if err != nil {
		return err
	}
	defer eraser.Close()
	t, err := c.target(eraser)
	if err != nil {
		return err
	}
	if err := t.count(ctx, p, eraser); err != nil {
		return err
	}
	if !c.JSON || !c.Yes && !c.DryRun {
		for _, m := range t.each {
			fmt.Fprintf(p.Stderr, "%8d  %s\n", m.Keys, m.Name)
		}
	}
	deleted := 0
	switch {
	case c.DryRun:
	case t.found == 0: // nothing to ask about
	case !c.Yes:
		yes, err := p.Confirm(fmt.Sprintf("Delete %d keys?", t.found))
		if errors.Is(err, program.ErrNotAsked) {
			return &program.UsageError{Message: "flush asks before it deletes anything, but standard input is no terminal; say --yes"}
		}
		if err != nil {
			return err
		}
		if !yes {
			return errors.New("flush: declined, nothing was deleted")
		}
		fallthrough
	default:
		if deleted, err = t.delete(ctx, p, eraser); err != nil {
			return fmt.Errorf("flush: %d keys were deleted before this: %w", deleted, err)
		}
	}
	if c.JSON {
		return program.PrintJSON(p.Stdout, struct {
			Found   int       `json:"found"`
			Deleted int       `json:"deleted"`
			Each    []matched `json:"each"`
		}{t.found, deleted, t.each})
	}
	if c.DryRun {
		_, err = fmt.Fprintf(p.Stdout, "would delete %d keys\n", t.found)
	} else {
		_, err = fmt.Fprintf(p.Stdout, "deleted %d keys\n", deleted)
	}
	return err
}

// target finds out what is meant.
func (c *flushCommand) target(eraser *cache.Eraser) (*target, error) {
	t := &target{each: []matched{}}
	switch {
	case c.All:
		t.keys, t.patterns = c.Rules.parsed.Everything()
	case c.Table != "":
		table, err := invalidate.ParseTable(c.Table)
		if err != nil {
			return nil, &program.UsageError{Message: "--table: " + err.Error()}
		}
		var ok bool
		if t.keys, t.patterns, ok = c.Rules.parsed.TableKeys(table); !ok {
			var names []string
			for _, known := range c.Rules.parsed.Tables() {
				names = append(names, known.String())
			}
			return nil, &program.UsageError{Message: fmt.Sprintf("--table: no rule names %s; rules name %s", table, strings.Join(names, ", "))}
		}
	default:
		for _, key := range c.Keys {
			key = fullKey(c.CachePrefix, c.Rules.parsed, key)
			if eraser.Spared(key) {
				return nil, &program.UsageError{Message: fmt.Sprintf("%q is a session or Walkey's own state, which no flush touches", key)}
			}
			if !slices.Contains(t.keys, key) {
				t.keys = append(t.keys, key)
			}
		}
	}
	return t, nil
}

const flushBatch = 1000 // keys

// count looks what there is.
func (t *target) count(ctx context.Context, p *program.Process, eraser *cache.Eraser) error {
	progress := p.Progress("counting", -1)
	defer progress.Done()
	for batch := range slices.Chunk(t.keys, flushBatch) {
		entries, err := eraser.Outline(ctx, batch)
		if err != nil {
			return err
		}
		for _, e := range entries {
			m := matched{Name: e.Key}
			if e.Type != "none" {
				m.Keys = 1
			}
			t.found += m.Keys
			t.each = append(t.each, m)
		}
	}
	for _, pattern := range t.patterns {
		m := matched{Name: pattern}
		for page, err := range eraser.Scan(ctx, pattern) {
			if err != nil {
				return err
			}
			for _, key := range page {
				if !eraser.Spared(key) {
					m.Keys++
				}
			}
			progress.Add(len(page))
		}
		t.found += m.Keys
		t.each = append(t.each, m)
	}
	return nil
}

// delete deletes, also what has come since it was counted.
func (t *target) delete(ctx context.Context, p *program.Process, eraser *cache.Eraser) (deleted int, err error) {
	progress := p.Progress("deleting", int64(t.found))
	defer progress.Done()
	take := func(keys []string) error {
		n, err := eraser.Delete(ctx, keys)
		deleted += n
		progress.Add(n)
		return err
	}
	for batch := range slices.Chunk(t.keys, flushBatch) {
		if err := take(batch); err != nil {
			return deleted, err
		}
	}
	for _, pattern := range t.patterns {
		for page, err := range eraser.Scan(ctx, pattern) {
			if err != nil {
				return deleted, err
			}
			if err := take(slices.DeleteFunc(page, eraser.Spared)); err != nil {
				return deleted, err
			}
		}
	}
	return deleted, nil
}
