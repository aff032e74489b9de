package main

import (
	"context"
	"fmt"
	"io"

	"walkey/internal/cdc"
	"walkey/internal/program"
)

type setupCommand struct {
	program.Postgres `embed:""`
	Names            names `embed:""`
	Rules            rules `embed:""`

	CachePrefix string `env:"CACHE_PREFIX" default:"bloodofjesus" placeholder:"PREFIX" help:"First part of every key, which the rules are checked against."`
	Role        string `placeholder:"NAME" help:"Role that the invalidator will connect as; it gets what it needs. Default: the role of DATABASE_URL."`
	DryRun      bool   `help:"Only print the SQL."`
	JSON        bool   `name:"json" help:"Print JSON."`
}

// Check implements [program.Checker].
func (c *setupCommand) Check(p *program.Problems) { c.Rules.load(p, c.CachePrefix) }

// Run sets up.
func (c *setupCommand) Run(ctx context.Context, p *program.Process) error {
	steps, err := cdc.Setup(ctx, cdc.SetupOptions{
		DatabaseURL: c.DatabaseURL,
		Slot:        c.Names.SlotName,
		Publication: c.Names.PublicationName,
		Tables:      c.Rules.parsed.Tables(),
		Role:        c.Role,
		DryRun:      c.DryRun,
		OnWait:      func(w cdc.Wait) { fmt.Fprintf(p.Stderr, "waiting: %s: %s\n", w.Reason, w.Detail) },
	})
	if printErr := printSteps(p, steps, c.JSON); err == nil {
		err = printErr
	}
	return err
}

// printSteps prints what was done. The lines are SQL: what is not a statement is a comment.
func printSteps(p *program.Process, steps []cdc.Step, asJSON bool) error {
	if asJSON {
		if steps == nil {
			steps = []cdc.Step{} // not null
		}
		return program.PrintJSON(p.Stdout, struct {
			Steps []cdc.Step `json:"steps"`
		}{steps})
	}
	for _, s := range steps {
		if err := printStep(p, p.Stdout, s); err != nil {
			return err
		}
	}
	return nil
}

func printStep(p *program.Process, w io.Writer, s cdc.Step) error {
	colours := map[string]program.Colour{cdc.StepPresent: program.Grey, cdc.StepPlanned: program.Yellow, cdc.StepDone: program.Green, cdc.StepLeft: program.Yellow}
	line := "-- " + s.What + ": " + s.State
	if s.Note != "" {
		line += " (" + s.Note + ")"
	}
	if _, err := fmt.Fprintln(w, p.Paint(w, colours[s.State], line)); err != nil {
		return err
	}
	if s.SQL == "" {
		return nil
	}
	_, err := fmt.Fprintln(w, s.SQL)
	return err
}
