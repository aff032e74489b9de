package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// An Eraser deletes what has changed, and beats. Nothing in it repeats an attempt: an error means that the outcome is
// not known, and all its operations may be repeated. Every operation ends with its context. It is safe for concurrent use.
//
// Where Valkey fails over, it also keeps what it has deleted, so that it can be deleted again from a primary that lacks it;
// see [Eraser.Mend].
type Eraser struct {
	topology *topology
	prefix   string
	note     string // full key
	noReplay bool   // Switches.NoReplay
	ledger   ledger
	tokens   *tokens // of what is withdrawn

	mu       sync.Mutex
	found    *primaries // guarded by mu: what Identify has seen last
	whole    *primaries // guarded by mu: those that lack no delete; nil when that is not known of any
	holder   string     // guarded by mu: of the heartbeat and the progress
	beat     uint64     // guarded by mu: the number that every primary holds, when holder is set
	position uint64     // guarded by mu: of the progress
	claimed  map[*node]string
}

// OpenEraser makes an Eraser. Only a wrong configuration is an error: Valkey may come later.
func OpenEraser(o Options) (*Eraser, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	e := &Eraser{
		topology: newTopology(o, func() time.Duration { return time.Since(begun) }),
		prefix:   o.Prefix,
		note:     FullKey(o.Prefix, noteName),
		noReplay: o.Switches.NoReplay,
		tokens:   newTokens(false),
	}
	e.topology.make = func(address string, _ int) (*node, error) {
		client, err := connectLine(eraserOptions(o, address), o.Logger)
		if err != nil {
			return nil, err
		}
		return &node{address: address, writer: client}, nil
	}
	if err := e.topology.open(); err != nil {
		return nil, fmt.Errorf("set up the connection to Valkey: %w", err)
	}
	return e, nil
}

// Close ends the connections.
func (e *Eraser) Close() {
	e.topology.close()
	e.topology.closeClients()
}

// Delete deletes keys and says how many of them existed. When it returns no error, every single delete was answered.
func (e *Eraser) Delete(ctx context.Context, fullKeys []string) (existed int, err error) {
	return e.unlink(ctx, fullKeys, nil)
}

// A Group is some of the keys of a delete, one behind another.
type Group struct {
	End     int // the index behind its last key; it begins at the End of the group before
	Existed int // how many of its keys there were
}

// DeleteGroups is Delete, and adds to the Existed of each group how many of its keys there were. The last group ends with the keys. A key
// whose delete was answered stays counted when the call is repeated.
func (e *Eraser) DeleteGroups(ctx context.Context, fullKeys []string, groups []Group) (existed int, err error) {
	return e.unlink(ctx, fullKeys, groups)
}

// DeleteMatching deletes every key that matches one of the patterns, full keys in Valkey's glob syntax, and says how many
// there were. A key that exists all the time is found, also while it moves from one primary to another. Sessions and Walkey's
// own keys are never touched.
func (e *Eraser) DeleteMatching(ctx context.Context, patterns []string) (existed int, err error) {
	return e.DeleteMatchingTelling(ctx, patterns, func(int) {})
}

// DeleteMatchingTelling is DeleteMatching, and tells progress after each page of the scan how many keys there were so far.
func (e *Eraser) DeleteMatchingTelling(ctx context.Context, patterns []string, progress func(existed int)) (existed int, err error) {
	for _, pattern := range patterns {
		before := existed
		n, err := e.unlinkMatching(ctx, pattern, func(n int) { progress(before + n) })
		existed += n
		if err != nil {
			return existed, err
		}
	}
	return existed, nil
}

// Note reads what SetNote has left; ok is false when nothing has.
func (e *Eraser) Note(ctx context.Context) (value string, ok bool, err error) {
	value, err = e.topology.send(ctx, e.note, "GET", e.note).ToString()
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
var setNote = newScript(`#!lua flags=allow-oom
redis.call('SET', KEYS[1], ARGV[1])
return 1`)

// SetNote leaves a text for the next Note. Its meaning is the caller's.
func (e *Eraser) SetNote(ctx context.Context, value string) error {
	if err := setNote.run(ctx, e.topology, e.note, value).Error(); err != nil {
		return fmt.Errorf("write the note: %w", err)
	}
	return nil
}

// everywhere calls f for each primary, all at a time, and gives what went wrong.
func (e *Eraser) everywhere(nodes []*node, f func(*node) error) error {
	if len(nodes) == 1 {
		return f(nodes[0])
	}
	if len(nodes) == 0 {
		return errNoPrimary
	}
	var all sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		all.Go(func() {
			if err := f(n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.address, err)
			}
		})
	}
	all.Wait()
	return joined(errs)
}

// joined is the first error, with how many more there are.
func joined(errs []error) error {
	var first error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case first == nil:
			first = err
		default:
			more++
		}
	}
	if more > 0 {
		return fmt.Errorf("%w (and %d more)", first, more)
	}
	return first
}
