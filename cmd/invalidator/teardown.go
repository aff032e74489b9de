package main

import (
	"context"
	"errors"
	"fmt"

	"walkey/internal/cdc"
	"walkey/internal/program"
)

type teardownCommand struct {
	program.Postgres `embed:""`
	Names            names `embed:""`

	Yes    bool `help:"Do not ask. Needed when standard input is no terminal."`
	DryRun bool `help:"Only print the SQL."`
	JSON   bool `name:"json" help:"Print JSON."`
}

// Run drops the slot and the publication.
func (c *teardownCommand) Run(ctx context.Context, p *program.Process) error {
	steps, err := cdc.Teardown(ctx, cdc.TeardownOptions{
		DatabaseURL: c.DatabaseURL,
		Slot:        c.Names.SlotName,
		Publication: c.Names.PublicationName,
		DryRun:      c.DryRun,
		Confirm: func(steps []cdc.Step) (bool, error) {
			if c.Yes {
				return true, nil
			}
			for _, s := range steps {
				if s.State == cdc.StepPlanned {
					if err := printStep(p, p.Stderr, s); err != nil {
						return false, err
					}
				}
			}
			return p.Confirm("Drop this?")
		},
	})
	switch {
	case errors.Is(err, program.ErrNotAsked):
		return &program.UsageError{Message: "teardown asks before it drops anything, but standard input is no terminal; say --yes"}
	case errors.Is(err, cdc.ErrDeclined):
		return fmt.Errorf("teardown: %w", err)
	}
	if printErr := printSteps(p, steps, c.JSON); err == nil {
		err = printErr
	}
	return err
}
