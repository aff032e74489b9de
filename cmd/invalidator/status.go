package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/console"
	"walkey/internal/program"
	"walkey/internal/status"
)

// watchEvery is the time between two reports of --watch.
const watchEvery = time.Second

type statusCommand struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`

	Names   names   `embed:""`
	Serving serving `embed:""`

	Watch bool `short:"w" help:"Go on, with a report each second; off a terminal, with a line for each change."`
	JSON  bool `name:"json" help:"Print JSON; with --watch, a line for each report."`
}

// Run asks the running invalidator, or the servers when there is none, and prints.
func (c *statusCommand) Run(ctx context.Context, p *program.Process) error {
	options, err := c.Cache.Options(&c.Valkey, zap.NewNop()) // what the client would log is in the report
	if err != nil {
		return err
	}
	eraser, err := cache.OpenEraser(options)
	if err != nil {
		return fmt.Errorf("open Valkey: %w", err)
	}
	defer eraser.Close()
	client := console.NewClient(string(c.Serving.InvalidatorAddr))
	defer client.Close()
	collector := status.NewCollector(status.Options{DatabaseURL: c.DatabaseURL, Slot: c.Names.SlotName, Eraser: eraser, MaxStaleness: c.MaxStaleness})
	defer collector.Close()
	out := reportPrinter{process: p, json: c.JSON, watch: c.Watch}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		r := c.report(ctx, client, collector)
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		if err := out.print(&r); err != nil {
			return err
		}
		if !c.Watch {
			if r.Colour == status.Red {
				return errors.New("status: " + string(r.State))
			}
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// report comes from the invalidator that serves the same slot, or from the servers.
func (c *statusCommand) report(ctx context.Context, client *console.Client, collector *status.Collector) status.Report {
	if r, err := client.Report(ctx); err == nil && r.Slot.Name == c.Names.SlotName {
		return r
	}
	return collector.Collect(ctx, nil)
}

// reportPrinter prints one report after the other.
type reportPrinter struct {
	process *program.Process
	json    bool
	watch   bool
	last    string
}

func (o *reportPrinter) print(r *status.Report) error {
	p := o.process
	if o.json {
		return program.PrintJSON(p.Stdout, r)
	}
	if !o.watch {
		return write(p.Stdout, o.text(r))
	}
	if p.OnTerminal(p.Stdout) {
		// From the top of the screen, over what stands there, and nothing below: it does not flicker.
		lines := strings.ReplaceAll(o.text(r), "\n", "\x1b[K\n")
		return write(p.Stdout, "\x1b[H"+lines+"\x1b[J")
	}
	if line := headline(r); line != o.last {
		o.last = line
		return write(p.Stdout, r.At.Format(time.RFC3339)+" "+line+"\n")
	}
	return nil
}

func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// headline is a report in a line.
func headline(r *status.Report) string {
	line := string(r.State) + ": " + r.Sentence
	if r.Reason != "" {
		line += " (" + r.Reason + ")"
	}
	return printable(line)
}

// text is a report for people.
func (o *reportPrinter) text(r *status.Report) string {
	p := o.process
	colours := map[status.Colour]program.Colour{status.Green: program.Green, status.Yellow: program.Yellow, status.Red: program.Red}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", p.Paint(p.Stdout, colours[r.Colour], "● "+string(r.State)), r.Sentence)
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s\n", printable(r.Reason))
	}
	for _, remark := range r.Remarks {
		if remark != r.Reason {
			fmt.Fprintf(&b, "  %s\n", printable(remark))
		}
	}
	b.WriteByte('\n')
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, parts ...string) {
		parts = slicesWithout(parts)
		if len(parts) > 0 {
			fmt.Fprintf(table, "%s\t%s\n", name, printable(strings.Join(parts, ", ")))
		}
	}
	row("invalidator", processFacts(r)...)
	row("stream", streamFacts(&r.Stream)...)
	row("slot", slotFacts(&r.Slot, r.Postgres.Up)...)
	row("Postgres", r.Postgres.Version, wrong(r.Postgres.Up, r.Postgres.Error))
	if !r.Valkey.Up {
		row("Valkey", wrong(false, r.Valkey.Error))
	}
	for _, n := range r.Valkey.Nodes {
		row("Valkey", nodeFacts(&n)...)
	}
	for _, a := range r.APIs {
		row("api", apiFacts(&a)...)
	}
	_ = table.Flush() // into memory
	return b.String()
}

func slicesWithout(parts []string) (full []string) {
	for _, part := range parts {
		if part != "" {
			full = append(full, part)
		}
	}
	return full
}

func wrong(up bool, reason string) string {
	if up {
		return ""
	}
	return "does not answer: " + reason
}

func processFacts(r *status.Report) []string {
	p := r.Process
	if p == nil {
		return []string{"none answers here: asked Postgres and Valkey instead"}
	}
	return []string{
		fmt.Sprintf("%s for %s", p.Role, status.Seconds(r.At.Sub(p.RoleSince))), "on " + p.Host, p.Version,
		status.Count(int(p.Transactions), "transaction"), status.Count(int(p.Keys), "key") + " deleted",
	}
}

func streamFacts(s *status.Stream) []string {
	var parts []string
	if s.LagSeconds != nil {
		parts = append(parts, "lag "+seconds(*s.LagSeconds))
	}
	if s.LagBytes != nil {
		parts = append(parts, status.Bytes(*s.LagBytes)+" behind")
	}
	for _, position := range [][2]string{{"received", s.Received}, {"deleted", s.Deleted}, {"confirmed", s.Confirmed}, {"the log ends at", s.WALEnd}} {
		if position[1] != "" {
			parts = append(parts, position[0]+" "+position[1])
		}
	}
	if s.Held > 0 {
		parts = append(parts, status.Count(s.Held, "transaction")+" not visible yet")
	}
	return parts
}

func slotFacts(s *status.Slot, known bool) []string {
	switch {
	case !known:
		return []string{s.Name, "not known"}
	case !s.Exists:
		return []string{s.Name, "does not exist"}
	}
	holder := "held by nobody"
	if s.Active {
		holder = fmt.Sprintf("held by process %d of the server", s.PID)
	}
	limit := "no limit"
	if s.Safe != nil {
		limit = "given up after " + status.Bytes(*s.Safe) + " more"
	}
	return []string{s.Name, holder, "keeps " + status.Bytes(s.Retained) + " of the log", limit, s.Status}
}

func nodeFacts(n *status.Node) []string {
	memory := status.Bytes(n.UsedMemory) + " used, no limit"
	if n.MaxMemory > 0 {
		memory = fmt.Sprintf("%s of %s used (%s)", status.Bytes(n.UsedMemory), status.Bytes(n.MaxMemory), n.Policy)
	}
	return []string{
		n.Address, n.Product + " " + n.Version, fmt.Sprintf("ping %.1f ms", n.PingSeconds*1000), memory,
		status.Count(int(n.Evicted), "key") + " evicted", "hits " + percent(n.HitRate), status.Count(int(n.Clients), "client"),
	}
}

func apiFacts(a *status.API) []string {
	trust := "trusts the cache"
	if !a.Trusted {
		trust = "does not trust the cache: " + a.Reason
	}
	return []string{a.Address, "on " + a.Host, a.Version, trust, fmt.Sprintf("%.1f answers a second", a.PerSecond), "hits " + percent(a.RecentRate) + " lately, " + percent(a.HitRate) + " in all"}
}

func seconds(s float64) string { return status.Seconds(time.Duration(s * float64(time.Second))) }

func percent(part *float64) string {
	if part == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100**part)
}
