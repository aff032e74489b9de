// Bench measures Walkey's programs on real servers, each figure beside its floor (the plainest program that could do it) and beside
// what a user would pick instead, and prints a table. What is compared runs alternately in one run, and what counts is the ratio.
//
// It guarantees that every figure comes from the built programs and that a run which can't measure something fails. It judges
// no figure: whether a goal was met is in the table and not in the exit code. Figures of a machine that does something else at the
// same time are worth little; the ratios suffer less.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the program. A first argument that names a floor makes this process that floor.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		if floor, ok := floors[args[0]]; ok {
			return floor(ctx, args[1:])
		}
	}
	return measureAll(ctx, args, out)
}

// bench is one run.
type bench struct {
	short    bool
	rounds   int
	programs string // folder of the built programs
	before   string // folder of other built programs to measure too, where that is of use; empty mostly
	out      io.Writer
	curves   []curve
}

// experiment gives some rows of the table.
type experiment struct {
	name string
	run  func(context.Context, *bench) ([]row, error)
}

var experiments = []experiment{
	{"http", measureHTTP},
	{"hit", measureHits},
	{"cold", measureCold},
	{"commit-quiet", measureCommits},
	{"commit-busy", measureBusyCommits},
	{"fresh", measureFresh},
	{"backlog", measureBacklog},
	{"transaction", measureTransaction},
	{"deletes", measureDeletes},
	{"processes", measureProcesses},
	{"growth", measureGrowth},
}

// measureAll runs the experiments.
func measureAll(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	short := flags.Bool("short", false, "few rounds of little work: shows that everything can be measured, not how fast it is")
	rounds := flags.Int("rounds", 5, "how often what is compared takes turns")
	only := flags.String("only", ".", "regular expression of the experiments to run")
	markdown := flags.String("markdown", "", "file to write the table to, as Markdown")
	plots := flags.String("plots", "", "folder to write the plots to")
	before := flags.String("before", "", "folder with an api and an invalidator of before a change, to measure commits with too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	b := &bench{short: *short, rounds: *rounds, before: *before, out: out}
	if b.rounds < 1 {
		return errors.New("-rounds must be 1 or more")
	}
	if b.short {
		b.rounds = 1
	}
	folder, remove, err := embedded.TempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	b.programs = folder
	if err := stack.Build(ctx, folder, "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w"); err != nil { // as they are shipped
		return err
	}
	machine := describeMachine(ctx)
	fmt.Fprintln(out, machine)
	var rows []row
	began := time.Now()
	for _, e := range experiments {
		if !wanted.MatchString(e.name) {
			continue
		}
		start := time.Now()
		got, err := e.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		fmt.Fprintf(out, "\n%s, %s\n", e.name, time.Since(start).Round(time.Second))
		printTable(out, got)
		rows = append(rows, got...)
	}
	fmt.Fprintf(out, "\n%s in all\n", time.Since(began).Round(time.Second))
	if *markdown != "" {
		if err := os.WriteFile(*markdown, []byte(markdownTable(machine, rows)), 0o644); err != nil {
			return err
		}
	}
	if *plots != "" {
		for _, c := range b.curves {
			if err := os.WriteFile(filepath.Join(*plots, c.file), []byte(c.svg()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
