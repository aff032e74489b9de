package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/doctor"
	"walkey/internal/program"
)

type doctorCommand struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	Names            names `embed:""`
	Rules            rules `embed:""`

	Sample  time.Duration `default:"1s" placeholder:"DURATION" help:"How long the growth of the WAL is watched."`
	Timeout time.Duration `default:"10s" placeholder:"DURATION" help:"How long each server may take to answer."`
	Strict  bool          `help:"Fail when there is a warning."`
	JSON    bool          `name:"json" help:"Print JSON."`
}

// Check implements [program.Checker].
func (c *doctorCommand) Check(p *program.Problems) {
	c.Rules.load(p, c.CachePrefix)
	if c.Sample < 0 {
		p.Add("--sample", "must not be negative")
	}
	if c.Timeout <= 0 {
		p.Add("--timeout", "must be more than 0")
	}
}

// Run examines and prints what it finds.
func (c *doctorCommand) Run(ctx context.Context, p *program.Process) error {
	options, err := c.Cache.Options(&c.Valkey, zap.NewNop()) // what the client would log is among the findings
	if err != nil {
		return err
	}
	eraser, err := cache.OpenEraser(options)
	if err != nil {
		return fmt.Errorf("open Valkey: %w", err)
	}
	defer eraser.Close()
	report := doctor.Run(ctx, doctor.Options{
		DatabaseURL: c.DatabaseURL,
		Slot:        c.Names.SlotName,
		Publication: c.Names.PublicationName,
		Rules:       c.Rules.parsed,
		Eraser:      eraser,
		Sample:      c.Sample,
		Timeout:     c.Timeout,
	})
	if err := printReport(p, report, c.JSON); err != nil {
		return err
	}
	switch {
	case report.Status == doctor.Fail:
		return errors.New("doctor: something does not work; see FAIL")
	case report.Status == doctor.Warn && c.Strict:
		return errors.New("doctor: there are warnings, and --strict was asked for; see WARN")
	}
	return nil
}

var statusColours = map[doctor.Status]program.Colour{doctor.Pass: program.Green, doctor.Warn: program.Yellow, doctor.Fail: program.Red, doctor.Skip: program.Grey}

func printReport(p *program.Process, r doctor.Report, asJSON bool) error {
	if asJSON {
		return program.PrintJSON(p.Stdout, r)
	}
	for _, one := range r.Checks {
		detail := strings.ReplaceAll(one.Detail, "\n", " ")
		if _, err := fmt.Fprintf(p.Stdout, "%s  %s: %s\n", p.Paint(p.Stdout, statusColours[one.Status], string(one.Status)), one.Check, detail); err != nil {
			return err
		}
		if one.Mend == "" {
			continue
		}
		if _, err := fmt.Fprintf(p.Stdout, "      mend: %s\n", one.Mend); err != nil {
			return err
		}
	}
	return nil
}
