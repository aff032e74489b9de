package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"walkey/internal/cache"
	"walkey/internal/doctor"
	"walkey/internal/explain"
	"walkey/internal/invalidate"
	"walkey/internal/program"
)

type explainCommand struct {
	program.Postgres `embed:""`
	stored           `embed:""`
	Names            names `embed:""`

	Table string   `arg:"" optional:"" help:"Table of a row: schema.table, or table alone for schema public."`
	PK    []string `arg:"" optional:"" name:"pk" help:"Values of its primary key, in order, or column=value."`
	Key   string   `placeholder:"KEY" help:"Explain a key instead, with or without the prefix."`

	Timeout time.Duration `default:"10s" placeholder:"DURATION" help:"How long the servers may take to answer."`
	JSON    bool          `name:"json" help:"Print JSON."`
}

// Check implements [program.Checker].
func (c *explainCommand) Check(p *program.Problems) {
	c.Rules.load(p, c.CachePrefix)
	if (c.Key == "") == (c.Table == "") {
		p.Add("explain", "needs either TABLE and PK, or --key KEY")
	}
	if c.Timeout <= 0 {
		p.Add("--timeout", "must be more than 0")
	}
}

// Run explains.
func (c *explainCommand) Run(ctx context.Context, p *program.Process) error {
	eraser, err := c.open()
	if err != nil {
		return err
	}
	defer eraser.Close()
	o := explain.Options{
		DatabaseURL: c.DatabaseURL, Rules: c.Rules.parsed, Eraser: eraser, Timeout: c.Timeout,
		Findings: func(ctx context.Context) []doctor.Result {
			return doctor.Run(ctx, doctor.Options{
				DatabaseURL: c.DatabaseURL, Slot: c.Names.SlotName, Publication: c.Names.PublicationName,
				Rules: c.Rules.parsed, Eraser: eraser, Timeout: c.Timeout,
			}).Checks
		},
	}
	var report explain.Report
	if c.Key != "" {
		report, err = explain.OfKey(ctx, o, fullKey(c.CachePrefix, c.Rules.parsed, c.Key))
	} else {
		table, parseErr := invalidate.ParseTable(c.Table)
		if parseErr != nil {
			return &program.UsageError{Message: "explain: " + parseErr.Error()}
		}
		report, err = explain.OfRow(ctx, o, table, c.PK)
	}
	if errors.Is(err, explain.ErrRow) {
		return &program.UsageError{Message: "explain: " + err.Error()}
	}
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	if c.JSON {
		return program.PrintJSON(p.Stdout, report)
	}
	var b strings.Builder
	writeExplanation(&b, p, report, time.Now())
	_, err = io.WriteString(p.Stdout, b.String())
	return err
}

func writeExplanation(b *strings.Builder, p *program.Process, r explain.Report, now time.Time) {
	if r.Row != nil {
		fmt.Fprintf(b, "row of %s: %s", r.Table, columns(r.Row.Columns))
		if r.Row.State != explain.RowRead {
			fmt.Fprintf(b, " (%s", r.Row.State)
			if r.Row.Why != "" {
				fmt.Fprintf(b, ": %s", r.Row.Why)
			}
			b.WriteString(")")
		}
		b.WriteString("\na change of it deletes\n")
	}
	for _, k := range r.Keys {
		name := k.Key
		if name == "" {
			name = k.Pattern
		}
		fmt.Fprintf(b, "  %s\n", name)
		for _, rule := range k.Rules {
			fmt.Fprintf(b, "      deleted by changes of %s", rule.Table)
			if len(rule.Row) > 0 {
				fmt.Fprintf(b, " with %s", columns(rule.Row))
			}
			fmt.Fprintf(b, ", by %q", rule.Template)
			if rule.When != "" {
				fmt.Fprintf(b, ", when %s", rule.When)
			}
			if len(rule.Columns) > 0 {
				fmt.Fprintf(b, ", of %s", strings.Join(rule.Columns, ", "))
			}
			b.WriteString("\n")
		}
		if len(k.Stored) == 0 {
			b.WriteString("      nothing is stored there\n")
		}
		for _, s := range k.Stored {
			writeStored(b, s, s.Key != k.Key, now)
		}
		if k.More {
			b.WriteString("      … and more\n")
		}
	}
	for _, line := range r.Advice {
		fmt.Fprintf(b, "%s  %s\n", p.Paint(p.Stdout, program.Yellow, "NOTE"), line)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(b, "%s  %s: %s\n      mend: %s\n", p.Paint(p.Stdout, statusColours[f.Status], string(f.Status)), f.Check, strings.ReplaceAll(f.Detail, "\n", " "), f.Mend)
	}
	if len(r.Advice)+len(r.Findings) == 0 {
		fmt.Fprintf(b, "%s  the rules name it, and nothing is wrong with the servers\n", p.Paint(p.Stdout, program.Green, "PASS"))
	}
}

func writeStored(b *strings.Builder, s explain.Stored, named bool, now time.Time) {
	b.WriteString("      ")
	if named {
		fmt.Fprintf(b, "%s: ", s.Key)
	}
	if s.Type == "none" {
		b.WriteString("nothing is stored there\n")
		return
	}
	fmt.Fprintf(b, "%s, %s in memory", s.Type, program.Size(s.Memory))
	if s.Type == "hash" {
		fmt.Fprintf(b, ", %d fields", s.Fields)
	}
	if s.TTL == nil {
		b.WriteString(", lasts until it is deleted\n")
	} else {
		fmt.Fprintf(b, ", lasts %s\n", life(time.Duration(*s.TTL*float64(time.Second))))
	}
	for _, part := range s.Parts {
		b.WriteString("        ")
		if part.Field != "" {
			fmt.Fprintf(b, "%s: ", part.Field)
		}
		began := ""
		if part.Begun != nil {
			began = fmt.Sprintf("; its load began %s ago", now.Sub(*part.Begun).Round(time.Millisecond))
		}
		switch part.Kind {
		case cache.KindValue:
			fmt.Fprintf(b, "a value of %s, %s as stored (%s)%s\n", program.Size(part.Length), program.Size(part.Size), part.Coding, began)
		case cache.KindAbsent:
			fmt.Fprintf(b, "the fact that there is no such thing%s\n", began)
		case cache.KindLease:
			fmt.Fprintf(b, "a lease: somebody loads it%s\n", began)
		case cache.KindHidden:
			b.WriteString("what the user of Valkey may not read\n")
		default:
			fmt.Fprintf(b, "%s of another program, a session or Walkey itself\n", program.Size(part.Size))
		}
	}
}

// columns shows values of columns for people.
func columns(values map[string]*string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := "NULL"
		if values[name] != nil {
			value = *values[name]
		}
		parts = append(parts, name+"="+value)
	}
	return strings.Join(parts, " ")
}
