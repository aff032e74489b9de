package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/faultproxy"
)

func TestDeleteCountsWhatExisted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var keys []string
	for i := range 2*eraseBatch + 7 {
		keys = append(keys, FullKey("p", ident(i)))
		if i%3 == 0 {
			b.must("SET", keys[i], "x")
		}
	}
	want := (len(keys) + 2) / 3
	for _, n := range []int{want, 0} {
		if got, err := b.eraser.Delete(t.Context(), keys); got != n || err != nil {
			t.Errorf("deleted %d, %v; want %d", got, err, n)
		}
	}
	if n, err := b.eraser.Delete(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("of no keys %d, %v", n, err)
	}
}

func TestEraserOperationsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	e := b.openEraser(through(p))
	if _, err := e.Identify(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Silence()
	rows := map[string]func(context.Context) error{
		"Identify":       func(ctx context.Context) error { _, err := e.Identify(ctx); return err },
		"Delete":         func(ctx context.Context) error { _, err := e.Delete(ctx, []string{"p:k"}); return err },
		"Withdraw":       func(ctx context.Context) error { _, err := e.Withdraw(ctx, []string{"p:k"}); return err },
		"DeleteMatching": func(ctx context.Context) error { _, err := e.DeleteMatching(ctx, []string{"p:*"}); return err },
		"Note":           func(ctx context.Context) error { _, _, err := e.Note(ctx); return err },
		"SetNote":        func(ctx context.Context) error { return e.SetNote(ctx, "x") },
		"ClaimHeartbeat": func(ctx context.Context) error { _, err := e.ClaimHeartbeat(ctx, "me"); return err },
		"Beat":           func(ctx context.Context) error { return e.Beat(ctx, "me", 1, Identity{}) },
	}
	for name, operation := range rows {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- operation(ctx) }()
		cancel()
		if err := receive(t, "end of "+name, ended); err == nil {
			t.Errorf("%s says that it worked", name)
		}
	}
	p.Heal()
}

func TestDeleteGroupsCountsWhatExisted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := make([]string, 2*eraseBatch+1)
	for i := range keys {
		keys[i] = FullKey("p", ident(i))
		if i%3 == 0 {
			b.must("SET", keys[i], "x")
		}
	}
	// Groups that are smaller than a command, as large, and larger than a pipeline; and empty ones.
	ends := []int{1, 2, 2, 3, 50, 150, 151, eraseBatch + 1000, eraseBatch + 1000, 2 * eraseBatch, len(keys), len(keys)}
	groups, want := make([]Group, len(ends)), make([]Group, len(ends))
	for i, end := range ends {
		groups[i].End = end
		want[i].End = end
		if i > 0 {
			want[i].Existed = (end+2)/3 - (ends[i-1]+2)/3
		} else {
			want[i].Existed = (end + 2) / 3
		}
	}
	n, err := b.eraser.DeleteGroups(t.Context(), keys, groups)
	if err != nil || n != (len(keys)+2)/3 {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	// Repeated, as after an error, it forgets nothing.
	if n, err = b.eraser.DeleteGroups(t.Context(), keys, groups); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Errorf("groups, again (-want +got):\n%s", diff)
	}
}

func TestDeleteMatchingTellsItsProgress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 3 * scanCount {
		b.must("SET", FullKey("p", "a"+ident(i)), "x")
		b.must("SET", FullKey("p", "b"+ident(i)), "x")
	}
	var told []int
	n, err := b.eraser.DeleteMatchingTelling(t.Context(), []string{"p:a*", "p:b*"}, func(existed int) { told = append(told, existed) })
	if err != nil || n != 6*scanCount {
		t.Errorf("%d, %v", n, err)
	}
	if len(told) < 6 || !slices.IsSorted(told) || told[len(told)-1] != n {
		t.Errorf("told %v", told)
	}
}

func TestAnEraserComesBackByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	e := b.openEraser(through(p))
	for range 3 {
		p.Break()
		await10(t, "delete", func() bool {
			_, err := e.Delete(t.Context(), []string{"p:k"})
			return err == nil
		})
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, err := b.eraser.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(first.RunID) != 40 || len(first.ReplicationID) != 40 || first.Version == "" {
		t.Errorf("%+v", first)
	}
	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var second Identity
	await10(t, "answer", func() bool {
		second, err = b.eraser.Identify(t.Context())
		return err == nil
	})
	if second.RunID == first.RunID || second.ReplicationID == first.ReplicationID {
		t.Errorf("after a restart %+v, before it %+v", second, first)
	}
	other := setup(t)
	b.must("REPLICAOF", other.valkey.Host(), fmt.Sprint(other.valkey.Port()))
	if id, err := b.eraser.Identify(t.Context()); err == nil {
		t.Errorf("a replica is %+v", id)
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if note, ok, err := b.eraser.Note(t.Context()); note != "" || ok || err != nil {
		t.Errorf("at first %q, %v, %v", note, ok, err)
	}
	for _, want := range []string{`{"lsn":"16/B374D848"}`, "", "next"} {
		if err := b.eraser.SetNote(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if note, ok, err := b.eraser.Note(t.Context()); note != want || !ok || err != nil {
			t.Errorf("%q, %v, %v; want %q", note, ok, err, want)
		}
	}
}

func TestBeatIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.eraser
	id, err := e.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Beat(t.Context(), "me", 5, id); !errors.Is(err, ErrBeatRefused) {
		t.Errorf("a heartbeat that is missing: %v", err)
	}
	number, err := e.ClaimHeartbeat(t.Context(), "me:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Beat(t.Context(), "me:1", number, id); err != nil {
		t.Fatal(err)
	}
	number++
	rows := []struct {
		name   string
		holder string
		from   uint64
		id     Identity
	}{
		{"an older number", "me:1", number - 1, id},
		{"a later number", "me:1", number + 1, id},
		{"another holder", "me", number, id},
		{"another run", "me:1", number, Identity{RunID: strings.Repeat("a", 40), ReplicationID: id.ReplicationID}},
		{"another history", "me:1", number, Identity{RunID: id.RunID, ReplicationID: strings.Repeat("a", 40)}},
		{"no identity", "me:1", number, Identity{}},
	}
	for _, row := range rows {
		if err := e.Beat(t.Context(), row.holder, row.from, row.id); !errors.Is(err, ErrBeatRefused) {
			t.Errorf("%s: %v", row.name, err)
		}
		if got := heartbeat(t, b); got != number {
			t.Errorf("%s: the heartbeat is %d and not %d", row.name, got, number)
		}
	}
	claimed, err := e.ClaimHeartbeat(t.Context(), "you")
	if claimed != number || err != nil {
		t.Errorf("claimed %d, %v; want %d", claimed, err, number)
	}
	if err := e.Beat(t.Context(), "me:1", number, id); !errors.Is(err, ErrBeatRefused) {
		t.Errorf("by the former holder: %v", err)
	}
	if err := e.Beat(t.Context(), "you", number, id); err != nil {
		t.Errorf("by the new holder: %v", err)
	}
	b.must("DEL", FullKey("p", heartbeatName))
	again, err := e.ClaimHeartbeat(t.Context(), "you")
	if again <= number || err != nil {
		t.Errorf("made anew at %d, %v; the former was %d", again, err, number)
	}
	b.must("SET", FullKey("p", heartbeatName), "not a heartbeat")
	if _, err := e.ClaimHeartbeat(t.Context(), "you"); err != nil {
		t.Errorf("over something else: %v", err)
	}
	heartbeat(t, b) // is one
}

func TestABeatThatWasHeldUpOnItsWayIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	slowOne := b.openEraser(through(p))
	id, err := slowOne.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	number, err := slowOne.ClaimHeartbeat(t.Context(), "slow")
	if err != nil {
		t.Fatal(err)
	}
	p.HoldRequests(func(chunk []byte) bool { return bytes.Contains(chunk, []byte("EVAL")) })
	answers := make(chan error, 1)
	go func() { answers <- slowOne.Beat(t.Context(), "slow", number, id) }()
	receive(t, "hold", p.Held())
	if _, err := b.eraser.ClaimHeartbeat(t.Context(), "quick"); err != nil {
		t.Fatal(err)
	}
	p.Release()
	if err := receive(t, "answer", answers); !errors.Is(err, ErrBeatRefused) {
		t.Errorf("the beat that was held up: %v", err)
	}
	if got := heartbeat(t, b); got != number {
		t.Errorf("the heartbeat is %d, not %d", got, number)
	}
}

func TestDeleteMatchingKnowsGlobs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	awkward := []string{`a*b`, `a?b`, `a[b]c`, `a\b`, `a^b`, `a-b`, `[^a]`, `*`, `\*`, `a b`, "a\xff\x00b", `{a}`, `é`}
	fill := func() {
		for _, name := range awkward {
			b.must("SET", FullKey("p", name), "x")
			b.must("SET", FullKey("p", "x"+name+"y"), "x")
		}
		b.must("SET", "p:axb", "x")
	}
	for _, name := range awkward {
		fill()
		n, err := b.eraser.DeleteMatching(t.Context(), []string{GlobEscape(FullKey("p", name))})
		if n != 1 || err != nil {
			t.Errorf("%q matches %d keys, %v", name, n, err)
		}
		if b.exists(FullKey("p", name)) {
			t.Errorf("%q is still there", name)
		}
	}
	n, err := b.eraser.DeleteMatching(t.Context(), []string{"p:a*", "p:x*", "p:none"})
	if want := 9 + len(awkward); n != want || err != nil {
		t.Errorf("%d, %v; want %d", n, err, want)
	}
	for _, key := range b.keys("*") {
		if strings.HasPrefix(key, "p:a") || strings.HasPrefix(key, "p:x") {
			t.Errorf("%q is still there", key)
		}
	}
}

func (b *bundle) keys(pattern string) []string {
	b.t.Helper()
	keys, err := b.do("KEYS", pattern).AsStrSlice()
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

// What no operation for many keys may touch.
var sparedKeys = []string{"other:k", "p:session:1", "p:session:x:y", "p:walkey:heartbeat", "p:walkey:note", "pp:k", "px", "q:p:k"}

func TestDeleteMatchingSparesSessionsAndOwnKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := sparedKeys
	for _, key := range want {
		b.must("SET", key, "x")
	}
	for i := range 5000 {
		b.must("SET", "p:"+ident(i), "x")
	}
	for _, key := range []string{"p:session", "p:sessions:1", "p:walkey", "p:x:session:1"} {
		b.must("SET", key, "x")
	}
	n, err := b.eraser.DeleteMatching(t.Context(), []string{"p:*"})
	if n != 5004 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff(want, b.keys("*")); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// A link that breaks in the middle of a command of many keys loses neither a key nor what is known of it: repeated, all are gone.
func TestADeleteThatIsCutOffIsRepeated(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(p *faultproxy.Proxy, match func([]byte) bool){
		"on the way there": (*faultproxy.Proxy).HoldRequests,
		"on the way back":  (*faultproxy.Proxy).HoldReplies,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			p := b.proxy()
			e := b.openEraser(through(p))
			keys := make([]string, 50*eraseCommand)
			for i := range keys {
				keys[i] = FullKey("p", strings.Repeat("long", 20)+ident(i))
				b.must("SET", keys[i], "x")
			}
			// Two thirds of the keys in one group, so that commands end with it, too.
			groups := []Group{{End: len(keys) * 2 / 3}, {End: len(keys)}}
			chunks := 0
			hold(p, func(chunk []byte) bool {
				if bytes.Contains(chunk, []byte("long")) {
					chunks++
				}
				return chunks == 2 // the first ones are through
			})
			cut := make(chan error, 1)
			go func() {
				_, err := e.DeleteGroups(t.Context(), keys, groups)
				cut <- err
			}()
			receive(t, "a command under way", p.Held())
			p.Break()
			if err := receive(t, "end of the call", cut); err == nil {
				t.Error("nobody was told")
			}
			p.Release()
			left, err := b.do(append([]string{"EXISTS"}, keys...)...).AsInt64()
			if err != nil || left == 0 && name == "on the way there" || left == int64(len(keys)) {
				t.Errorf("%d keys are left, %v: the link was not cut in between", left, err)
			}
			n, err := e.DeleteGroups(t.Context(), keys, groups)
			if err != nil || int64(n) != left {
				t.Errorf("repeated: %d, %v; want %d", n, err, left)
			}
			if left, err := b.do(append([]string{"EXISTS"}, keys...)...).AsInt64(); err != nil || left != 0 {
				t.Errorf("%d keys are left, %v", left, err)
			}
			if known := groups[0].Existed + groups[1].Existed; known < n || known > len(keys) {
				t.Errorf("%d keys are known to have existed, of which %d at last", known, n)
			}
		})
	}
}
