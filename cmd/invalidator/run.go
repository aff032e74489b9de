package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
	"walkey/internal/program"
	"walkey/internal/tracing"
)

type runCommand struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	program.Logging  `embed:""`

	Names   names           `embed:""`
	Rules   rules           `embed:""`
	Tracing tracing.Options `embed:""`

	DecodingWorkMem string          `env:"DECODING_WORK_MEM" default:"256MB" placeholder:"SIZE" help:"What Postgres may use to decode a large transaction for this connection before it spills to disk (logical_decoding_work_mem)."`
	InvalidatorAddr program.Address `env:"INVALIDATOR_ADDR" default:":8081" placeholder:"ADDRESS" help:"Where health, metrics and /loglevel are served. Not for the public."`
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

// Run follows the stream and serves health and metrics until ctx ends.
func (c *runCommand) Run(ctx context.Context, p *program.Process) error {
	log, level := c.Logger(p)
	defer func() { _ = log.Sync() }() // a terminal refuses to be synced
	options, err := c.Cache.Options(&c.Valkey, log)
	if err != nil {
		return err
	}
	following := invalidate.Options{
		DatabaseURL:     c.DatabaseURL,
		Slot:            c.Names.SlotName,
		Publication:     c.Names.PublicationName,
		Rules:           c.Rules.parsed,
		DecodingWorkMem: c.DecodingWorkMem,
		Metrics:         invalidate.NewMetrics(),
		Logger:          log,
	}
	if err := applySwitches(&following, p.Environ); err != nil {
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
		following.MessagePrefix = tracing.MessagePrefix
		following.Observer = invalidate.Observers(following.Observer, traces.Transactions())
	}
	server, err := program.Listen(ctx, program.ServerOptions{Name: "health and metrics", Addr: c.InvalidatorAddr, Handler: handler(p.Name, following.Metrics, level), Logger: log})
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
	group.Go(func() error { return invalidate.Run(ctx, following) })
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// handler answers health questions, gives the metrics, and shows and changes the level of the log.
func handler(name string, metrics *invalidate.Metrics, level zap.AtomicLevel) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(append(program.Collectors(name), metrics)...)
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", program.Healthz())
	mux.Handle("GET /readyz", program.Readyz(program.Check{Name: "slot", Test: func(context.Context) error {
		if metrics.Role() == "starting" {
			return errors.New("neither holds the replication slot nor stands by for it")
		}
		return nil
	}}))
	mux.Handle("/loglevel", level)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
