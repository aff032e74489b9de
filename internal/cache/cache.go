package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// Content is what a loader gives: a body, which nobody changes any more, or the fact that there is nothing.
type Content struct {
	Body   []byte
	Meta   []byte // what belongs to the body and is kept beside it, uncompressed; empty mostly
	Absent bool
}

// A Loader reads the content of one address from its source. Its context is not that of a single request: other requests
// wait for the same load. A panic counts as an error.
type Loader func(ctx context.Context) (Content, error)

// A Cache is the reader's half. It is safe for concurrent use.
type Cache struct {
	topology *topology

	prefix     string
	coding     byte
	defaultTTL time.Duration
	patience   time.Duration // for another process' load; waitForOther but in tests
	answer     time.Duration // for whether a load was stored; fillAnswer but in tests
	log        *zap.Logger
	start      time.Time // the monotonic clock's zero
	onLoad     func(took time.Duration)

	waiters   waiters
	tokens    *tokens
	decoded   *decodedBodies
	kept      keptValues
	places    *places
	auditor   *auditor
	landings  *landings
	flights   flights
	foresight foresight
	singles   singles
	windows   windows
	counts    counts

	proved atomic.Int64 // the latest moment of which any primary's heartbeat was a proof, as far as follow has noted

	life    context.Context // ends when Close begins
	atOnce  context.Context // has ended: for calls that must not go out
	writing context.Context // ends when the last load is over
	stop    context.CancelFunc
	written context.CancelFunc

	closing   sync.RWMutex
	closed    bool           // guarded by closing
	loads     sync.WaitGroup // flights and other loads
	following sync.WaitGroup // follow
}

// Open makes a Cache. Only a wrong configuration is an error: Valkey may come later. Until the first heartbeats have been
// seen it answers from the sources.
func Open(o Options) (*Cache, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	coding, err := codingNumber(o.Compression)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		prefix:     o.Prefix,
		coding:     coding,
		defaultTTL: o.DefaultTTL,
		patience:   waitForOther,
		answer:     fillAnswer,
		log:        o.Logger,
		start:      time.Now(),
		onLoad:     o.OnLoad,
		tokens:     newTokens(o.Switches.NoTokenPerLoad),
		decoded:    newDecodedBodies(o.LocalBytes / decodedShare),
		kept:       keptValues{max: o.MaxStaleness, limit: o.LocalBytes / keptShare, byAt: make(map[Address]*keptValue)},
		landings:   newLandings(o.MaxStaleness, o.LocalBytes/landingsShare),
		places:     newPlaces(o.Loads, o.LoadQueue),
		auditor:    newAuditor(o),
		flights:    newFlights(),
		singles:    singles{byAt: make(map[Address]*single)},
	}
	c.life, c.stop = context.WithCancel(context.Background())
	c.writing, c.written = context.WithCancel(context.Background())
	c.windows.life = c.life
	ended, end := context.WithCancel(context.Background())
	end()
	c.atOnce = ended

	c.topology = newTopology(o, c.now)
	c.topology.make = c.connect
	c.topology.began = c.follow
	c.topology.ended = func(n *node) { n.stop() }
	if err := c.topology.open(); err != nil {
		c.stop()
		c.written()
		return nil, fmt.Errorf("set up the connection to Valkey: %w", err)
	}
	c.following.Go(func() { c.topology.watch(c.life) })
	if o.AuditRate > 0 {
		c.following.Go(c.audits)
	}
	return c, nil
}

// Close ends loads under way, waits for them, and closes the connections.
func (c *Cache) Close() {
	c.closing.Lock()
	closed := c.closed
	c.closed = true
	c.closing.Unlock()
	if closed {
		return
	}
	c.stop()
	c.topology.close()
	c.following.Wait()
	c.loads.Wait()
	c.written()
	c.topology.closeClients()
}

// At is the address of a key, which is given without the prefix.
func (c *Cache) At(key string) Address {
	return keyAddress(FullKey(c.prefix, key))
}

// Field is the address of one field of a hash, whose key is given without the prefix. One delete of the key empties all
// of them.
func (c *Cache) Field(key, field string) Address {
	return fieldAddress(FullKey(c.prefix, key), field)
}

// now is the monotonic clock.
func (c *Cache) now() time.Duration { return time.Since(c.start) }

// Doubt says that the source of loaders may not be the one it was: it was restarted, or another server is in its place. Call it
// before anything is loaded from there. Until heartbeats that are proved from now on are seen, nothing is served from the cache,
// and nothing whose load began before is stored: a source that comes and goes before the eraser has noticed leaves no value behind.
func (c *Cache) Doubt() {
	for _, n := range c.topology.present.Load().nodes {
		n.guard.revoke()
	}
}

// at is who serves an address.
func (c *Cache) at(at Address) *serving { return c.topology.present.Load().at(at.slot) }

// connect makes the clients of one primary.
func (c *Cache) connect(address string, primaries int) (*node, error) {
	o := c.topology.options
	n := &node{address: address, guard: newGuard(o)}
	var err error
	o.LocalBytes = max(o.LocalBytes/primaries, 1<<20)
	if n.reader, err = openReader(readerOptions(o, address, func() { c.dialling(n) }, func(keys []rueidis.RedisMessage) { c.pushed(n, keys) }), o.LocalBytes/copiesShare, c.start, o.Logger); err != nil {
		return nil, err
	}
	if n.writer, err = connect(writerOptions(o, address), o.Logger); err != nil {
		n.reader.close()
		return nil, err
	}
	return n, nil
}

// dialling is called before a reader connects, by whoever needs the connection.
func (c *Cache) dialling(n *node) {
	c.counts.connects.Add(1)
	n.guard.revoke()
}

// pushed is called by the goroutine that reads a reader's connection, after local copies have been dropped: of keys, or
// of everything (nil), when the server was emptied or the connection is gone.
func (c *Cache) pushed(n *node, keys []rueidis.RedisMessage) {
	if keys == nil {
		n.guard.revoke()
	}
	c.counts.invalidations.Add(uint64(max(len(keys), 1)))
	c.waiters.wake(keys)
}
