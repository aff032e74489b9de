package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
	"walkey/internal/program"
)

type runCommand struct {
	program.Postgres `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	program.Logging  `embed:""`

	SlotName        string          `env:"SLOT_NAME" default:"walkey" placeholder:"NAME" help:"Replication slot; made when it is missing."`
	PublicationName string          `env:"PUBLICATION_NAME" default:"walkey" placeholder:"NAME" help:"Publication; made for the tables of the rules when it is missing."`
	RulesFile       string          `env:"RULES_FILE" placeholder:"FILE" help:"YAML file that says which row changes delete which keys. Default: built-in rules for public.materials."`
	InvalidatorAddr program.Address `env:"INVALIDATOR_ADDR" default:":8081" placeholder:"ADDRESS" help:"Where health and metrics are served."`

	rules *invalidate.Rules
}

// slotNames are the names that Postgres takes for a slot, without quoting.
var slotNames = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Check implements [program.Checker].
func (c *runCommand) Check(p *program.Problems) {
	if !slotNames.MatchString(c.SlotName) {
		p.Add("SLOT_NAME", "%q is no slot name; use up to 63 of a-z, 0-9 and _", c.SlotName)
	}
	if c.PublicationName == "" || len(c.PublicationName) > 63 {
		p.Add("PUBLICATION_NAME", "%q is no publication name; use 1 to 63 characters", c.PublicationName)
	}
	var err error
	if c.rules, err = invalidate.LoadRules(c.RulesFile, c.CachePrefix); err != nil {
		p.Add("RULES_FILE", "%v", err)
	}
}

// Run follows the stream and serves health and metrics until ctx ends.
func (c *runCommand) Run(ctx context.Context, p *program.Process) error {
	log, _ := c.Logger(p)
	defer func() { _ = log.Sync() }() // a terminal refuses to be synced
	options, err := c.Cache.Options(&c.Valkey, log)
	if err != nil {
		return err
	}
	following := invalidate.Options{
		DatabaseURL: c.DatabaseURL,
		Slot:        c.SlotName,
		Publication: c.PublicationName,
		Rules:       c.rules,
		Metrics:     invalidate.NewMetrics(),
		Logger:      log,
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
	server, err := program.Listen(ctx, program.ServerOptions{Name: "health and metrics", Addr: c.InvalidatorAddr, Handler: handler(following.Metrics), Logger: log})
	if err != nil {
		return err
	}
	log.Info("started", zap.Stringer("addr", server.Addr()), zap.String("slot", c.SlotName), zap.String("publication", c.PublicationName))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx) })
	group.Go(func() error { return invalidate.Run(ctx, following) })
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// handler answers health questions and gives the metrics.
func handler(metrics *invalidate.Metrics) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", program.Healthz())
	mux.Handle("GET /readyz", program.Readyz(program.Check{Name: "slot", Test: func(context.Context) error {
		if metrics.Role() == "starting" {
			return errors.New("neither holds the replication slot nor stands by for it")
		}
		return nil
	}}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
