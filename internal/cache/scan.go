package cache

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// Scan gives every full key that matches the pattern, in Valkey's glob syntax, page by page: a page is what one SCAN answers, of
// every primary in turn, and may be empty. A key that exists all the time is given, perhaps twice; one that comes meanwhile may be. An error is the
// last that is given.
func (e *Eraser) Scan(ctx context.Context, pattern string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		nodes := e.client.Nodes()
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			if !scanNode(ctx, nodes[name], pattern, yield) {
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
	commands := make(rueidis.Commands, 0, questions*len(fullKeys))
	for _, key := range fullKeys {
		commands = append(commands, e.client.B().Type().Key(key).Build(), e.client.B().Pttl().Key(key).Build(), e.client.B().MemoryUsage().Key(key).Build())
	}
	replies := e.client.DoMulti(ctx, commands...)
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
