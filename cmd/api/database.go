package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"walkey/internal/api"
	"walkey/internal/program"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// pingTimeout bounds one attempt where the server takes the connection and says nothing.
	pingTimeout = 5 * time.Second
	maxRows     = 1_000_000
)

// migrateWhenReachable waits until the database answers, brings its schema up to date and gives the number of migrations
// applied. An outage on the way is waited for too; what the database refuses is an error.
func migrateWhenReachable(ctx context.Context, store *api.Store, log *zap.Logger) (applied int, err error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = firstRetry, lastRetry
	var last error
	applied, err = backoff.Retry(ctx, func() (int, error) {
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if last = store.Ping(ping); last != nil {
			return 0, last
		}
		var applied int
		if applied, last = store.Migrate(ctx, log); last != nil && !api.Unreachable(last) {
			return 0, backoff.Permanent(last)
		}
		return applied, last
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		log.Warn("waiting for the database", zap.Error(err), zap.Duration("next", next))
	}))
	if err != nil && ctx.Err() != nil && last != nil {
		return 0, fmt.Errorf("the database did not answer in time: %w", last)
	}
	return applied, err
}

// database is what the sub-commands that only need Postgres share.
type database struct {
	program.Postgres `embed:""`
	program.Logging  `embed:""`

	Wait time.Duration `default:"30s" placeholder:"DURATION" help:"How long to wait for the database to answer."`
}

// open gives the store with the schema up to date, and the number of migrations that it took.
func (c *database) open(ctx context.Context, p *program.Process) (store *api.Store, applied int, err error) {
	log, _ := c.Logger(p)
	store, err = api.OpenStore(ctx, api.StoreOptions{URL: c.DatabaseURL, Logger: log})
	if err != nil {
		return nil, 0, err
	}
	wait, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	if applied, err = migrateWhenReachable(wait, store, log); err != nil {
		store.Close()
		return nil, 0, err
	}
	return store, applied, nil
}

// migrate is the sub-command that brings the schema up to date.
type migrate struct {
	database `embed:""`
	JSON     bool `name:"json" help:"Print JSON."`
}

// Run migrates.
func (c *migrate) Run(ctx context.Context, p *program.Process) error {
	store, applied, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	store.Close()
	switch {
	case c.JSON:
		return program.PrintJSON(p.Stdout, struct {
			Applied int `json:"applied"`
		}{applied})
	case applied == 0:
		_, err = fmt.Fprintln(p.Stdout, "The schema is up to date.")
	default:
		_, err = fmt.Fprintf(p.Stdout, "Migrations applied: %d. The schema is up to date.\n", applied)
	}
	return err
}

// seed is the sub-command that puts in sample rows.
type seed struct {
	database `embed:""`
	Rows     int  `default:"12" placeholder:"N" help:"How many rows."`
	JSON     bool `name:"json" help:"Print JSON."`
}

// Check reports a number of rows that is none.
func (c *seed) Check(p *program.Problems) {
	if c.Rows < 1 || c.Rows > maxRows {
		p.Add("--rows", "must be a number from 1 to %d, not %d", maxRows, c.Rows)
	}
}

// Run seeds.
func (c *seed) Run(ctx context.Context, p *program.Process) error {
	store, _, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer store.Close()
	result, err := store.Seed(ctx, c.Rows)
	if err != nil {
		return err
	}
	if c.JSON {
		return program.PrintJSON(p.Stdout, result)
	}
	if result.Added == 0 {
		_, err = fmt.Fprintf(p.Stdout, "The table holds %d materials already; nothing was added.\n", result.Present)
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "Added %d materials.\n", result.Added)
	return err
}
