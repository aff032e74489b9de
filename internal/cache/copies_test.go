package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// said makes a message as Valkey answers: a bulk string, or nil.
func said(t testing.TB, stored []byte) (m rueidis.RedisMessage) {
	t.Helper()
	wire := []byte{0, 0, 0, 0, 0, 0, 0, '_', 0, 0, 0, 0, 0, 0, 0, 0}
	if stored != nil {
		wire = append([]byte{0, 0, 0, 0, 0, 0, 0, '$', 0, 0, 0, 0, 0, 0, 0, 0}, stored...)
		for i := range 8 {
			wire[15-i] = byte(len(stored) >> (8 * i))
		}
	}
	if err := m.CacheUnmarshalView(wire); err != nil {
		t.Fatal(err)
	}
	if got, err := m.AsBytes(); stored != nil && (err != nil || !bytes.Equal(got, stored)) || stored == nil && !m.IsNil() {
		t.Fatalf("made %q, %v", got, err)
	}
	return m
}

func storedBody(body string) []byte {
	return loadedValue(Content{Body: []byte(body)}, newTokens(false).next(), nil).storable(plain)
}

func commandFor(at Address) string {
	if at.isField {
		return "HGET" + at.field
	}
	return "GET"
}

// learn has copies learn what Valkey holds under an address, as if it had been read at now.
func learn(t testing.TB, c *copies, at Address, stored []byte) {
	t.Helper()
	if _, entry := c.Flight(at.key, commandFor(at), clientTTL, time.Now()); entry != nil {
		t.Fatalf("%q is being read already", at.key)
	}
	c.Update(at.key, commandFor(at), said(t, stored))
}

func (c *copies) sight(at Address) (s sight, ok bool) {
	ok = c.get(&at, time.Since(c.start), &s)
	return s, ok
}

func push(t testing.TB, c *copies, keys ...string) {
	t.Helper()
	messages := make([]rueidis.RedisMessage, len(keys))
	for i, key := range keys {
		messages[i] = said(t, []byte(key))
	}
	c.Delete(messages)
}

func TestCopiesAreWhatWasRead(t *testing.T) {
	t.Parallel()
	c := newCopies(64<<20, time.Now())
	lease := append([]byte{leaseKind}, strings.Repeat("a", tokenSize)...)
	for name, stored := range map[string][]byte{"nothing": nil, "value": storedBody("body"), "lease": lease, "malformed": []byte("else")} {
		for _, at := range []Address{keyAddress("p:" + name), fieldAddress("p:h", name), fieldAddress("p:h:"+name, "")} {
			if at.isField && name == "lease" {
				stored = append([]byte("L123:"), lease[1:]...)
			}
			if _, ok := c.sight(at); ok {
				t.Errorf("%s was known before it was read", name)
			}
			learn(t, c, at, stored)
			got, ok := c.sight(at)
			want := sight{local: true}
			if stored != nil {
				want.take(stored, &at, nil)
			}
			if !ok || !got.local || got.state != want.state || got.stored != want.stored || !bytes.Equal(got.value.head, want.value.head) || !bytes.Equal(got.value.body, want.value.body) {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
	}
}

func TestCopiesGoWithAPush(t *testing.T) {
	t.Parallel()
	c := newCopies(64<<20, time.Now())
	str, one, two, other := keyAddress("p:s"), fieldAddress("p:h", "1"), fieldAddress("p:h", "2"), fieldAddress("p:g", "1")
	all := []Address{str, one, two, other}
	known := func() (s string) {
		for _, at := range all {
			got, ok := c.sight(at)
			s += fmt.Sprint(ok, string(got.value.body), " ")
		}
		return s
	}
	for i, at := range all {
		learn(t, c, at, storedBody(fmt.Sprint(i)))
	}
	if got := known(); got != "true0 true1 true2 true3 " {
		t.Fatal(got)
	}
	push(t, c, "p:h", "p:unknown")
	if got := known(); got != "true0 false false true3 " {
		t.Error(got)
	}
	push(t, c, "p:s", "p:g")
	if got := known(); got != "false false false false " {
		t.Error(got)
	}
	if n := len(c.shard(one.keyHash).fields); n != 0 {
		t.Errorf("%d hashes are remembered", n)
	}
	for _, at := range all {
		learn(t, c, at, storedBody("again"))
	}
	c.Delete(nil)
	if got := known(); got != "false false false false " || c.size() != 0 {
		t.Error(got, c.size())
	}
}

// Whoever asks while another one reads gets what that one has read, also when a push comes in between: the answer comes after it.
func TestCopiesAreReadOnce(t *testing.T) {
	t.Parallel()
	c := newCopies(1<<20, time.Now())
	at := keyAddress("p:k")
	for _, want := range []error{nil, errors.New("gone")} {
		if _, entry := c.Flight(at.key, "GET", clientTTL, time.Now()); entry != nil {
			t.Fatal("somebody else is to read it")
		}
		_, entry := c.Flight(at.key, "GET", clientTTL, time.Now())
		if entry == nil {
			t.Fatal("it is to be read twice")
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := entry.Wait(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("whose context has ended got %v", err)
		}
		push(t, c, at.key)
		if want == nil {
			c.Update(at.key, "GET", said(t, []byte("found")))
		} else {
			c.Cancel(at.key, "GET", want)
		}
		got, err := entry.Wait(t.Context())
		if text, _ := got.ToString(); !errors.Is(err, want) || want == nil && text != "found" {
			t.Errorf("got %q, %v", text, err)
		}
		if _, ok := c.sight(at); ok != (want == nil) {
			t.Errorf("known: %v after %v", ok, want)
		}
		push(t, c, at.key)
	}
	if expires := c.Update(at.key, "GET", said(t, []byte("late"))); expires != 0 {
		t.Error("an answer that nobody waits for was kept")
	}
}

func TestCopiesEnd(t *testing.T) {
	t.Parallel()
	c := newCopies(1<<20, time.Now().Add(-time.Hour))
	at, reading := keyAddress("p:k"), keyAddress("p:r")
	learn(t, c, at, storedBody("v"))
	var s sight
	if now := time.Since(c.start); c.get(&at, now+clientTTL+time.Second, &s) || !c.get(&at, now, &s) {
		t.Error("a copy does not live for its time")
	}
	c.Flight(reading.key, "GET", clientTTL, time.Now())
	_, entry := c.Flight(reading.key, "GET", clientTTL, time.Now())
	gone := errors.New("gone")
	c.Close(gone)
	if _, err := entry.Wait(t.Context()); !errors.Is(err, gone) {
		t.Error(err)
	}
	c.Update(reading.key, "GET", said(t, storedBody("v")))
	c.Delete(nil)
	push(t, c, at.key)
	if _, entry := c.Flight(at.key, "GET", clientTTL, time.Now()); entry != nil {
		t.Error("a closed one has something to wait for")
	}
	c.Update(at.key, "GET", said(t, storedBody("v")))
	if _, ok := c.sight(at); ok || c.size() != 0 {
		t.Error("a closed one has copies")
	}
}

// Whatever comes and goes, what is taken stays bounded, a copy is never another one's, and what was handed out stays as it was.
func TestCopiesAreBounded(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{64 << 10, 1 << 20, 16 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			c := newCopies(limit, time.Now())
			r := rand.New(rand.NewPCG(1, uint64(limit)))
			type handed struct{ body, was []byte }
			var out []handed
			held := map[Address]string{}
			for i := range 10_000 {
				at := keyAddress(fmt.Sprint("p:k", r.IntN(3000)))
				if r.IntN(3) == 0 {
					at = fieldAddress(fmt.Sprint("p:h", r.IntN(50)), ident(r.IntN(40)))
				}
				switch r.IntN(8) {
				case 0:
					push(t, c, at.key)
					for other := range held {
						if other.key == at.key {
							delete(held, other)
						}
					}
				case 1, 2:
					size := r.IntN(2000)
					if i%1000 == 0 {
						size = r.IntN(limit)
					}
					body := fmt.Sprint(at.key, " ", at.field, " ", i, strings.Repeat("x", size))
					held[at] = body
					learn(t, c, at, storedBody(body))
				default:
					got, ok := c.sight(at)
					if want, known := held[at]; ok && (!known || string(got.value.body) != want) {
						t.Fatalf("%q %q is %.30q, not %.30q", at.key, at.field, got.value.body, want)
					}
					if ok && r.IntN(100) == 0 {
						out = append(out, handed{got.value.body, bytes.Clone(got.value.body)})
					}
				}
				if size := c.size(); size > limit {
					t.Fatalf("%d bytes are taken, of %d", size, limit)
				}
			}
			for _, one := range out {
				if !bytes.Equal(one.body, one.was) {
					t.Fatalf("%.30q became %.30q", one.was, one.body)
				}
			}
			c.Delete(nil)
			if c.size() != 0 {
				t.Errorf("%d bytes are left", c.size())
			}
		})
	}
}

// The accounts agree with what is there.
func TestCopiesAreCounted(t *testing.T) {
	t.Parallel()
	c := newCopies(1<<20, time.Now())
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 8_000 {
		at := keyAddress(ident(r.IntN(500)))
		if i%3 == 0 {
			at = fieldAddress("h", ident(r.IntN(500)))
		}
		if r.IntN(4) == 0 {
			push(t, c, at.key)
		} else {
			learn(t, c, at, storedBody(strings.Repeat("y", r.IntN(3000))))
		}
	}
	s := &c.shards[0]
	bytes, places, fields := 0, 0, 0
	for _, one := range s.room.chunks {
		if one == nil {
			continue
		}
		live := 0
		for i := range one.records {
			if p, ok := s.places[one.records[i].hash]; ok && p == (place{one.number, uint32(i)}) {
				live += one.records[i].size()
				places++
				if one.records[i].isField {
					fields++
				}
			}
		}
		if live != one.live {
			t.Errorf("chunk %d has %d live bytes, not %d", one.number, live, one.live)
		}
		bytes += cap(one.text) + len(one.records)*recordSize
	}
	if bytes != s.room.bytes || places != len(s.places) {
		t.Errorf("%d bytes and %d copies, not %d and %d", bytes, places, s.room.bytes, len(s.places))
	}
	listed := 0
	for _, all := range s.fields {
		listed += len(all)
	}
	if listed != fields || fields == 0 {
		t.Errorf("%d fields are listed, there are %d", listed, fields)
	}
}

// A copy that is asked for again and again outlives those that are not, and the bytes of what was dropped are won back first.
func TestCopiesThatAreUsedStay(t *testing.T) {
	t.Parallel()
	c := newCopies(1<<20, time.Now())
	used, idle := keyAddress("used"), keyAddress("idle")
	learn(t, c, used, storedBody("u"))
	learn(t, c, idle, storedBody("i"))
	for i := range 4000 { // one key that changes all the time
		learn(t, c, keyAddress("changing"), storedBody(strings.Repeat("x", 1000)))
		push(t, c, "changing")
		_, _ = c.sight(used)
		if _, ok := c.sight(idle); !ok {
			t.Fatalf("dropped copies have displaced another one in round %d", i)
		}
	}
	for i := range 4000 {
		learn(t, c, keyAddress(ident(i)), storedBody(strings.Repeat("x", 1000)))
		if _, ok := c.sight(used); !ok {
			t.Fatalf("what is used was displaced in round %d", i)
		}
	}
	if n := len(c.shards[0].places); n < 800 || n > 1000 {
		t.Errorf("%d copies of 1 KB in 1 MiB", n)
	}
}

func TestCopiesAtTheSameTime(t *testing.T) {
	t.Parallel()
	c := newCopies(8<<20, time.Now())
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 5000 {
				at := keyAddress(ident(r.IntN(200)))
				switch r.IntN(6) {
				case 0:
					push(t, c, at.key)
				case 1:
					if _, entry := c.Flight(at.key, "GET", clientTTL, time.Now()); entry == nil {
						c.Update(at.key, "GET", said(t, storedBody(at.key+strings.Repeat("z", r.IntN(60_000)))))
					} else if m, err := entry.Wait(t.Context()); err != nil {
						t.Error(m, err)
					}
				default:
					if got, ok := c.sight(at); ok && !strings.HasPrefix(string(got.value.body), at.key) {
						t.Errorf("%q is %.20q", at.key, got.value.body)
					}
				}
			}
		})
	}
	all.Wait()
}

func TestCopiesCostNoAllocation(t *testing.T) { // not parallel: allocations are counted
	c := newCopies(1<<20, time.Now())
	at := fieldAddress("h", "f")
	learn(t, c, at, storedBody("v"))
	var s sight
	if n := testing.AllocsPerRun(100, func() { c.get(&at, 0, &s) }); n != 0 || s.state != seenValue {
		t.Errorf("%v allocations, %v", n, s.state)
	}
}
