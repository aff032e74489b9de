package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a Cache has stored, and what stands there besides, is told without changing it.
func TestPeek(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	before := time.Now().Add(-time.Millisecond)
	put := func(at Address, content Content) {
		t.Helper()
		if got := fetch(t.Context(), c, at, func(context.Context) (Content, error) { return content, nil }); got.err != nil {
			t.Fatal(got.err)
		}
		await10(t, "stored value", func() bool { _, ok := c.Get(at); return ok })
	}
	long := strings.Repeat("x", 5000)
	for _, at := range []Address{c.At("long"), c.Field("hash", "f")} {
		put(at, Content{Body: []byte(long)})
	}
	for name, content := range map[string]Content{"absent": {Absent: true}, "meta": {Body: []byte("short"), Meta: []byte("meta")}} {
		put(c.At(name), content)
	}
	if found, _, err := c.take(t.Context(), c.At("leased"), c.tokens.next(), Default); err != nil || found != heldByUs {
		t.Fatal(found, err)
	}
	if found, _, err := c.take(t.Context(), c.Field("hash", "leased"), c.tokens.next(), Default); err != nil || found != heldByUs {
		t.Fatal(found, err)
	}
	b.must("SET", "p:foreign", "text")
	b.must("RPUSH", "p:list", "1", "2")
	b.must("SET", "p:session:somebody", "whose")
	b.must("HSET", "p:walkey:hash", "field", "value")
	after := time.Now()

	part := func(field, kind, coding string, length int64) Part {
		return Part{Field: field, Kind: kind, Coding: coding, Length: length}
	}
	for key, want := range map[string]Entry{
		"p:long":    {Type: "string", Parts: []Part{part("", KindValue, CodingZlib, 5000)}},
		"p:hash":    {Type: "hash", Fields: 2, Parts: []Part{part("f", KindValue, CodingZlib, 5000), part("leased", KindLease, "", 0)}},
		"p:absent":  {Type: "string", Parts: []Part{part("", KindAbsent, CodingNone, 0)}},
		"p:meta":    {Type: "string", Parts: []Part{part("", KindValue, CodingNone, 5)}},
		"p:leased":  {Type: "string", Parts: []Part{part("", KindLease, "", 0)}},
		"p:foreign": {Type: "string", Parts: []Part{part("", KindOther, "", 0)}},
		"p:list":    {Type: "list"},

		"p:session:somebody": {Type: "string", Parts: []Part{part("", KindOther, "", 0)}},
		"p:walkey:hash":      {Type: "hash", Fields: 1}, // not looked into
		"p:nothing":          {Type: "none"},
	} {
		dump, _ := b.do("DUMP", key).ToString()
		got, err := b.eraser.Peek(t.Context(), key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		expires := !slices.Contains([]string{"p:foreign", "p:list", "p:nothing", "p:session:somebody", "p:walkey:hash"}, key)
		if (got.TTL > 0) != expires || (got.Memory > 0) != (got.Type != "none") {
			t.Errorf("%s: TTL %s, memory %d", key, got.TTL, got.Memory)
		}
		for i := range got.Parts {
			p := &got.Parts[i]
			ours := p.Kind != KindOther
			if ours && (p.Begun.Before(before) || p.Begun.After(after)) || ours == p.Begun.IsZero() {
				t.Errorf("%s %s: its load began at %s, not between %s and %s", key, p.Field, p.Begun, before, after)
			}
			if p.Size == 0 || p.Kind == KindValue && len(p.Tag) != 32 || p.Expires.IsZero() == (p.Field == "leased") {
				t.Errorf("%s %s: %+v", key, p.Field, p)
			}
			p.Size, p.Tag, p.Begun, p.Expires = 0, "", time.Time{}, time.Time{}
		}
		slices.SortFunc(got.Parts, func(a, b Part) int { return strings.Compare(a.Field, b.Field) })
		want.Key, got.TTL, got.Memory = key, 0, 0
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
		if now, _ := b.do("DUMP", key).ToString(); now != dump {
			t.Errorf("%s was changed", key)
		}
	}
}

// A hash of another program may have any number of fields, with any bytes in them.
func TestPeekAtALargeHash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must("EVAL", `for i = 1, 5000 do redis.call('HSET', KEYS[1], 'f' .. i, string.rep('\255', 100)) end`, "1", "large")
	got, err := b.eraser.Peek(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if got.Fields != 5000 || len(got.Parts) == 0 || len(got.Parts) > maxFields || got.Parts[0].Kind != KindOther || got.Parts[0].Size != 100 {
		t.Errorf("%d fields, %d of them told: %+v", got.Fields, len(got.Parts), got.Parts[0])
	}
}

// The invalidator's own user deletes what it can't read: looking takes another one, and that is what is said.
func TestLookingTakesTheRightToRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must("ACL", "SETUSER", "weak", "on", ">secret", "%W~p:*", "-@all", "+hello", "+client|setname", "+client|setinfo", "+unlink", "+scan", "+eval", "+evalsha", "+set")
	b.must("SET", "p:k", "v")
	weak := b.openEraser(func(o *Options) { o.Username, o.Password = "weak", "secret" })
	if _, err := weak.Peek(t.Context(), "p:k"); !errors.Is(err, ErrReadRight) {
		t.Errorf("Peek: %v", err)
	}
	if _, err := weak.Outline(t.Context(), []string{"p:k"}); !errors.Is(err, ErrReadRight) {
		t.Errorf("Outline: %v", err)
	}
}

func TestFillIDsRiseWithTime(t *testing.T) {
	t.Parallel()
	tokens := newTokens(false)
	before := time.Now().Truncate(time.Millisecond)
	seen := map[fillID]bool{}
	var last fillID
	for range 10_000 {
		id := tokens.next()
		if seen[id] || slices.Compare(id[8:], last[8:]) <= 0 {
			t.Fatalf("%x follows %x", id, last)
		}
		seen[id], last = true, id
	}
	if at := last.begun(); at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("drawn at %s, it says", at)
	}
	if at := (fillID{15: 7}).begun(); !at.IsZero() {
		t.Errorf("an id of an older version tells %s", at)
	}
	// A clock that was set back does not make numbers twice.
	tokens.last.Store(^uint64(0) >> 1)
	if a, b := tokens.next(), tokens.next(); a == b || slices.Compare(a[8:], b[8:]) >= 0 {
		t.Errorf("%x follows %x", b, a)
	}
}

func TestScanAndOutline(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const many = 3000
	b.must("EVAL", `for i = 1, ARGV[1] do redis.call('SET', 'p:k' .. i, 'v', 'PX', 60000) end`, "0", "3000")
	b.must("HSET", "p:hash", "f", "v")
	b.must("SET", "q:k1", "v")
	found := map[string]bool{}
	for page, err := range b.eraser.Scan(t.Context(), "p:*") {
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range page {
			found[key] = true
		}
	}
	if len(found) != many+1 || !found["p:hash"] || found["q:k1"] {
		t.Errorf("found %d keys", len(found))
	}
	for _, err := range b.eraser.Scan(t.Context(), "p:*") {
		if err != nil {
			t.Fatal(err)
		}
		break // who has enough stops the scan
	}
	got, err := b.eraser.Outline(t.Context(), []string{"p:k1", "p:hash", "p:gone"})
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, e := range got {
		types[e.Key] = e.Type
		if (e.TTL > 0) != (e.Key == "p:k1") || (e.Memory > 0) == (e.Key == "p:gone") {
			t.Errorf("%+v", e)
		}
	}
	if want := map[string]string{"p:k1": "string", "p:hash": "hash", "p:gone": "none"}; !maps.Equal(types, want) {
		t.Errorf("types %v", types)
	}
	for _, err := range b.openEraser(func(o *Options) { o.Port = 1 }).Scan(t.Context(), "p:*") {
		if err == nil {
			t.Error("a page of a server that is not there")
		}
	}
}
