package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"walkey/internal/shortcall"
)

const (
	dialTimeout = 300 * time.Millisecond // of one connect, TLS and the greeting included
	pingGap     = 300 * time.Millisecond // a silent connection is pinged that often, where it is no line
	idlePingGap = 3 * time.Second        // one that may be silent for long, without harm: its calls have a time of their own
	pingTimeout = time.Second            // and given up after that
)

// connectionOptions are what all clients share.
func connectionOptions(o Options, address, name string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{address},
		Username:    o.Username,
		Password:    o.Password,
		TLSConfig:   tlsFor(o.TLS, address),
		ClientName:  name,
		// With it NewClient gives a usable client although Valkey is away.
		ForceSingleClient: true,
		Dialer:            net.Dialer{Timeout: dialTimeout, KeepAlive: pingGap},
		ConnWriteTimeout:  pingTimeout,
		RetryDelay:        retryDelay,
		BlockingPoolSize:  16,
		DialCtxFn:         dial,
	}
}

// dial connects. Heartbeats come all the time, and nothing that is done for one takes as long as telling the scheduler of each call.
func dial(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout) // of TLS as well: a server that does not speak it may say nothing
	defer cancel()
	kept := *d
	kept.KeepAlive = max(kept.KeepAlive, pingGap) // of the kernel's own probes; a line has them, too
	c, err := kept.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c = shortcall.Conn(c)
	if t == nil {
		return c, nil
	}
	secured := tls.Client(c, t)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = c.Close() // it can't be used
		return nil, err
	}
	return secured, nil
}

// retryDelay lets rueidis repeat a command only for a caller that was waiting for another caller's command, when that
// one gave up. All other repeating is the business of this package: rueidis would go on for as long as the context lives.
func retryDelay(attempts int, _ rueidis.Completed, err error) time.Duration {
	if attempts <= 2 && gaveUp(err) {
		return 0
	}
	return -1
}

// gaveUp says that a call ended with its context, before its answer came.
func gaveUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// readerOptions are those of the reading client: one connection, so that replies, pushes and heartbeats are one
// ordered stream.
func readerOptions(o Options, address string, dialling func(), pushed func([]rueidis.RedisMessage)) rueidis.ClientOption {
	c := connectionOptions(o, address, "walkey-reader")
	c.AlwaysPipelining = true
	c.PipelineMultiplex = -1
	// A command that was given up holds its place until the connection is closed, and a call that finds no place
	// waits without regard to its context. So there are places for all that can come in until the guard trips.
	c.RingScaleEachConn = 12
	c.OnInvalidations = pushed
	c.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		dialling()
		return dial(ctx, address, d, t)
	}
	return c
}

// writerOptions are those of the client for leases, fills and plain writes: large values never delay pushes.
func writerOptions(o Options, address string) rueidis.ClientOption {
	c := connectionOptions(o, address, "walkey-writer")
	c.Dialer.KeepAlive = idlePingGap
	c.DisableCache = true
	c.AlwaysPipelining = true
	c.PipelineMultiplex = 1
	return c
}

// eraserOptions are those of the client for deletes and heartbeats.
func eraserOptions(o Options, address string) rueidis.ClientOption {
	c := connectionOptions(o, address, "walkey-eraser")
	c.DisableCache = true
	c.AlwaysPipelining = true
	c.PipelineMultiplex = -1
	// Deleting large values can keep Valkey busy for a while.
	c.ConnWriteTimeout = 2 * time.Second
	return c
}

// scoutOptions are those of a client that asks who serves what.
func scoutOptions(o Options, address string) rueidis.ClientOption {
	c := connectionOptions(o, address, "walkey-scout")
	c.DisableCache = true
	c.AlwaysPipelining = true
	c.PipelineMultiplex = -1
	c.RingScaleEachConn = 8
	c.ReadBufferEachConn, c.WriteBufferEachConn = 1<<12, 1<<12
	return c
}

// tlsFor lets a certificate be checked for the host of the address, where no other name is given.
func tlsFor(config *tls.Config, address string) *tls.Config {
	if config == nil || config.ServerName != "" {
		return config
	}
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	return config
}

// connect makes a client. That Valkey is away is logged and no error: the client connects when it can.
func connect(o rueidis.ClientOption, log *zap.Logger) (rueidis.Client, error) {
	client, err := rueidis.NewClient(o)
	if client == nil {
		return nil, err
	}
	if err != nil {
		log.Warn("Valkey is not reachable yet", zap.String("client", o.ClientName), zap.Error(err))
	}
	return client, nil
}
