package cache

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"
)

const (
	eraseBatch = 1000 // commands in one pipeline
	scanCount  = 1000 // keys that Valkey looks at for one reply
)

// unlink deletes keys in pipelines of bounded length and counts those that existed. Every key gets its own command,
// which works in a cluster too. It stops at the first pipeline with a delete that was not confirmed. Unless it is nil, each
// gets a true for every key that existed.
func unlink(ctx context.Context, client rueidis.Client, fullKeys []string, each []bool) (existed int, err error) {
	commands := make(rueidis.Commands, 0, min(len(fullKeys), eraseBatch))
	for len(fullKeys) > 0 {
		batch := fullKeys[:min(len(fullKeys), eraseBatch)]
		fullKeys = fullKeys[len(batch):]
		commands = commands[:0]
		for _, key := range batch {
			commands = append(commands, client.B().Unlink().Key(key).Build())
		}
		failed := 0
		var first error
		for i, reply := range client.DoMulti(ctx, commands...) {
			n, err := reply.AsInt64()
			if err != nil {
				if failed++; first == nil {
					first = err
				}
				continue
			}
			existed += int(n)
			if each != nil && n > 0 {
				each[i] = true
			}
		}
		if each != nil {
			each = each[len(batch):]
		}
		if first != nil {
			return existed, fmt.Errorf("delete %d keys, %d without an answer: %w", len(batch), failed, first)
		}
	}
	return existed, nil
}

// unlinkMatching deletes every key that matches the pattern and may be deleted. A key that is there from the beginning
// to the end of the scan is found; one that comes meanwhile may be. After each page progress is told how many there were so
// far.
func unlinkMatching(ctx context.Context, client rueidis.Client, prefix, pattern string, progress func(existed int)) (existed int, err error) {
	var cursor uint64
	for {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
		if err != nil {
			return existed, fmt.Errorf("scan for %q: %w", pattern, err)
		}
		keys := page.Elements[:0]
		for _, key := range page.Elements {
			if !spared(prefix, key) {
				keys = append(keys, key)
			}
		}
		n, err := unlink(ctx, client, keys, nil)
		existed += n
		if err != nil {
			return existed, err
		}
		progress(existed)
		if cursor = page.Cursor; cursor == 0 {
			return existed, nil
		}
	}
}
