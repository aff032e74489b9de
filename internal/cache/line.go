package cache

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"walkey/internal/pace"
)

// lookAtLines is the time between two looks at the lines. It is a multiple of the time between two readings of the heartbeat, so that
// both fall together.
const lookAtLines = 400 * time.Millisecond

// A line is a client with one connection, which is closed when something is asked and nothing at all has come for a while: the server
// or the link is gone, without a word. Rueidis would find that out by pings, but they take a timer for each client, which wakes an idle
// process up more often than all that it has to do; and while calls are under way, silence says as much as a ping that is not answered.
// While none are, it is the kernel that asks whether the other side is there (SO_KEEPALIVE).
//
// Calls are those of the methods below; this package uses no others.
type line struct {
	rueidis.Client
	patience int // how many looks silence may last

	asked   atomic.Int64  // calls under way
	owing   atomic.Bool   // a call was given up, so an answer is still to come
	heard   atomic.Uint64 // rises with all that comes in, and with each new connection
	present atomic.Pointer[lineConn]

	// Of the goroutine that looks.
	last    uint64 // heard, at the last look
	silent  int    // looks in a row at which something was asked and nothing had come
	suspect *lineConn
}

// connectLine is connect for a line. Silence may last for as long as a ping might take, rounded up to looks.
func connectLine(o rueidis.ClientOption, log *zap.Logger) (rueidis.Client, error) {
	l := &line{patience: int((o.ConnWriteTimeout + lookAtLines - 1) / lookAtLines)}
	o.Dialer.KeepAlive = -1 // no pings; see dial
	dial := o.DialCtxFn
	o.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		c, err := dial(ctx, address, d, t)
		if err != nil {
			return nil, err
		}
		counting := &lineConn{c, &l.heard}
		l.present.Store(counting)
		l.heard.Add(1)
		return counting, nil
	}
	var err error
	if l.Client, err = connect(o, log); err != nil {
		return nil, err
	}
	return l, nil
}

// lines are the clients of a primary that are lines.
func (n *node) lines() (lines []*line) {
	clients := []rueidis.Client{n.writer}
	if n.reader != nil {
		clients = append(clients, n.reader.client())
	}
	for _, client := range clients {
		if l, ok := client.(*line); ok {
			lines = append(lines, l)
		}
	}
	return lines
}

// watchLines looks at the lines until the ticker stops.
func (t *topology) watchLines(ticker *pace.Ticker) {
	for ticker.Wait() {
		for _, n := range t.present.Load().nodes {
			for _, l := range n.lines() {
				l.look()
			}
		}
	}
}

// lineConn counts what comes in.
type lineConn struct {
	net.Conn
	heard *atomic.Uint64
}

// Read implements net.Conn.
func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Add(1)
	}
	return n, err
}

// look is called every lookAtLines. It counts looks and not time: a process that stood still has heard nothing meanwhile.
func (l *line) look() {
	heard := l.heard.Load()
	if heard != l.last {
		l.owing.Store(false)
	}
	if heard != l.last || l.asked.Load() == 0 && !l.owing.Load() {
		l.last, l.silent, l.suspect = heard, 0, nil
		return
	}
	if l.silent++; l.silent == 1 {
		l.suspect = l.present.Load()
	}
	if l.silent > l.patience && l.suspect != nil {
		_ = l.suspect.Close() // every call on it ends with an error, and the next one connects anew
		l.silent, l.suspect = 0, nil
	}
}

// over ends a call.
func (l *line) over(err error) {
	if gaveUp(err) {
		l.owing.Store(true)
	}
	l.asked.Add(-1)
}

// Do implements rueidis.Client.
func (l *line) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	l.asked.Add(1)
	reply := l.Client.Do(ctx, command)
	l.over(reply.NonRedisError())
	return reply
}

// DoMulti implements rueidis.Client.
func (l *line) DoMulti(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	l.asked.Add(1)
	replies := l.Client.DoMulti(ctx, commands...)
	l.over(replies[len(replies)-1].NonRedisError())
	return replies
}

// DoCache implements rueidis.Client.
func (l *line) DoCache(ctx context.Context, command rueidis.Cacheable, ttl time.Duration) rueidis.RedisResult {
	l.asked.Add(1)
	reply := l.Client.DoCache(ctx, command, ttl)
	l.over(reply.NonRedisError())
	return reply
}
