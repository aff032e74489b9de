package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walkey/internal/api"
	"walkey/internal/cache"
	"walkey/internal/footprint"
	"walkey/internal/program"
	"walkey/internal/tracing"
)

// serve is the sub-command that answers HTTP until it is told to stop.
type serve struct {
	program.Postgres `embed:""`
	program.Replica  `embed:""`
	program.Valkey   `embed:""`
	program.Cache    `embed:""`
	program.Logging  `embed:""`

	Tracing tracing.Options `embed:""`

	Addr         program.Address `name:"api-addr" env:"API_ADDR" default:":8080" placeholder:"ADDR" help:"Address of the public API."`
	CookieSecure bool            `name:"api-cookie-secure" env:"API_COOKIE_SECURE" default:"true" negatable:"" help:"Let browsers send the session's cookie by TLS only. Turn it off only where the API is reached without."`
	CORSOrigins  []string        `name:"api-cors-origins" env:"API_CORS_ORIGINS" placeholder:"ORIGIN,..." help:"Origins whose pages may call the API from a browser, such as https://example.org; * lets any page read, without cookies. Default: none."`
	Proxies      []string        `name:"api-trusted-proxies" env:"API_TRUSTED_PROXIES" placeholder:"NETWORK,..." help:"Networks of proxies whose X-Forwarded-For names the client, for the limit on logins: 10.0.0.0/8. Default: none."`

	LocalBytes program.Bytes `name:"cache-local-bytes" env:"CACHE_LOCAL_BYTES" default:"128MiB" placeholder:"BYTES" help:"What is kept in this process' memory, all together; at least 1MiB."`
	Loads      int           `name:"cache-loads" env:"CACHE_LOADS" default:"16" placeholder:"N" help:"How many loads ask Postgres at the same time."`
	LoadQueue  int           `name:"cache-load-queue" env:"CACHE_LOAD_QUEUE" default:"1000" placeholder:"N" help:"How many loads may wait for their turn; past that, answers that are not in the cache are 503."`
	AuditRate  int           `name:"audit-rate" env:"AUDIT_RATE" default:"10000" placeholder:"N" help:"One in so many hits is loaded again and compared, off the request's path, at most ten a second; 0 turns it off."`

	AdminAddr program.Address `name:"api-admin-addr" env:"API_ADMIN_ADDR" default:":9090" placeholder:"ADDR" help:"Address of /metrics, /debug/pprof/ and /loglevel. Not for the public."`
}

// maxLoads is beyond what a Postgres takes.
const maxLoads = 10_000

// Check reports origins and networks that are none.
func (c *serve) Check(p *program.Problems) {
	for _, origin := range c.CORSOrigins {
		if err := api.CheckOrigin(origin); err != nil {
			p.Add("API_CORS_ORIGINS", "%v", err)
		}
	}
	if _, err := c.proxies(); err != nil {
		p.Add("API_TRUSTED_PROXIES", "%v", err)
	}
	if c.LocalBytes < 1<<20 {
		p.Add("CACHE_LOCAL_BYTES", "must be at least 1MiB, not %d bytes", c.LocalBytes)
	}
	if c.Loads < 1 || c.Loads > maxLoads {
		p.Add("CACHE_LOADS", "must be a number from 1 to %d, not %d", maxLoads, c.Loads)
	}
	if c.AuditRate < 0 {
		p.Add("AUDIT_RATE", "must be 0 or more, not %d", c.AuditRate)
	}
	if c.LoadQueue < 1 {
		p.Add("CACHE_LOAD_QUEUE", "must be at least 1, not %d", c.LoadQueue)
	}
}

func (c *serve) proxies() (networks []netip.Prefix, err error) {
	for _, text := range c.Proxies {
		network, parseErr := netip.ParsePrefix(text)
		if parseErr != nil {
			err = errors.Join(err, fmt.Errorf("%q is not a network; write it like 10.0.0.0/8", text))
			continue
		}
		networks = append(networks, network.Masked())
	}
	return networks, err
}

// Run serves until ctx ends, then drains. It does not wait for Postgres or Valkey before it listens.
func (c *serve) Run(ctx context.Context, p *program.Process) (err error) {
	log, level := c.Logger(p)
	options, err := c.Cache.Options(&c.Valkey, log)
	if err != nil {
		return err
	}
	proxies, err := c.proxies()
	if err != nil {
		return err
	}
	options.AuditRate = c.AuditRate
	options.Copies = c.DatabaseReplicaURL != ""
	options.LocalBytes, options.Loads, options.LoadQueue = int(c.LocalBytes), c.Loads, c.LoadQueue
	source := api.StoreOptions{URL: c.DatabaseURL, ReplicaURL: c.DatabaseReplicaURL, Loads: c.Loads, Logger: log}
	if err := applySwitches(&options, &source, p.Environ); err != nil {
		return err
	}
	// What is opened here outlives ctx: requests that are being drained still need it.
	store, err := api.OpenStore(context.WithoutCancel(ctx), source)
	if err != nil {
		return err
	}
	defer store.Close()
	options.Position = store.Position
	traces, err := tracing.Open(ctx, p.Name, program.ReadBuild(p.Name).Version, log)
	if err != nil {
		return err
	}
	defer traces.Close(ctx)

	metrics := api.NewMetrics(program.Collectors(p.Name)...)
	options.OnLoad = metrics.Loaded
	kept, err := cache.Open(options)
	if err != nil {
		return err
	}
	defer kept.Close()
	store.OnNewLife(kept.Doubt)

	metrics.Register(api.CacheFigures(kept.Stats))
	metrics.Register(api.StandbyFigures(store))
	state := &state{store: store, cache: kept}
	service, err := api.New(api.Options{
		Store:          store,
		Cache:          kept,
		Sessions:       kept.Sessions(),
		Limits:         kept,
		MaxStaleness:   options.MaxStaleness,
		InsecureCookie: !c.CookieSecure,
		Origins:        c.CORSOrigins,
		Proxies:        proxies,
		Metrics:        metrics,
		Tracer:         traces.Tracer(),
		Logger:         log,
		Healthz:        program.Healthz(),
		Readyz:         program.Readyz(state.checks()...),
	})
	if err != nil {
		return err
	}

	public, err := program.Listen(ctx, program.ServerOptions{Name: "public API", Addr: c.Addr, Handler: service, Logger: log})
	if err != nil {
		return err
	}
	admin, err := program.Listen(ctx, program.ServerOptions{Name: "admin API", Addr: c.AdminAddr, Handler: api.Admin(metrics, level), Streams: true, Logger: log})
	if err != nil {
		return errors.Join(err, public.Close())
	}
	log.Info("listening", zap.Stringer("api", public.Addr()), zap.Stringer("admin", admin.Addr()))

	group, ctx := errgroup.WithContext(ctx)
	stopNotice := context.AfterFunc(ctx, func() { state.stopping.Store(true) })
	defer stopNotice()
	group.Go(func() error { return public.Serve(ctx) })
	group.Go(func() error { return admin.Serve(ctx) })
	group.Go(func() error {
		footprint.Keep(ctx, footprint.Options{Environ: p.Environ, Early: true, Started: state.migrated.Load, Logger: log})
		return nil
	})
	group.Go(func() error {
		kept.Present(ctx, presence(p.Name, public.Addr()))
		return nil
	})
	group.Go(func() error {
		if _, err := migrateWhenReachable(ctx, store, log); err != nil {
			if ctx.Err() != nil {
				return nil // asked to stop before the database was there
			}
			return err
		}
		service.Migrated()
		state.migrated.Store(true)
		log.Info("ready")
		return nil
	})
	err = group.Wait()
	log.Info("stopped")
	return err
}

// presence is how this process is known to those who look after all of them.
func presence(name string, addr net.Addr) cache.Presence {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return cache.Presence{Host: host, Address: addr.String(), Version: program.ReadBuild(name).Version, Since: time.Now().UTC()}
}

// state is what readiness depends on.
type state struct {
	store    *api.Store
	cache    *cache.Cache
	migrated atomic.Bool
	stopping atomic.Bool
}

func (s *state) checks() []program.Check {
	checks := []program.Check{
		{Name: "serving", Test: func(context.Context) error {
			if s.stopping.Load() {
				return errors.New("shutting down")
			}
			return nil
		}},
		{Name: "schema", Test: func(context.Context) error {
			if !s.migrated.Load() {
				return errors.New("not migrated yet")
			}
			return nil
		}},
		{Name: "postgres", Test: func(ctx context.Context) error {
			if s.store.Ping(ctx) != nil {
				return errors.New("does not answer") // the reason names hosts and users, and the public may read this
			}
			return nil
		}},
		{Name: "cache", Optional: true, Test: func(context.Context) error {
			if trusted, reason := s.cache.Trusted(); !trusted {
				return errors.New(reason)
			}
			return nil
		}},
		{Name: "local copies", Optional: true, Test: func(context.Context) error {
			if !s.cache.Tracked() {
				return errors.New("CLIENT TRACKING is refused: every hit asks Valkey")
			}
			return nil
		}},
	}
	if _, there := s.store.Standby(); there {
		checks = append(checks, program.Check{Name: "standby", Optional: true, Test: func(context.Context) error {
			reason, _ := s.store.Standby()
			return reason
		}})
	}
	return checks
}
