package cache

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"
)

// An Eraser deletes what has changed, and beats. Nothing in it repeats an attempt: an error means that the outcome is
// not known, and all its operations may be repeated. Every operation ends with its context. It is safe for concurrent use.
type Eraser struct {
	client    rueidis.Client
	prefix    string
	heartbeat string // full key
	note      string // full key
	progress  string // full key
}

// OpenEraser makes an Eraser. Only a wrong configuration is an error: Valkey may come later.
func OpenEraser(o Options) (*Eraser, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	client, err := connect(eraserOptions(o), o.Logger)
	if err != nil {
		return nil, fmt.Errorf("set up the connection to Valkey: %w", err)
	}
	return &Eraser{
		client:    client,
		prefix:    o.Prefix,
		heartbeat: FullKey(o.Prefix, heartbeatName),
		note:      FullKey(o.Prefix, noteName),
		progress:  FullKey(o.Prefix, progressName),
	}, nil
}

// Close ends the connection.
func (e *Eraser) Close() { e.client.Close() }

// Delete deletes keys and says how many of them existed. When it returns no error, every single delete was answered.
func (e *Eraser) Delete(ctx context.Context, fullKeys []string) (existed int, err error) {
	return unlink(ctx, e.client, fullKeys, nil)
}

// DeleteEach is Delete, and sets existed[i] where the i-th key existed; it sets none to false. A key whose delete was
// answered stays noted when the call is repeated.
func (e *Eraser) DeleteEach(ctx context.Context, fullKeys []string, existed []bool) (n int, err error) {
	_, err = unlink(ctx, e.client, fullKeys, existed)
	for _, one := range existed {
		if one {
			n++
		}
	}
	return n, err
}

// DeleteMatching deletes every key that matches one of the patterns, full keys in Valkey's glob syntax, and says how many
// there were. A key that exists all the time is found. Sessions and Walkey's own keys are never touched.
func (e *Eraser) DeleteMatching(ctx context.Context, patterns []string) (existed int, err error) {
	return e.DeleteMatchingTelling(ctx, patterns, func(int) {})
}

// DeleteMatchingTelling is DeleteMatching, and tells progress after each page of the scan how many keys there were so far.
func (e *Eraser) DeleteMatchingTelling(ctx context.Context, patterns []string, progress func(existed int)) (existed int, err error) {
	for _, pattern := range patterns {
		before := existed
		n, err := unlinkMatching(ctx, e.client, e.prefix, pattern, func(n int) { progress(before + n) })
		existed += n
		if err != nil {
			return existed, err
		}
	}
	return existed, nil
}

// Note reads what SetNote has left; ok is false when nothing has.
func (e *Eraser) Note(ctx context.Context) (value string, ok bool, err error) {
	value, err = e.client.Do(ctx, e.client.B().Get().Key(e.note).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the note: %w", err)
	}
	return value, true, nil
}

// The note and the heartbeat are written although Valkey's memory is full: they take no more room than before, and
// without them every reader would have to do without what is stored.
var setNote = rueidis.NewLuaScript(`#!lua flags=allow-oom
redis.call('SET', KEYS[1], ARGV[1])
return 1`)

// SetNote leaves a text for the next Note. Its meaning is the caller's.
func (e *Eraser) SetNote(ctx context.Context, value string) error {
	if err := setNote.Exec(ctx, e.client, []string{e.note}, []string{value}).Error(); err != nil {
		return fmt.Errorf("write the note: %w", err)
	}
	return nil
}
