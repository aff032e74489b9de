package invalidate

import (
	"fmt"
	"testing"
	"time"

	"walkey/internal/cdc"
)

// piece makes a piece of a transaction that inserted rows with these ids.
func piece(rules *Rules, xid uint32, end cdc.LSN, ids ...string) cdc.Transaction {
	rel := relation(rules, 'd')
	t := cdc.Transaction{XID: xid, End: end, Complete: end != 0}
	for _, id := range ids {
		t.Changes = append(t.Changes, cdc.Change{Kind: cdc.Insert, Relation: rel, New: row(rules, map[string]any{"id": id})})
	}
	return t
}

func TestWatermarkStopsAtTheOldestThatHangs(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: ["m:{id}"]}}`)
	q := queue{last: 100, position: 100}
	wantMark := func(when string, want cdc.LSN, entries int) {
		t.Helper()
		if got := q.watermark(); got != want || len(q.entries) != entries {
			t.Errorf("%s: watermark %d with %d entries, want %d with %d", when, got, len(q.entries), want, entries)
		}
	}
	now := time.Unix(1000, 0)
	var waits []time.Duration
	var longest time.Duration
	finish := func(seen string) {
		s, err := parseSnapshot(seen)
		if err != nil {
			t.Fatal(err)
		}
		longest = q.see(s, now, func(d time.Duration) { waits = append(waits, d) })
		for _, e := range q.entries {
			if e.visible {
				e.erasure.clear()
			}
		}
		q.drop()
	}
	wantMark("at the start", 100, 0)

	q.put(&cdc.Batch{Transactions: []cdc.Transaction{piece(rules, 10, 110, "1"), piece(rules, 11, 120, "2"), piece(rules, 12, 130, "3")}, Position: 130}, rules)
	wantMark("nothing deleted", 100, 3)
	finish("11:13:11")
	wantMark("the second hangs", 110, 1)
	if got := q.visible(); got != 110 {
		t.Errorf("everything up to %d counts as visible, want 110", got)
	}
	now = now.Add(3 * time.Second)
	if q.unseen() != true {
		t.Error("nothing unseen although one hangs")
	}
	q.put(&cdc.Batch{Transactions: []cdc.Transaction{piece(rules, 13, 140, "4")}, Position: 150}, rules)
	finish("11:14:11")
	wantMark("a later one is done, the second still hangs", 110, 1)
	if longest != 3*time.Second {
		t.Errorf("the longest wait is %s", longest)
	}
	finish("14:14:")
	if longest != 3*time.Second {
		t.Errorf("the longest wait is %s when it has ended", longest)
	}
	wantMark("all done", 150, 0)
	if got := q.visible(); got != 150 {
		t.Errorf("everything up to %d counts as visible, want 150", got)
	}
	if len(waits) != 1 || waits[0] != 3*time.Second {
		t.Errorf("waits %v, want that of the second alone", waits)
	}
	q.put(&cdc.Batch{Position: 170}, rules)
	wantMark("a keepalive moves it", 170, 0)
}

func TestLargeTransactionInPieces(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: ["m:{id}"]}}`)
	var q queue
	q.put(&cdc.Batch{Position: 50}, rules)
	q.put(&cdc.Batch{Transactions: []cdc.Transaction{piece(rules, 10, 0, "1"), piece(rules, 10, 0, "2")}, Position: 50}, rules)
	if len(q.entries) != 1 || len(q.entries[0].erasure.keys) != 2 {
		t.Fatalf("%d entries, want one with two keys", len(q.entries))
	}
	q.entries[0].visible = true
	q.entries[0].erasure.clear()
	q.drop()
	if len(q.entries) != 1 || q.watermark() != 50 {
		t.Errorf("%d entries and watermark %d: the transaction was dropped before its last piece", len(q.entries), q.watermark())
	}
	q.put(&cdc.Batch{Transactions: []cdc.Transaction{piece(rules, 10, 90)}, Position: 90}, rules)
	q.drop()
	if len(q.entries) != 0 || q.watermark() != 90 {
		t.Errorf("%d entries and watermark %d, want none and 90", len(q.entries), q.watermark())
	}
}

func TestInvisibleTransactionHoldsBoundedKeys(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: [list, "m:{id}"]}}`)
	var q queue
	const pieces = 50
	for p := range pieces {
		ids := make([]string, maxHeldKeys/pieces+1)
		for i := range ids {
			ids[i] = fmt.Sprint(p, ".", i)
		}
		q.put(&cdc.Batch{Transactions: []cdc.Transaction{piece(rules, 10, 0, ids...)}}, rules)
	}
	e := q.entries[0]
	if !e.collapsed || len(e.erasure.keys) != 1 || len(e.erasure.patterns) != 1 {
		t.Errorf("collapsed %v with %d keys and %d patterns, want what the rules can delete: one key and one pattern", e.collapsed, len(e.erasure.keys), len(e.erasure.patterns))
	}
}
