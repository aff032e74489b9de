package cache

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/redis/rueidis"
)

// Scan gives every full key that matches the pattern, in Valkey's glob syntax, page by page: a page is what one SCAN answers, of
// every primary in turn, and may be empty. A key that exists all the time is given, perhaps twice; one that comes meanwhile may be. An error is the
// last that is given.
func (e *Eraser) Scan(ctx context.Context, pattern string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		nodes := e.topology.present.Load().nodes
		if len(nodes) == 0 {
			yield(nil, fmt.Errorf("scan for %q: %w", pattern, errNoPrimary))
		}
		for _, n := range nodes {
			if !scanNode(ctx, n.writer, pattern, yield) {
				return
			}
		}
	}
}

// scanNode says whether more is wanted.
func scanNode(ctx context.Context, client rueidis.Client, pattern string, yield func([]string, error) bool) bool {
	var cursor uint64
	for {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
		if err != nil {
			yield(nil, fmt.Errorf("scan for %q: %w", pattern, readRight(err)))
			return false
		}
		if !yield(page.Elements, nil) {
			return false
		}
		if cursor = page.Cursor; cursor == 0 {
			return true
		}
	}
}

// Outline gives of each full key what can be told without looking into it: type, rest of life, memory. A key that is gone has
// the type "none".
func (e *Eraser) Outline(ctx context.Context, fullKeys []string) ([]Entry, error) {
	const questions = 3
	l := e.topology.present.Load()
	apart := make(map[*node][]int)
	for i, key := range fullKeys {
		n := l.at(slotOf(key)).node
		apart[n] = append(apart[n], i)
	}
	replies := make([]rueidis.RedisResult, questions*len(fullKeys))
	for n, indexes := range apart {
		if n.writer == nil {
			return nil, fmt.Errorf("ask for %q: %w", fullKeys[indexes[0]], errNoPrimary)
		}
		commands := make(rueidis.Commands, 0, questions*len(indexes))
		for _, i := range indexes {
			b, key := n.writer.B(), fullKeys[i]
			commands = append(commands, b.Type().Key(key).Build(), b.Pttl().Key(key).Build(), b.MemoryUsage().Key(key).Build())
		}
		for at, reply := range n.writer.DoMulti(ctx, commands...) {
			replies[questions*indexes[at/questions]+at%questions] = reply
		}
	}
	entries := make([]Entry, 0, len(fullKeys))
	for i, key := range fullKeys {
		kind, err := replies[questions*i].ToString()
		if err != nil {
			return nil, fmt.Errorf("ask for the type of %q: %w", key, readRight(err))
		}
		ms, err := replies[questions*i+1].AsInt64()
		if err != nil {
			return nil, fmt.Errorf("ask for the rest of life of %q: %w", key, readRight(err))
		}
		memory, err := replies[questions*i+2].AsInt64()
		if _, refused := rueidis.IsRedisErr(err); err != nil && !refused && !rueidis.IsRedisNil(err) {
			return nil, fmt.Errorf("ask for the memory of %q: %w", key, err)
		}
		entries = append(entries, Entry{Key: key, Type: kind, TTL: time.Duration(ms) * time.Millisecond, Memory: memory})
	}
	return entries, nil
}

// Spared says that no operation for many keys may delete this full key: sessions and Walkey's own.
func (e *Eraser) Spared(fullKey string) bool { return spared(e.prefix, fullKey) }
