package cache

import (
	"context"
	"fmt"
	"sync"
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

// An Address is one place in Valkey: a string key, or one field of a hash. Make it once for what is asked often.
type Address struct {
	key     string // full key
	field   string
	isField bool
}

// A Cache is the reader's half. It is safe for concurrent use.
type Cache struct {
	reader *reader        // lookups and the heartbeat
	writer rueidis.Client // leases, fills, plain writes

	prefix     string
	heartbeat  string // full key
	progress   string // full key
	coding     byte
	defaultTTL time.Duration
	patience   time.Duration // for another process' load; waitForOther but in tests
	log        *zap.Logger
	start      time.Time // the monotonic clock's zero
	onLoad     func(took time.Duration)

	guard   *guard
	reached reached
	waiters waiters
	tokens  *tokens
	decoded *decodedBodies
	kept    keptValues
	flights flights
	singles singles
	windows windows
	counts  counts

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
		heartbeat:  FullKey(o.Prefix, heartbeatName),
		progress:   FullKey(o.Prefix, progressName),
		coding:     coding,
		defaultTTL: o.DefaultTTL,
		patience:   waitForOther,
		log:        o.Logger,
		start:      time.Now(),
		onLoad:     o.OnLoad,
		guard:      newGuard(o),
		tokens:     newTokens(o.Switches.NoTokenPerLoad),
		decoded:    newDecodedBodies(o.LocalBytes / 4),
		kept:       keptValues{max: o.MaxStaleness, limit: o.LocalBytes / 4, byAt: make(map[Address]*keptValue)},
		flights:    flights{gathering: make(map[Address]*flight), loading: make(map[permit]*flight)},
		singles:    singles{byAt: make(map[Address]*single)},
	}
	c.life, c.stop = context.WithCancel(context.Background())
	c.writing, c.written = context.WithCancel(context.Background())
	c.windows.life = c.life
	ended, end := context.WithCancel(context.Background())
	end()
	c.atOnce = ended

	c.reader, err = openReader(readerOptions(o, c.dialling, c.pushed), o.Logger)
	if err == nil {
		c.writer, err = connect(writerOptions(o), o.Logger)
	}
	if err != nil {
		if c.reader != nil {
			c.reader.close()
		}
		c.stop()
		c.written()
		return nil, fmt.Errorf("set up the connection to Valkey: %w", err)
	}
	c.following.Go(c.follow)
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
	c.following.Wait()
	c.loads.Wait()
	c.written()
	c.reader.close()
	c.writer.Close()
}

// At is the address of a key, which is given without the prefix.
func (c *Cache) At(key string) Address {
	return Address{key: FullKey(c.prefix, key)}
}

// Field is the address of one field of a hash, whose key is given without the prefix. One delete of the key empties all
// of them.
func (c *Cache) Field(key, field string) Address {
	return Address{key: FullKey(c.prefix, key), field: field, isField: true}
}

// now is the monotonic clock.
func (c *Cache) now() time.Duration { return time.Since(c.start) }

// Doubt says that the source of loaders may not be the one it was: it was restarted, or another server is in its place. Call it
// before anything is loaded from there. Until heartbeats that are proved from now on are seen, nothing is served from the cache,
// and nothing whose load began before is stored: a source that comes and goes before the eraser has noticed leaves no value behind.
func (c *Cache) Doubt() { c.guard.revoke() }

// dialling is called before the reader connects, by whoever needs the connection.
func (c *Cache) dialling() {
	c.counts.connects.Add(1)
	c.guard.revoke()
}

// pushed is called by the goroutine that reads the reader's connection, after local copies have been dropped: of keys, or
// of everything (nil), when the server was emptied or the connection is gone.
func (c *Cache) pushed(keys []rueidis.RedisMessage) {
	if keys == nil {
		c.guard.revoke()
	}
	c.counts.invalidations.Add(uint64(max(len(keys), 1)))
	c.waiters.wake(keys)
}
