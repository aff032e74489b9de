package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walkey/internal/cache"
	"walkey/internal/console"
	"walkey/internal/footprint"
	"walkey/internal/invalidate"
	"walkey/internal/program"
	"walkey/internal/status"
	"walkey/internal/tracing"
	"walkey/internal/tracing/transactions"
)

type runCommand struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	program.Logging  `embed:""`

	Names   names           `embed:""`
	Rules   rules           `embed:""`
	Serving serving         `embed:""`
	Tracing tracing.Options `embed:""`

	DecodingWorkMem string `env:"DECODING_WORK_MEM" default:"256MB" placeholder:"SIZE" help:"What Postgres may use to decode a large transaction before it spills to disk, while this connection catches up and open ones are not streamed (logical_decoding_work_mem)."`
}

// Check implements [program.Checker].
func (c *runCommand) Check(p *program.Problems) {
	c.Rules.load(p, c.CachePrefix)
	if !memorySizes.MatchString(c.DecodingWorkMem) {
		p.Add("DECODING_WORK_MEM", "%q is no size; write a number with kB, MB or GB, such as 256MB", c.DecodingWorkMem)
	}
}

// memorySizes are the sizes that Postgres takes and that say their unit.
var memorySizes = regexp.MustCompile(`^[1-9][0-9]{0,8}(kB|MB|GB)$`)

// Run follows the stream and serves health, metrics and the dashboard until ctx ends.
func (c *runCommand) Run(ctx context.Context, p *program.Process) error {
	log, level := c.Logger(p)
	defer func() { _ = log.Sync() }() // a terminal refuses to be synced
	options, err := c.Cache.Options(&c.Valkey, log)
	if err != nil {
		return err
	}
	feed := console.NewFeed(hostname(), program.ReadBuild(p.Name).Version)
	following := invalidate.Options{
		DatabaseURL:     c.DatabaseURL,
		Slot:            c.Names.SlotName,
		Publication:     c.Names.PublicationName,
		Rules:           c.Rules.parsed,
		MaxStaleness:    c.MaxStaleness,
		DecodingWorkMem: c.DecodingWorkMem,
		Metrics:         invalidate.NewMetrics(),
		Observer:        feed,
		Logger:          log,
	}
	if err := applySwitches(&options, &following, p.Environ); err != nil {
		return err
	}
	eraser, err := cache.OpenEraser(options)
	if err != nil {
		return fmt.Errorf("open Valkey: %w", err)
	}
	defer eraser.Close()
	following.Eraser = eraser
	traces, err := tracing.Open(ctx, p.Name, program.ReadBuild(p.Name).Version, log)
	if err != nil {
		return err
	}
	defer traces.Close(ctx)
	if traces != nil {
		following.MessagePrefix = transactions.MessagePrefix
		following.Observer = invalidate.Observers(following.Observer, transactions.Observer(traces.Tracer()))
	}
	// A connection of its own: to look must not delay a delete, nor wait behind many.
	watching, err := cache.OpenEraser(options)
	if err != nil {
		return fmt.Errorf("open Valkey: %w", err)
	}
	defer watching.Close()
	collector := status.NewCollector(status.Options{DatabaseURL: c.DatabaseURL, Slot: c.Names.SlotName, Eraser: watching, MaxStaleness: c.MaxStaleness})
	defer collector.Close()
	shown := console.New(console.Options{Feed: feed, Collector: collector, Prefix: c.CachePrefix, Logger: log})
	server, err := program.Listen(ctx, program.ServerOptions{
		Name: "health, metrics and dashboard", Addr: c.Serving.InvalidatorAddr, Handler: handler(p.Name, following.Metrics, level, shown), Streams: true, Logger: log,
	})
	if err != nil {
		return err
	}
	log.Info("started", zap.Stringer("addr", server.Addr()), zap.String("slot", c.Names.SlotName), zap.String("publication", c.Names.PublicationName))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx) })
	if path := c.Rules.RulesFile; path != "" {
		file := invalidate.NewRulesFile(path, c.CachePrefix, c.Rules.parsed, following.Metrics, log)
		following.NewRules = file.Next()
		group.Go(func() error {
			file.Watch(ctx)
			return nil
		})
	}
	group.Go(func() error {
		shown.Run(ctx)
		return nil
	})
	group.Go(func() error {
		footprint.Keep(ctx, footprint.Options{Environ: p.Environ, Started: func() bool { return settled(following.Metrics) }, Logger: log})
		return nil
	})
	group.Go(func() error { return invalidate.Run(ctx, following) })
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// hostname is the name of this machine, for people.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// settled says whether the process has found its place: it follows the stream, or stands by.
func settled(metrics *invalidate.Metrics) bool { return metrics.Role() != "starting" }

// handler answers health questions, gives the metrics, shows and changes the level of the log, and shows the dashboard.
func handler(name string, metrics *invalidate.Metrics, level zap.AtomicLevel, shown *console.Console) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(append(program.Collectors(name), metrics)...)
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", program.Healthz())
	mux.Handle("GET /readyz", program.Readyz(program.Check{Name: "slot", Test: func(context.Context) error {
		if !settled(metrics) {
			return errors.New("neither holds the replication slot nor stands by for it")
		}
		return nil
	}}))
	mux.Handle("/loglevel", level)
	mux.Handle("/", shown.Handler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
