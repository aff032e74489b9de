package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap/zaptest"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/faultproxy"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

const deadline = 20 * time.Second // for what happens in milliseconds on a quiet machine

// bundle is a Valkey with someone who deletes and beats.
type bundle struct {
	t       testing.TB
	valkey  *embedded.Valkey
	options Options
	eraser  *Eraser
	raw     rueidis.Client
	heart   *heart
}

func setup(t testing.TB, settings ...string) *bundle {
	t.Helper()
	b := &bundle{t: t, valkey: embeddedtest.Valkey(t, settings...)}
	b.options = Options{
		Host: b.valkey.Host(), Port: b.valkey.Port(), Prefix: "p", MaxStaleness: 5 * time.Second,
		Logger: zaptest.NewLogger(t, zaptest.WrapOptions()),
	}
	b.eraser = b.openEraser()
	raw, err := rueidis.NewClient(writerOptions(b.options, b.valkey.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	b.raw = raw
	return b
}

// only is the primary where there is one.
func (c *Cache) only() *node { return c.topology.present.Load().nodes[0] }

func (b *bundle) openEraser(change ...func(*Options)) *Eraser {
	b.t.Helper()
	o := b.options
	for _, f := range change {
		f(&o)
	}
	e, err := OpenEraser(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(e.Close)
	return e
}

// open opens a cache, another process as it were.
func (b *bundle) open(change ...func(*Options)) *Cache {
	b.t.Helper()
	o := b.options
	for _, f := range change {
		f(&o)
	}
	c, err := Open(o)
	if err != nil {
		b.t.Fatal(err)
	}
	c.answer = deadline // a busy machine must not make a stored value look like one that was refused
	b.t.Cleanup(c.Close)
	return c
}

// trusted opens caches, starts the heart, and waits until all are trusted.
func (b *bundle) trusted(change ...func(*Options)) *Cache {
	b.t.Helper()
	c := b.open(change...)
	b.beat()
	b.awaitTrust(c)
	return c
}

func (b *bundle) awaitTrust(c *Cache) {
	b.t.Helper()
	await10(b.t, "trust", func() bool { ok, _ := c.Trusted(); return ok })
}

func (b *bundle) awaitDistrust(c *Cache) {
	b.t.Helper()
	await10(b.t, "distrust", func() bool { ok, _ := c.Trusted(); return !ok })
}

// through makes options go through a proxy.
func through(p *faultproxy.Proxy) func(*Options) {
	return func(o *Options) { o.Host, o.Port = p.Host(), p.Port() }
}

func within(d time.Duration) func(*Options) {
	return func(o *Options) { o.MaxStaleness = d }
}

func (b *bundle) proxy() *faultproxy.Proxy {
	b.t.Helper()
	p, err := faultproxy.Listen(b.t.Context(), b.valkey.Addr())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return p
}

// delete deletes full keys as the eraser does.
func (b *bundle) delete(at ...Address) {
	b.t.Helper()
	keys := make([]string, len(at))
	for i := range at {
		keys[i] = at[i].key
	}
	if _, err := b.eraser.Delete(b.t.Context(), keys); err != nil {
		b.t.Fatal(err)
	}
}

// do runs a command given as words.
func (b *bundle) do(words ...string) rueidis.RedisResult {
	b.t.Helper()
	return b.raw.Do(b.t.Context(), b.raw.B().Arbitrary(words...).Build())
}

func (b *bundle) must(words ...string) {
	b.t.Helper()
	if err := b.do(words...).Error(); err != nil && !rueidis.IsRedisNil(err) {
		b.t.Fatalf("%q: %v", strings.Join(words, " "), err)
	}
}

// exists says that a full key is there.
func (b *bundle) exists(key string) bool {
	b.t.Helper()
	n, err := b.do("EXISTS", key).AsInt64()
	if err != nil {
		b.t.Fatal(err)
	}
	return n == 1
}

// stored is what Valkey holds at an address.
func (b *bundle) stored(at Address) (string, error) {
	if at.isField {
		return b.do("HGET", at.key, at.field).ToString()
	}
	return b.do("GET", at.key).ToString()
}

// heart beats like an invalidator that has nothing to do.
type heart struct {
	eraser  *Eraser
	paused  atomic.Bool
	claims  atomic.Int64
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

const beatEvery = 50 * time.Millisecond

func (b *bundle) beat() {
	b.t.Helper()
	if b.heart != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &heart{eraser: b.openEraser(), stop: stop}
	b.heart = h
	h.stopped.Go(func() { h.run(ctx) })
	b.t.Cleanup(func() {
		stop()
		h.stopped.Wait()
	})
}

func (h *heart) run(ctx context.Context) {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	var id Identity
	var number uint64
	claimed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if h.paused.Load() {
			continue
		}
		once, cancel := context.WithTimeout(ctx, time.Second)
		if !claimed {
			var err error
			if id, err = h.eraser.Identify(once); err == nil {
				number, err = h.eraser.ClaimHeartbeat(once, "heart")
				claimed = err == nil
				h.claims.Add(1)
			}
		} else if err := h.eraser.Beat(once, "heart", number, id); err != nil {
			claimed = false
		} else {
			number++
		}
		cancel()
	}
}

// await10 waits for a condition.
func await10(t testing.TB, what string, condition func() bool) {
	t.Helper()
	end := time.Now().Add(deadline)
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		if time.Now().After(end) {
			t.Fatalf("no %s after %s", what, deadline)
		}
		<-ticker.C
	}
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(deadline):
		t.Fatalf("no %s after %s", what, deadline)
		panic("unreachable")
	}
}

// source is what loaders read. Its loads can be held up.
type source struct {
	loads   atomic.Int64
	content atomic.Pointer[Content]
}

func newSource(body string) *source {
	s := &source{}
	s.set(body)
	return s
}

func (s *source) set(body string) { s.content.Store(&Content{Body: []byte(body)}) }

func (s *source) load(context.Context) (Content, error) {
	s.loads.Add(1)
	return *s.content.Load(), nil
}

// held is a load that has read its content and waits with it.
type heldLoad struct {
	begun   chan struct{} // gets one when the content is read
	release chan struct{}
	loader  Loader
}

func (s *source) held() *heldLoad {
	h := &heldLoad{begun: make(chan struct{}, 16), release: make(chan struct{})}
	h.loader = func(ctx context.Context) (Content, error) {
		content, err := s.load(ctx)
		h.begun <- struct{}{}
		select {
		case <-h.release:
			return content, err
		case <-ctx.Done():
			return Content{}, ctx.Err()
		}
	}
	return h
}

// answer is what a Fetch returned.
type answer struct {
	body    string
	absent  bool
	outcome Outcome
	err     error
}

func fetch(ctx context.Context, c *Cache, at Address, load Loader) answer {
	value, outcome, err := c.Fetch(ctx, at, Lists, load)
	if err != nil {
		return answer{outcome: outcome, err: err}
	}
	body, err := value.Identity()
	return answer{body: string(body), absent: value.Absent(), outcome: outcome, err: err}
}

func fetchLater(t testing.TB, c *Cache, at Address, load Loader) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- fetch(t.Context(), c, at, load) }()
	return answers
}

var errNeverLoaded = errors.New("this load should not have happened")

func neverLoad(context.Context) (Content, error) { return Content{}, errNeverLoaded }

// awaitBody waits until the cache answers body from what is stored.
func awaitBody(t testing.TB, c *Cache, at Address, body string) {
	t.Helper()
	var last answer
	end := time.Now().Add(deadline)
	for {
		value, ok := c.Get(at)
		if ok {
			identity, err := value.Identity()
			last = answer{body: string(identity), err: err}
			if err == nil && last.body == body {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the cache has %+v instead of %q", last, body)
		}
		<-time.After(time.Millisecond)
	}
}

// eachKind runs a test for string keys and for hash fields.
func eachKind(t *testing.T, test func(t *testing.T, address func(c *Cache, name string) Address)) {
	t.Run("string", func(t *testing.T) {
		t.Parallel()
		test(t, func(c *Cache, name string) Address { return c.At(name) })
	})
	t.Run("field", func(t *testing.T) {
		t.Parallel()
		test(t, func(c *Cache, name string) Address { return c.Field(name, "variant "+name) })
	})
}

func ident(i int) string { return fmt.Sprintf("key%d", i) }
