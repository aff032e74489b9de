package main

import (
	"context"
	"fmt"
	"strings"

	"walkey/internal/cache"
	"walkey/internal/program"
)

type keysCommand struct {
	stored `embed:""`

	Pattern string `arg:"" optional:"" help:"Glob of the keys, in Valkey's syntax, with or without the prefix. Default: all under the prefix."`
	Raw     bool   `help:"Take PATTERN as it is, also for keys without the prefix."`
	Limit   int    `default:"1000" placeholder:"N" help:"Show no more keys than that; 0 shows all."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Check implements [program.Checker].
func (c *keysCommand) Check(p *program.Problems) {
	c.Rules.load(p, c.CachePrefix)
	if c.Limit < 0 {
		p.Add("--limit", "must not be negative")
	}
}

type keyLine struct {
	Key    string   `json:"key"`
	Type   string   `json:"type"`
	TTL    *float64 `json:"ttl_seconds"` // null: until it is deleted
	Memory int64    `json:"memory_bytes"`
}

// Run lists keys.
func (c *keysCommand) Run(ctx context.Context, p *program.Process) error {
	eraser, err := c.open()
	if err != nil {
		return err
	}
	defer eraser.Close()
	lines, more := []keyLine{}, false
	seen := map[string]bool{}
	for page, err := range eraser.Scan(ctx, c.pattern()) {
		if err != nil {
			return err
		}
		entries, err := eraser.Outline(ctx, page)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if seen[e.Key] || e.Type == "none" { // SCAN may repeat itself, and a key may go meanwhile
				continue
			}
			if more = c.Limit > 0 && len(seen) == c.Limit; more {
				break
			}
			seen[e.Key] = true
			if c.JSON {
				lines = append(lines, asLine(e))
			} else if _, err := fmt.Fprintf(p.Stdout, "%9s  %-6s %10s  %s\n", life(e.TTL), e.Type, program.Size(e.Memory), e.Key); err != nil {
				return err
			}
		}
		if more {
			break
		}
	}
	if c.JSON {
		return program.PrintJSON(p.Stdout, struct {
			Keys []keyLine `json:"keys"`
			More bool      `json:"more"`
		}{lines, more})
	}
	if more {
		fmt.Fprintf(p.Stderr, "there are more; say --limit=0 to see all\n")
	}
	return nil
}

func (c *keysCommand) pattern() string {
	prefix := cache.FullKey(c.CachePrefix, "")
	switch {
	case c.Pattern == "":
		return cache.GlobEscape(prefix) + "*"
	case c.Raw, strings.HasPrefix(c.Pattern, prefix), strings.HasPrefix(c.Pattern, cache.GlobEscape(prefix)):
		return c.Pattern
	}
	return cache.GlobEscape(prefix) + c.Pattern
}

func asLine(e cache.Entry) keyLine {
	line := keyLine{Key: e.Key, Type: e.Type, Memory: e.Memory}
	if e.TTL >= 0 {
		seconds := e.TTL.Seconds()
		line.TTL = &seconds
	}
	return line
}
