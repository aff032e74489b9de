package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/torture/ledger"
)

const (
	writers  = 3
	slots    = 9          // rows; each writer owns every third
	moved    = 100        // a row's id is its slot's number, or that and moved
	original = "original" // the version of the rows that the run begins with
)

// title is the text of a row: the id, a point, a number that no other change has.
func title(id int, version int64) string { return fmt.Sprintf("%d.%d", id, version) }

// kind is the material_type of an id, which never changes.
func kind(id int) string {
	if id%2 == 0 {
		return "even"
	}
	return "odd"
}

// row is what the database holds of a slot.
type row struct {
	id     int // 0: there is none
	title  string
	active bool
}

// writing changes rows by SQL. While it runs it alone changes them.
type writing struct {
	world   *world
	history *ledger.History
	version atomic.Int64
	pace    time.Duration
	ballast bool // some transactions have it, so that they are streamed while they are open

	// turn is held for reading by each transaction, and for writing by what concerns all rows: TRUNCATE, and looking what a
	// crash has left.
	turn       sync.RWMutex
	noTruncate atomic.Bool    // TRUNCATE would let readers wait for as long as its commit hangs
	rows       [slots + 1]row // each used by its writer alone while it holds turn

	token atomic.Pointer[written] // of a late write

	commits, rollbacks, lost atomic.Int64
}

// startWriting puts in the rows.
func startWriting(ctx context.Context, w *world, pace time.Duration, ballast bool) (*writing, error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	s := &writing{world: w, pace: pace, ballast: ballast}
	if _, err := conn.Exec(ctx, "create table ballast (text text)"); err != nil {
		return nil, err
	}
	before, after := map[int]ledger.State{}, map[int]ledger.State{}
	for slot := 1; slot <= slots; slot++ {
		before[slot], before[slot+moved] = ledger.Absent, ledger.Absent
		after[slot] = fmt.Sprintf("%d.%s", slot, original)
	}
	s.history = ledger.NewHistory(time.Now(), before)
	s.history.Early = w.standby != nil
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	for slot := 1; slot <= slots; slot++ {
		r := row{id: slot, title: after[slot], active: true}
		if _, err := tx.Exec(ctx, "insert into materials (id, title, material_type) overriding system value values ($1, $2, $3)", r.id, r.title, kind(r.id)); err != nil {
			return nil, err
		}
		s.rows[slot] = r
	}
	change := s.history.Begin(time.Now(), after)
	if err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	change.Committed(time.Now())
	return s, nil
}

// run writes until ctx ends.
func (s *writing) run(ctx context.Context, seed uint64) {
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() { s.write(ctx, n, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	all.Wait()
}

// write is one writer.
func (s *writing) write(ctx context.Context, n int, random *rand.Rand) {
	var conn *pgx.Conn
	last := context.WithoutCancel(ctx) // a commit must not be torn from its entry in the history
	defer func() {
		if conn != nil {
			_ = conn.Close(last)
		}
	}()
	for ctx.Err() == nil {
		var err error
		if conn == nil {
			conn, err = s.world.connect(ctx)
		}
		if err == nil {
			err = s.change(last, conn, n, random)
		}
		if err != nil {
			if conn != nil {
				_ = conn.Close(last)
				conn = nil
				s.recover(ctx)
			}
			_ = pause(ctx, 50*time.Millisecond)
			continue
		}
		if s.pace > 0 {
			_ = pause(ctx, time.Duration(random.Int64N(int64(2*s.pace))))
		}
	}
}

// change is one transaction of a kind that chance chooses.
func (s *writing) change(ctx context.Context, conn *pgx.Conn, n int, random *rand.Rand) error {
	dice := random.IntN(100)
	if dice < 2 {
		if !s.turn.TryLock() {
			return nil // somebody's commit hangs: not now
		}
		defer s.turn.Unlock()
		if s.noTruncate.Load() {
			return nil
		}
		return s.truncate(ctx, conn)
	}
	s.turn.RLock()
	defer s.turn.RUnlock()
	own := make([]int, 0, slots)
	for slot := 1; slot <= slots; slot++ {
		if slot%writers == n {
			own = append(own, slot)
		}
	}
	random.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
	t := transaction{async: random.IntN(6) == 0, rollback: random.IntN(12) == 0, rows: map[int]row{}}
	if random.IntN(4) > 0 {
		own = own[:1]
	}
	for _, slot := range own {
		s.alter(&t, slot, random.IntN(100))
	}
	if s.ballast && random.IntN(5) == 0 {
		// Before, between or behind the changes that count, and in a subtransaction, which may be taken back.
		save := "release ballast"
		if random.IntN(2) == 0 {
			save = "rollback to ballast"
		}
		t.sql = slices.Insert(t.sql, random.IntN(len(t.sql)+1),
			"savepoint ballast; insert into ballast select repeat('x', 100) from generate_series(1, 600); "+save)
	}
	return s.commit(ctx, conn, t)
}

// transaction is what is about to be done.
type transaction struct {
	async    bool
	rollback bool
	sql      []string
	rows     map[int]row // by slot, as they are afterwards
}

// alter adds a change of one slot.
func (s *writing) alter(t *transaction, slot, dice int) {
	r := s.rows[slot]
	version := s.version.Add(1)
	was := r.id
	switch {
	case r.id == 0:
		r = row{id: slot, title: title(slot, version), active: true}
		t.sql = append(t.sql, fmt.Sprintf("insert into materials (id, title, material_type) overriding system value values (%d, '%s', '%s')", r.id, r.title, kind(r.id)))
	case dice < 8: // another primary key
		r.id = 2*slot + moved - r.id
		r.title = title(r.id, version)
		t.sql = append(t.sql, fmt.Sprintf("update materials set id = %d, title = '%s' where id = %d", r.id, r.title, was))
	case dice < 14:
		r.active = !r.active
		r.title = title(r.id, version)
		t.sql = append(t.sql, fmt.Sprintf("update materials set is_active = %t, title = '%s' where id = %d", r.active, r.title, was))
	case dice < 18:
		r = row{}
		t.sql = append(t.sql, fmt.Sprintf("delete from materials where id = %d", was))
	default:
		r.title = title(r.id, version)
		t.sql = append(t.sql, fmt.Sprintf("update materials set title = '%s' where id = %d", r.title, was))
	}
	t.rows[slot] = r
}

// truncate empties the table and puts all rows in again, with new versions, at once.
func (s *writing) truncate(ctx context.Context, conn *pgx.Conn) error {
	t := transaction{sql: []string{"truncate materials"}, rows: map[int]row{}}
	for slot := 1; slot <= slots; slot++ {
		r := row{id: slot, title: title(slot, s.version.Add(1)), active: true}
		t.rows[slot] = r
		t.sql = append(t.sql, fmt.Sprintf("insert into materials (id, title, material_type) overriding system value values (%d, '%s', '%s')", r.id, r.title, kind(r.id)))
	}
	return s.commit(ctx, conn, t)
}

// commit runs a transaction and enters it in the history.
func (s *writing) commit(ctx context.Context, conn *pgx.Conn, t transaction) error {
	begin := "begin"
	if t.async {
		begin = "begin; set local synchronous_commit = off"
	}
	if _, err := conn.Exec(ctx, begin+"; "+strings.Join(t.sql, "; ")); err != nil {
		return err
	}
	if t.rollback {
		_, err := conn.Exec(ctx, "rollback")
		if err == nil {
			s.rollbacks.Add(1)
		}
		return err
	}
	states := map[int]ledger.State{}
	for slot, r := range t.rows {
		for id, state := range r.states(slot) {
			if state != s.rows[slot].states(slot)[id] {
				states[id] = state
			}
		}
	}
	change := s.history.Begin(time.Now(), states)
	if _, err := conn.Exec(ctx, "commit"); err != nil {
		return err
	}
	change.Committed(time.Now())
	for slot, r := range t.rows {
		s.rows[slot] = r
	}
	// A crash may take a commit back that is not waited for, and with it the meaning of its token.
	if n := s.commits.Add(1); n%tokenEvery == 0 && !t.async {
		var position string
		if err := conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&position); err != nil {
			return err
		}
		s.token.Store(&written{position, change.Floor()})
	}
	return nil
}

// tokenEvery is how many commits there are for each whose token is asked for.
const tokenEvery = 4

// written is a write as a client that made it knows it.
type written struct {
	token string
	floor ledger.Floor
}

// states are what a slot's two ids show.
func (r row) states(slot int) map[int]ledger.State {
	states := map[int]ledger.State{slot: ledger.Absent, slot + moved: ledger.Absent}
	if r.id != 0 && r.active {
		states[r.id] = r.title
	}
	return states
}

// recover looks what the database holds after its connections were lost, with no transaction under way, and gives the history that
// truth.
func (s *writing) recover(ctx context.Context) {
	s.turn.Lock()
	defer s.turn.Unlock()
	_ = s.lookLocked(ctx) // whoever finds the connection lost next tries again
}

// look is recover for who wants to know what the truth is.
func (s *writing) look(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.lookLocked(ctx)
}

func (s *writing) lookLocked(ctx context.Context) error {
	rows, err := s.truth(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	truth := map[int]ledger.State{}
	for slot := 1; slot <= slots; slot++ {
		if rows[slot] != s.rows[slot] {
			s.lost.Add(1)
		}
		s.rows[slot] = rows[slot]
		for id, state := range rows[slot].states(slot) {
			truth[id] = state
		}
	}
	s.history.Recovered(now, truth)
	return nil
}

// truth reads all rows, once the database answers.
func (s *writing) truth(ctx context.Context) (rows [slots + 1]row, err error) {
	err = eventually(ctx, func(ctx context.Context) error {
		conn, err := s.world.connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		found, err := conn.Query(ctx, "select id, title, is_active from materials")
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(found, func(found pgx.CollectableRow) (r row, err error) {
			return r, found.Scan(&r.id, &r.title, &r.active)
		})
		if err != nil {
			return err
		}
		rows = [slots + 1]row{}
		for _, r := range all {
			slot := r.id % moved
			if slot < 1 || slot > slots || rows[slot].id != 0 {
				return errors.New("rows that the run did not write")
			}
			rows[slot] = r
		}
		return nil
	})
	return rows, err
}
