// Torture runs Walkey's programs on real servers, breaks everything in an order that chance gives, and holds every answer against
// what was committed. It ends with exit code 1 when one was wrong. See docs/guarantees.md for what counts as wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := torture(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

var errViolations = errors.New("promises were broken")

// torture is the program.
func torture(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	minutes := flags.Float64("minutes", 1, "how long faults happen")
	seed := flags.Uint64("seed", 0, "repeats the order of faults of a run that printed it; 0 draws one")
	staleness := flags.Duration("staleness", 2*time.Second, "MAX_STALENESS of the programs")
	apis := flags.Int("apis", 2, "how many api processes")
	pace := flags.Duration("pace", 0, "how long a client waits between two requests")
	topology := flags.String("topology", single, "how Valkey is put together: single, sentinel or cluster")
	clients := flags.Int("clients", 6, "how many clients each api has")
	standby := flags.Bool("standby", true, "load from a standby, too")
	streaming := flags.Bool("streaming", false, "make every fifth transaction so large that Postgres streams it while it is open")
	switches := flags.Bool("switches", false, "show what each mechanism is for: run a schedule of its own with it, and without it")
	only := flags.String("only", "", "with -switches: the one mechanism to show")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	folder, remove, err := embedded.TempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := stack.Build(ctx, folder, "-tags", "torture"); err != nil {
		return err
	}
	o := runOptions{
		world:   worldOptions{programs: folder, topology: *topology, apis: *apis, invalidators: 2, staleness: *staleness, standby: *standby, loads: overloadedLoads},
		seed:    *seed,
		clients: *clients, readPace: *pace, writePace: 10 * time.Millisecond,
	}
	if *streaming {
		o.world.switches, o.ballast = []string{streamAll}, true
	}
	if *switches {
		return showSwitches(ctx, o, *only, out)
	}
	fmt.Fprintf(out, "seed %d, MAX_STALENESS %s, Valkey: %s, %d api, 2 invalidators\n", *seed, *staleness, *topology, *apis)
	r, err := begin(ctx, o, out)
	if err != nil {
		return err
	}
	began := time.Now()
	err = r.storm(ctx, time.Duration(*minutes*float64(time.Minute)))
	err = errors.Join(err, r.end())
	r.report(time.Since(began))
	if len(r.reading.violations) > 0 {
		err = errors.Join(err, errViolations)
	}
	if err != nil {
		err = fmt.Errorf("seed %d: %w", *seed, err)
	}
	return err
}

// report prints what was seen. The run has ended.
func (r *run) report(took time.Duration) {
	reads, hits := r.reading.reads.Load(), r.reading.hits.Load()
	fmt.Fprintf(r.out, "\nreads       %d in %s, %.1f%% hits\n", reads, took.Round(time.Second), 100*float64(hits)/float64(max(reads, 1)))
	for _, status := range sortedKeys(r.reading.statuses) {
		fmt.Fprintf(r.out, "            %8d  %s\n", r.reading.statuses[status], status)
	}
	fmt.Fprintf(r.out, "no answer   %d, while Postgres or the api was down\n", r.reading.failed.Load())
	fmt.Fprintf(r.out, "commits     %d, %d rolled back, %d rows decided by a crash\n", r.writing.commits.Load(), r.writing.rollbacks.Load(), r.writing.lost.Load())
	total := 0
	for _, n := range r.count {
		total += n
	}
	fmt.Fprintf(r.out, "faults      %d\n", total)
	for _, name := range sortedKeys(r.count) {
		fmt.Fprintf(r.out, "            %8d  %s\n", r.count[name], name)
	}
	if r.writing.ballast {
		fmt.Fprintf(r.out, "streamed    %d transactions at least, while they were open\n", r.streamed)
	}
	fmt.Fprintf(r.out, "oldest      %s, of at most %s\n", r.oldest(), r.staleness)
	fmt.Fprintf(r.out, "slowest     %s, but for what waited for Postgres or a frozen api\n", time.Duration(r.reading.slowest.Load()).Round(time.Millisecond))
	fmt.Fprintf(r.out, "tokens      %d reads sent the token of a write\n", r.reading.sent.Load())
	fmt.Fprintf(r.out, "refused     %d, for want of a place among the loads\n", r.reading.refused.Load())
	fmt.Fprintf(r.out, "violations  %d\n", len(r.reading.violations))
	for _, v := range r.reading.violations[:min(len(r.reading.violations), 20)] {
		fmt.Fprintf(r.out, "            %s\n", v)
	}
	fmt.Fprintf(r.out, "seed        %d\n", r.seed)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
