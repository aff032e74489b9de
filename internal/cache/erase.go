package cache

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/redis/rueidis"
)

const (
	eraseBatch   = 10_000 // keys in one pipeline
	eraseCommand = 100    // keys in one command: others wait for so long meanwhile, 0.2 ms where four clients must be told of each
	scanCount    = 1000   // keys that Valkey looks at for one reply
)

// unlink deletes keys in pipelines of bounded length to where they are served, and counts those that existed. Keys whose slot
// moves are gone after. An error says that not every delete was confirmed. Unless they are nil, groups are counted, too.
func (e *Eraser) unlink(ctx context.Context, fullKeys []string, groups []Group) (existed int, err error) {
	d := &doomed{keys: fullKeys, groups: groups, left: make([]int, len(fullKeys))}
	for i := range d.left {
		d.left[i] = i
	}
	for range 2 {
		if err := e.unlinkApart(ctx, d); err != nil || len(d.left) == 0 {
			e.topology.failed(ctx, err)
			return d.existed, err
		}
		if err := e.topology.refresh(ctx); err != nil {
			return d.existed, fmt.Errorf("delete %d keys that have moved: %w", len(d.left), err)
		}
	}
	var gone deleted
	for _, i := range d.left { // between two primaries
		n, err := e.topology.send(ctx, d.keys[i], "UNLINK", d.keys[i]).AsInt64()
		if err != nil {
			return d.existed, fmt.Errorf("delete a key that moves: %w", err)
		}
		d.count(i, n)
		gone.keys = append(gone.keys, d.keys[i])
	}
	e.ledger.add(gone)
	return d.existed, nil
}

// doomed are keys on their way out.
type doomed struct {
	keys   []string
	groups []Group // in the order of keys; empty: nobody asks

	mu      sync.Mutex
	existed int   // guarded by mu; so is what groups count
	left    []int // guarded by mu: indexes of those that nobody has deleted yet
}

// group is the index of the group that the i-th key belongs to.
func (d *doomed) group(i int) int {
	at, _ := slices.BinarySearchFunc(d.groups, i+1, func(p Group, end int) int { return cmp.Compare(p.End, end) })
	return at
}

// count counts n keys that existed, of the group of the i-th.
func (d *doomed) count(i int, n int64) {
	d.existed += int(n)
	if len(d.groups) > 0 && n > 0 {
		d.groups[d.group(i)].Existed += int(n)
	}
}

// command says how many of the keys at indexes, from the first on, one command may delete: those of one group.
func (d *doomed) command(indexes []int) int {
	n := min(len(indexes), eraseCommand)
	if len(d.groups) == 0 {
		return n
	}
	end := d.groups[d.group(indexes[0])].End
	for i := 1; i < n; i++ {
		if indexes[i] >= end {
			return i
		}
	}
	return n
}

// unlinkApart deletes from every primary what it serves. What a primary says it does not serve is left.
func (e *Eraser) unlinkApart(ctx context.Context, d *doomed) error {
	l := e.topology.present.Load()
	apart := make(map[*node][]int, len(l.nodes))
	left := d.left
	d.left = nil
	for _, i := range left {
		n := l.slots[0].node
		if len(l.slots) > 1 {
			n = l.at(slotOf(d.keys[i])).node
		}
		if n.writer == nil {
			d.left = append(d.left, i)
			continue
		}
		apart[n] = append(apart[n], i)
	}
	var all sync.WaitGroup
	errs := make([]error, 0, len(apart))
	for n, indexes := range apart {
		if len(apart) == 1 {
			return e.unlinkAt(ctx, n, d, indexes)
		}
		all.Go(func() {
			err := e.unlinkAt(ctx, n, d, indexes)
			d.mu.Lock()
			defer d.mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	return joined(errs)
}

// unlinkAt deletes keys from one primary, several by one command where they need not be served by the same slot. It stops at the
// first pipeline with a delete that was neither confirmed nor refused because the key is served elsewhere.
func (e *Eraser) unlinkAt(ctx context.Context, n *node, d *doomed, indexes []int) error {
	keeps := e.topology.kind != oneServer
	var commands rueidis.Commands
	var counts []int // how many keys each command deletes
	for len(indexes) > 0 {
		batch := indexes[:min(len(indexes), eraseBatch)]
		indexes = indexes[len(batch):]
		commands, counts = commands[:0], counts[:0]
		for left := batch; len(left) > 0; left = left[counts[len(counts)-1]:] {
			count := 1
			if e.topology.kind != inCluster {
				count = d.command(left)
			}
			command := n.writer.B().Unlink().Key(d.keys[left[0]])
			for _, i := range left[1:count] {
				command = command.Key(d.keys[i])
			}
			commands, counts = append(commands, command.Build()), append(counts, count)
		}
		if keeps {
			commands = append(commands, n.writer.B().Role().Build()) // where in its history the deletes lie
		}
		replies := n.writer.DoMulti(ctx, commands...)
		gone, failed, first := d.answered(batch, counts, replies, keeps)
		if keeps {
			e.keep(n, gone, replies[len(counts)])
		}
		if first != nil {
			return fmt.Errorf("delete %d keys, %d without an answer: %w", len(batch), failed, first)
		}
	}
	return nil
}

// answered takes the answers to the deletes of a batch, of which each command has deleted as many keys as counts says.
func (d *doomed) answered(batch, counts []int, replies []rueidis.RedisResult, keeps bool) (gone deleted, failed int, first error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, count := range counts {
		indexes := batch[:count]
		batch = batch[count:]
		n, err := replies[at].AsInt64()
		switch {
		case err == nil:
			d.count(indexes[0], n)
			if keeps {
				for _, i := range indexes {
					gone.keys = append(gone.keys, d.keys[i])
				}
			}
		case keeps && elsewhere(err):
			d.left = append(d.left, indexes...)
		default:
			if failed += count; first == nil {
				first = err
			}
		}
	}
	return gone, failed, first
}

// unlinkMatching deletes every key that matches the pattern and may be deleted. A key that is there from the beginning
// to the end is found; one that comes meanwhile may be.
//
// A key that moves from a primary that is not scanned yet to one that has been is found by another pass: on its way from
// one to the other it moves once. So the passes end with one during which no slot moved, or with the second of two that
// saw the same slots on their way.
func (e *Eraser) unlinkMatching(ctx context.Context, pattern string, progress func(existed int)) (existed int, err error) {
	var before, present moves
	if present, err = e.moves(ctx); err != nil {
		return 0, fmt.Errorf("scan for %q: %w", pattern, err)
	}
	for pass := 1; ; pass++ {
		nodes := e.topology.present.Load().nodes
		var counting sync.Mutex
		err := e.everywhere(nodes, func(n *node) error {
			return e.unlinkScanned(ctx, n, pattern, func(string) bool { return true }, func(count int) {
				counting.Lock()
				defer counting.Unlock()
				existed += count
				progress(existed)
			})
		})
		if err != nil {
			return existed, fmt.Errorf("scan for %q: %w", pattern, err)
		}
		after, err := e.moves(ctx)
		if err != nil {
			return existed, fmt.Errorf("scan for %q: %w", pattern, err)
		}
		if after == present && (!after.moving || pass > 1 && before == present) {
			return existed, nil
		}
		before, present = present, after
	}
}

// unlinkScanned deletes what one primary holds that matches the pattern, is wanted, and may be deleted. After each page
// counted is told how many keys of it there were.
func (e *Eraser) unlinkScanned(ctx context.Context, n *node, pattern string, wanted func(key string) bool, counted func(existed int)) error {
	var cursor uint64
	for {
		page, err := n.writer.Do(ctx, n.writer.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		keys := page.Elements[:0]
		for _, key := range page.Elements {
			if !spared(e.prefix, key) && wanted(key) {
				keys = append(keys, key)
			}
		}
		count, err := e.unlink(ctx, keys, nil)
		counted(count)
		if err != nil {
			return err
		}
		if cursor = page.Cursor; cursor == 0 {
			break
		}
	}
	if e.topology.kind != oneServer {
		// What the scan did not find may come back with a primary that has not heard of its end.
		e.keep(n, deleted{patterns: []string{pattern}}, n.writer.Do(ctx, n.writer.B().Role().Build()))
	}
	return nil
}

// moves are how slots stand and move, as far as it can be compared.
type moves struct {
	layouts uint64 // how many there have been
	epochs  uint64 // sum of the claims' epochs: each move that ends raises one
	moving  bool   // some slots are on their way
}

// moves asks for them.
func (e *Eraser) moves(ctx context.Context) (moves, error) {
	t := e.topology
	if t.kind == oneServer {
		return moves{}, nil
	}
	if err := t.take(ctx); err != nil {
		return moves{}, err
	}
	defer t.leave()
	views, err := t.surveyLocked(ctx)
	if err != nil {
		return moves{}, err
	}
	m := moves{layouts: t.changes.Load()}
	for i := range views {
		m.moving = m.moving || views[i].moving
		m.epochs += views[i].epochs[views[i].self]
	}
	return m, nil
}
