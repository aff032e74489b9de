package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

const (
	// standbyTimeout bounds all that a load does on the standby, before it goes to the primary.
	standbyTimeout = time.Second
	// waitForReplay is how long a load waits for a standby that is behind.
	waitForReplay = 20 * time.Millisecond
	// lookAgain is how often a standby that is not used is looked at, and lookWhileUsed one that is.
	lookAgain     = 500 * time.Millisecond
	lookWhileUsed = 2 * time.Second
)

// Reasons for which a standby is not used. They name no host: the public may read them.
var (
	errNotLooked    = errors.New("not looked at yet")
	errNoAnswer     = errors.New("does not answer")
	errBehind       = errors.New("is behind the primary")
	errPromoted     = errors.New("is no standby any more")
	errOtherCluster = errors.New("is a copy of another cluster")
	errOtherHistory = errors.New("is on another timeline than the primary")
)

// standby is a hot standby that loads may come from.
//
// What is loaded there is no older than what the primary would have given when the load began: the primary is asked how far its WAL
// goes, and the standby, in an earlier statement than the data's, how far it has replayed it. It is the position where WAL is
// inserted, not where it is flushed: a commit that is not waited for is visible before it is flushed. A standby that does not get there
// in a moment is not used until it does, and neither is one that does not answer, was promoted, or is of another history: then loads
// go to the primary without having tried. One goroutine looks whether it can be used again.
type standby struct {
	primary *pgxpool.Pool
	pool    *pgxpool.Pool
	ungated bool // StoreOptions.NoStandbyLSN
	log     *zap.Logger

	fault    atomic.Pointer[error] // why it is not used; nil when it is
	served   atomic.Uint64         // loads that came from it
	refused  atomic.Uint64         // loads that did not, after an attempt
	bypassed atomic.Uint64         // loads that did not, without one

	trouble  chan struct{} // holds one when a load has found a fault
	stop     context.CancelFunc
	watching sync.WaitGroup
}

func openStandby(ctx context.Context, primary *pgxpool.Pool, o StoreOptions) (*standby, error) {
	config, err := pgxpool.ParseConfig(o.ReplicaURL)
	if err != nil {
		return nil, fmt.Errorf("reading the standby's URL: %w", err)
	}
	prepareConfig(config, o.ReplicaURL, o.Loads)
	// In a snapshot that is kept for a transaction the data would be older than the position that is read before it.
	config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("preparing the connections to the standby: %w", err)
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &standby{primary: primary, pool: pool, ungated: o.NoStandbyLSN, log: o.Logger, trouble: make(chan struct{}, 1), stop: stop}
	s.fault.Store(&errNotLooked)
	s.watching.Go(func() { s.watch(watching) })
	return s, nil
}

func (s *standby) close() {
	s.stop()
	s.watching.Wait()
	s.pool.Close()
}

// usable is nil, or why the standby is not used.
func (s *standby) usable() error {
	if fault := s.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// blame notes why the standby is not to be used.
func (s *standby) blame(fault error) {
	former := s.fault.Swap(&fault)
	if former == nil || !errors.Is(*former, fault) {
		s.log.Warn("loads go to the primary, not to the standby", zap.NamedError("reason", fault))
	}
	if former != nil {
		return
	}
	select {
	case s.trouble <- struct{}{}:
	default:
	}
}

// watch looks at the standby now and then, until ctx ends.
func (s *standby) watch(ctx context.Context) {
	for {
		wait := lookWhileUsed
		if fault := s.look(ctx); fault == nil {
			if s.fault.Swap(nil) != nil {
				s.log.Info("loads go to the standby")
			}
		} else if ctx.Err() == nil {
			s.blame(fault)
			s.pool.Reset() // what lies idle may be dead
			wait = lookAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.trouble:
			// It was found just now; give it time.
			timer.Reset(lookAgain)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// look says what is wrong with the standby. That the primary does not answer is nothing of it.
func (s *standby) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, standbyTimeout)
	defer cancel()
	want, err := s.mark(ctx)
	if err != nil {
		return s.usable()
	}
	return s.ask(ctx, want, lookAgain, nil)
}

// mark is how far the primary's WAL goes, and whose it is.
type mark struct {
	position uint64
	timeline string // as in the name of a file of WAL
	system   string
}

const markSQL = `SELECT pg_current_wal_insert_lsn()::text, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
	(SELECT system_identifier::text FROM pg_control_system()),
	current_setting('wal_block_size')::bigint, pg_size_bytes(current_setting('wal_segment_size'))`

func (s *standby) mark(ctx context.Context) (m mark, err error) {
	var position string
	var block, segment uint64
	if err := s.primary.QueryRow(ctx, markSQL).Scan(&position, &m.timeline, &m.system, &block, &segment); err != nil {
		return mark{}, err
	}
	at, ok := parsePosition(position)
	if !ok {
		return mark{}, fmt.Errorf("a position in the WAL is %q", position)
	}
	m.position = beforeHeader(at, block, segment)
	return m, nil
}

// Sizes of the headers that begin each page of WAL and each segment's first page.
const (
	shortHeader = 24
	longHeader  = 40
)

// beforeHeader rounds a position that lies just behind a page's header down to the page's start, which is as far as a standby comes
// while nothing follows.
func beforeHeader(position, block, segment uint64) uint64 {
	switch {
	case position%segment == longHeader:
		return position - longHeader
	case position%block == shortHeader:
		return position - shortHeader
	}
	return position
}

// The timeline in the control file may be that of before a switch, until the next restart point: then the standby is not used for that
// long.
const reachedSQL = `SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn(), '0/0')::text,
	(SELECT system_identifier::text FROM pg_control_system()),
	lpad(upper(to_hex(greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery())))), 8, '0')`

// question is what a load asks for.
type question struct {
	sql     string
	args    []any
	collect func(pgx.Rows) error // may be called several times; the last one counts
}

// ask asks the standby once it has come as far as want, for which it waits for patience at most. The question may be nil. An error
// says that there is no answer, and why the standby is not to be used; unless it is a *refusal, of this question alone.
func (s *standby) ask(ctx context.Context, want mark, patience time.Duration, q *question) error {
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause *= 2 {
		behind, err := s.once(ctx, want, q)
		if !behind || err != nil {
			return err
		}
		if time.Now().Add(pause).After(end) {
			return errBehind
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errBehind
		}
	}
}

// refusal is what the standby says of a statement, where the primary may say something else: a conflict with what it replays, a table
// that has not arrived yet.
type refusal struct{ error }

// once asks the standby in one round trip, in which each statement has a snapshot of its own: how far it is, then the question, and
// then whether it was a standby all that time.
func (s *standby) once(ctx context.Context, want mark, q *question) (behind bool, err error) {
	var batch pgx.Batch
	batch.Queue(reachedSQL)
	if q != nil {
		batch.Queue(q.sql, q.args...)
	}
	batch.Queue(`SELECT pg_is_in_recovery()`)
	results := s.pool.SendBatch(ctx, &batch)
	defer func() { _ = results.Close() }() // what it says has been read
	var recovers bool
	var reached, system, timeline string
	if err := results.QueryRow().Scan(&recovers, &reached, &system, &timeline); err != nil {
		s.log.Debug("the standby does not say how far it is", zap.Error(err))
		return false, errNoAnswer
	}
	position, _ := parsePosition(reached)
	switch {
	case !recovers:
		return false, errPromoted
	case system != want.system:
		return false, errOtherCluster
	case s.ungated:
	case timeline != want.timeline:
		return false, errOtherHistory
	case position < want.position:
		return true, nil
	}
	if q != nil {
		rows, err := results.Query()
		if err == nil {
			err = q.collect(rows)
			rows.Close()
		}
		if err != nil {
			return false, s.explain(ctx, err)
		}
	}
	if err := results.QueryRow().Scan(&recovers); err != nil {
		return false, s.explain(ctx, err)
	}
	if !recovers {
		return false, errPromoted
	}
	return false, nil
}

// explain tells what the server says of one statement from a server that can't be used.
func (s *standby) explain(ctx context.Context, err error) error {
	server, answered := errors.AsType[*pgconn.PgError](err)
	if answered && !Unreachable(err) && ctx.Err() == nil {
		return &refusal{server}
	}
	s.log.Debug("the standby gave no answer", zap.Error(err))
	return errNoAnswer
}

// load answers a question from the standby, if that can be used.
func (s *standby) load(ctx context.Context, q question) (answered bool) {
	if s.fault.Load() != nil {
		s.bypassed.Add(1)
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, standbyTimeout)
	defer cancel()
	want, err := s.mark(bounded)
	if err != nil {
		s.bypassed.Add(1)
		return false // the primary will say it again
	}
	if err = s.ask(bounded, want, waitForReplay, &q); err == nil {
		s.served.Add(1)
		return true
	}
	s.refused.Add(1)
	if _, single := errors.AsType[*refusal](err); !single && ctx.Err() == nil {
		s.blame(err)
	}
	return false
}
