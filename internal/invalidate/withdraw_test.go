package invalidate

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cdc"
	"walkey/internal/embedded/embeddedtest"
)

// While a commit hangs its key's value goes, and what is true comes back after a moment; other programs' keys get the delete alone.
func TestValuesGoBeforeReadersSeeTheChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rules = `tables: {t: {keys: ["t:{id}"], raw: ["other:{id}"]}}`
	b.run(Switches{})
	b.stored(1, "old")
	const others = "V, which only looks like one of ours"
	ask := func(words ...string) string {
		t.Helper()
		answer, err := b.valkey.Ask(t.Context(), words...)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(answer)
	}
	ask("SET", "other:1", others)
	embeddedtest.HoldCommits(t, b.postgres)
	hanging := b.connect()
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), "update t set title = 'new' where id = 1")
		committed <- err
	}()
	b.eventually("the value is withdrawn", func() bool {
		return !strings.HasSuffix(b.counts(`walkey_withdrawals_total{result="withdrawn"}`), " 0\n")
	})
	b.eventually("the lease is taken away again", func() bool { return !strings.HasSuffix(b.counts("walkey_deleted_keys_existed_total"), " 0\n") })
	b.stored(1, "old")
	// As long as commits hang, readers do not wait for them.
	calls := b.counts("walkey_withdrawals_total")
	b.stored(2, "old")
	b.exec("set synchronous_commit = local")
	b.exec("update t set title = 'newer' where id = 2")
	b.stored(2, "newer")
	if now := b.counts("walkey_withdrawals_total"); now != calls {
		t.Errorf("withdrawn beside a commit that hangs: before\n%sand after\n%s", calls, now)
	}
	if got := ask("GET", "other:1"); got != fmt.Sprint([]string{others}) {
		t.Errorf("another program's key holds %s", got)
	}
	embeddedtest.ReleaseCommits(t, b.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	b.stored(1, "new")
	n := 0
	b.eventually("values are withdrawn again", func() bool {
		n++
		b.exec(fmt.Sprintf("update t set title = 'title %d' where id = 2", n))
		return b.counts("walkey_withdrawals_total") != calls
	})
	b.eventually("the other program's key is deleted", func() bool { return ask("EXISTS", "other:1") == fmt.Sprint([]string{"0"}) })
}

// A user of Valkey who may only delete is enough: withdrawing is tried once.
func TestWithoutTheRightToWithdraw(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.valkey.Ask(t.Context(), "ACL", "SETUSER", "deletes", "on", ">secret", "+@all", "%W~p:*", "~p:walkey:*"); err != nil {
		t.Fatal(err)
	}
	anyone := b.options
	b.options.Username, b.options.Password = "deletes", "secret"
	b.run(Switches{})
	b.options = anyone
	for i := range 3 {
		title := fmt.Sprint("title ", i)
		b.exec("update t set title = '" + title + "' where id = 1")
		b.stored(1, title)
	}
	if got := b.counts(`walkey_withdrawals_total{result="failed"}`); !strings.HasSuffix(got, " 1\n") {
		t.Errorf("attempts that failed: %s", got)
	}
}

func TestNothingIsWithdrawn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{NoWithdraw: true})
	b.stored(1, "old")
	b.exec("update t set title = 'new' where id = 1")
	b.stored(1, "new")
	for _, result := range []string{withdrawnSome, withdrawnNothing, withdrawnFailed} {
		if got := b.counts(`walkey_withdrawals_total{result="` + result + `"}`); !strings.HasSuffix(got, " 0\n") {
			t.Error(got)
		}
	}
}

// gathering is withdrawals that begin nothing.
func gathering(rules *Rules) *withdrawals {
	w := newWithdrawals(context.Background(), &Options{Rules: rules}, NewMetrics())
	w.cancel()
	return w
}

func TestWhatIsWithdrawn(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: [list, "m:{id}"], raw: ["other:{id}", all]}}`)
	some := func(n int) *cdc.Transaction {
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprint(i))
		}
		p := piece(rules, 1, 100, ids...)
		return &p
	}
	truncated := &cdc.Transaction{End: 100, Complete: true, Changes: []cdc.Change{{Kind: cdc.Truncate, Relation: relation(rules, 'd')}}}
	keysOf := func(w *withdrawals) []string {
		if w.next == nil {
			return nil
		}
		return w.next.keys
	}
	for name, test := range map[string]struct {
		spoil  func(*withdrawals)
		change *cdc.Transaction
		want   []string
	}{
		"a row":       {change: some(1), want: []string{"p:list", "p:m:0"}},
		"a table":     {change: truncated, want: []string{"p:list"}},
		"many rows":   {change: some(busyBatch)},
		"a crowd":     {change: some(1), spoil: func(w *withdrawals) { w.crowd.Store(true) }},
		"a hang":      {change: some(1), spoil: func(w *withdrawals) { w.slow.Store(true) }},
		"no right":    {change: some(1), spoil: func(w *withdrawals) { w.refused.Store(true) }},
		"slow Valkey": {change: some(1), spoil: func(w *withdrawals) { w.begun = make([]*withdrawal, maxWithdrawing) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := gathering(rules)
			if test.spoil != nil {
				test.spoil(w)
			}
			w.Committed(test.change)
			if diff := cmp.Diff(test.want, keysOf(w)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if got := w.withdrew(test.change.XID); got != (test.want != nil) {
				t.Errorf("that something was withdrawn for it is said to be %t", got)
			}
		})
	}
	w := gathering(rules)
	for i := range 2 * withdrawKeys {
		p := piece(rules, uint32(i), cdc.LSN(100+i), fmt.Sprint(i))
		w.Committed(&p)
	}
	if n := len(keysOf(w)); n != withdrawKeys {
		t.Errorf("%d keys have gathered", n)
	}
	w.settle(t.Context())
	if w.next != nil {
		t.Error("what has gathered would come behind its delete")
	}
}

// A delete waits for the withdrawals under way, as long as its context lasts.
func TestADeleteWaitsForWithdrawals(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: [list]}}`)
	for name, end := range map[string]func(cancel context.CancelFunc, under *withdrawal){
		"its context ends":       func(cancel context.CancelFunc, _ *withdrawal) { cancel() },
		"the withdrawal is over": func(_ context.CancelFunc, under *withdrawal) { close(under.over) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := gathering(rules)
			under := &withdrawal{over: make(chan struct{})}
			w.begun = []*withdrawal{under}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			settled := false
			go func() { w.settle(ctx); settled = true }()
			synctest.Wait()
			if settled {
				t.Errorf("until %s: it did not wait", name)
			}
			end(cancel, under)
			synctest.Wait()
			if !settled {
				t.Errorf("when %s: it waits on", name)
			}
		})
	}
}
