package invalidate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walkey/internal/cdc"
)

const (
	// mendEvery is how often it is tried again to add a table to the publication.
	mendEvery = 30 * time.Second
	// mendTimeout bounds how long the publication may wait for a lock on a table.
	mendTimeout = 500 * time.Millisecond
	// mostRest bounds how long no proof is begun after uncovered tables' keys were deleted.
	mostRest = time.Second
)

// watch looks at the catalog for what the stream does not tell: tables rewritten, altered, replaced, attached, detached,
// truncated by their partitions, taken out of the publication or put back. It deletes the keys of such a table.
//
// Each look is part of the proof of a beat: it begins after the moment that the beat speaks of, and the beat is written
// after the deletes. The bound on the age of answers therefore holds for these changes, too.
//
// It belongs to one session and its goroutine.
type watch struct {
	*session
	roots     cdc.Roots
	question  *question
	glance    string
	seen      map[cdc.Table]sight // as of the last look that found news
	uncovered []cdc.Table         // tables of which not every change reaches the stream: their keys go with each proof
	absent    bool                // one of them could be added to the publication
	mendAfter time.Time
	restUntil time.Time
	fresh     bool // everything has just been deleted, and how the tables were before is not known
}

// open looks for the first time, before the stream begins: the stream must know from its first row which relations belong
// to which table.
func (w *watch) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c, err := readCatalog(ctx, w.primary.conn, w.opts.Rules.Tables(), w.opts.Publication)
	if err != nil {
		return err
	}
	w.roots.Store(c.roots())
	w.seen = w.sights(c)
	return nil
}

func (w *watch) sights(c *catalog) map[cdc.Table]sight {
	sights := map[cdc.Table]sight{}
	for _, t := range w.opts.Rules.Tables() {
		sights[t] = c.sight(t)
	}
	return sights
}

// begin looks again once the stream has begun. Keys of what has changed since open (changes of a partition that was not yet
// known may have been skipped) or since the session before are deleted.
func (w *watch) begin(ctx context.Context, old *note) (err error) {
	if w.question, err = newQuestion(ctx, w.primary, w.stream.Session().ServerVersion, w.opts.Rules.Tables(), w.opts.Publication); err != nil {
		return err
	}
	since := map[string]string{}
	if old != nil {
		since = old.Tables
		if old.SystemID == w.note.SystemID && old.Timeline == w.note.Timeline {
			w.note.Unsettled = old.Unsettled
		}
	}
	w.note.Tables = since
	w.fresh = len(since) == 0
	defer func() { w.fresh = false }()
	if err := w.news(ctx); err != nil {
		return err
	}
	return w.settle(ctx)
}

// look is called between the beginning of a proof and its end, with a glance that was taken after the moment that the beat will
// speak of.
func (w *watch) look(ctx context.Context, glance string) error {
	if glance != w.glance || w.absent && time.Now().After(w.mendAfter) {
		if err := w.news(ctx); err != nil {
			return err
		}
	} else if err := w.settle(ctx); err != nil {
		return err
	}
	return w.eraseUncovered(ctx)
}

// mustRest reports whether the next proof has to wait, so that deleting the keys of uncovered tables again and again leaves
// room for other work.
func (w *watch) mustRest() bool { return time.Now().Before(w.restUntil) }

// unsure reports whether the stream passes over changes whose keys are not deleted yet: of uncovered tables, or of a
// transaction that was open when a table changed. Progress stands still for as long.
func (w *watch) unsure() bool { return len(w.uncovered) > 0 || len(w.note.Unsettled) > 0 }

// news finds out what has changed, and deletes the keys of those tables.
func (w *watch) news(ctx context.Context) error {
	// Whatever changes between the glance and the reading makes the next glance another one.
	_, glance, err := w.question.ask(ctx)
	if err != nil {
		return err
	}
	c, j, err := w.read(ctx)
	if err != nil {
		return err
	}
	if c.publication == nil {
		return fmt.Errorf("look at the catalog: publication %q: %w", w.opts.Publication, cdc.ErrPublicationMissing)
	}
	// From now on changes come under the right name. Those that came before are visible by the snapshot that is taken
	// next, or their transactions are open then.
	w.roots.Store(c.roots())
	changed, seen := map[cdc.Table]string{}, w.sights(c)
	tables := map[string]string{}
	for t, now := range seen {
		tables[t.String()] = now.hash()
		if what := now.differs(w.seen[t]); what != "" {
			changed[t] = what
		} else if w.note.Tables[t.String()] != now.hash() {
			changed[t] = "since the session before"
		}
	}
	w.tell(&j)
	if len(changed) > 0 {
		if err := w.replaced(ctx, changed); err != nil {
			return err
		}
		w.note.Tables = tables
		if err := w.writeNote(ctx); err != nil {
			return err
		}
	}
	uncovered := j.sorted()
	if !slices.Equal(uncovered, w.uncovered) {
		w.opts.observe(Uncovered{uncovered})
	}
	w.glance, w.seen, w.uncovered, w.absent = glance, seen, uncovered, len(j.absent) > 0
	w.metrics.uncovered.Store(int64(len(w.uncovered)))
	return nil
}

// read reads the catalog, once more when tables could be added to the publication.
func (w *watch) read(ctx context.Context) (*catalog, judgement, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	for {
		c, err := readCatalog(ctx, w.primary.conn, w.opts.Rules.Tables(), w.opts.Publication)
		if err != nil {
			return nil, judgement{}, err
		}
		j := c.judge(w.opts.Rules, w.opts.Publication)
		added, err := w.mend(ctx, j.absent)
		if err != nil {
			return nil, judgement{}, err
		}
		if !added {
			return c, j, nil
		}
	}
}

// mend adds relations to the publication where this role may. It says whether it has added one.
func (w *watch) mend(ctx context.Context, absent []cdc.Table) (added bool, err error) {
	if len(absent) == 0 || time.Now().Before(w.mendAfter) {
		return false, nil
	}
	began := time.Now()
	for _, t := range absent {
		if time.Since(began) > queryTimeout/2 {
			break // locks; the rest has its turn with the next look
		}
		sql := fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", identifier(w.opts.Publication), quoted(t))
		err := pgx.BeginFunc(ctx, w.primary.conn, func(tx pgx.Tx) error {
			// The commit need not wait for a synchronous standby; a table under a lock is tried again later.
			if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL synchronous_commit = local; SET LOCAL lock_timeout = %d", mendTimeout.Milliseconds())); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, sql)
			return err
		})
		switch {
		case err == nil:
			added = true
			w.log.Info("added a table to the publication", zap.String("publication", w.opts.Publication), zap.Stringer("table", t))
		case w.primary.conn.IsClosed():
			return false, fmt.Errorf("add %s to the publication: %w", t, err)
		default:
			w.mendAfter = time.Now().Add(mendEvery)
			w.log.Warn("a table can't be added to the publication here; until it is, its keys are deleted all the time",
				zap.Stringer("table", t), zap.String("mend", sql+";"), zap.Error(err))
		}
	}
	return added, nil
}

// tell logs each finding once for the life of the process.
func (w *watch) tell(j *judgement) {
	for _, f := range j.findings {
		if !w.opts.told[f] {
			if w.opts.told == nil {
				w.opts.told = map[Finding]bool{}
			}
			w.opts.told[f] = true
			w.log.Warn("tables or publication do not go with the rules", zap.String("severity", string(f.Severity)),
				zap.String("subject", f.Subject), zap.String("problem", f.Problem), zap.String("mend", f.SQL))
		}
	}
}

// replaced deletes the keys of tables that changed. What transactions that are open now have written may never be sent, or
// has been passed over: the keys are deleted again when one of them ends.
func (w *watch) replaced(ctx context.Context, changed map[cdc.Table]string) error {
	open, err := w.openTransactions(ctx)
	if err != nil {
		return err
	}
	tables := slices.SortedFunc(maps.Keys(changed), func(a, b cdc.Table) int { return strings.Compare(a.String(), b.String()) })
	for _, t := range tables {
		if w.note.Unsettled == nil {
			w.note.Unsettled = map[string][]uint64{}
		}
		for _, xid := range open {
			if at, known := slices.BinarySearch(w.note.Unsettled[t.String()], xid); !known {
				w.note.Unsettled[t.String()] = slices.Insert(w.note.Unsettled[t.String()], at, xid)
			}
		}
	}
	for _, t := range tables {
		n, err := w.eraseTables(ctx, []cdc.Table{t})
		if err != nil {
			return err
		}
		if w.fresh {
			continue // nothing is known of the time before
		}
		w.metrics.silent.WithLabelValues(t.String()).Inc()
		w.opts.observe(CatalogChange{Table: t, What: changed[t], Deleted: n})
		w.log.Info("a table changed in a way that the stream does not tell; its keys are deleted",
			zap.Stringer("table", t), zap.String("what", changed[t]), zap.Int("keys", n), zap.Int("open_transactions", len(open)))
	}
	return nil
}

// openTransactions lists the transactions that may have written before now and have not ended.
func (w *watch) openTransactions(ctx context.Context) ([]uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	tx, err := w.primary.conn.Begin(bounded)
	if err != nil {
		return nil, fmt.Errorf("take a transaction id: %w", err)
	}
	var next uint64
	err = tx.QueryRow(bounded, "select pg_current_xact_id()::text::int8").Scan(&next)
	// A commit would wait for a synchronous standby. Ended either way, it lies below xmax, and so does all that came before.
	if err = errors.Join(err, tx.Rollback(bounded)); err != nil {
		return nil, fmt.Errorf("take a transaction id: %w", err)
	}
	seen, err := w.primary.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	end, _ := slices.BinarySearch(seen.running, next)
	return seen.running[:end], nil
}

// settle deletes the keys of tables again when a transaction has ended that was open when the table changed.
func (w *watch) settle(ctx context.Context) error {
	if len(w.note.Unsettled) == 0 {
		return nil
	}
	seen, err := w.primary.snapshot(ctx)
	if err != nil {
		return err
	}
	var ended []cdc.Table
	left := map[string][]uint64{}
	for _, t := range w.opts.Rules.Tables() {
		before := w.note.Unsettled[t.String()]
		open := slices.DeleteFunc(slices.Clone(before), func(xid uint64) bool {
			_, running := slices.BinarySearch(seen.running, xid)
			return !running
		})
		if len(open) < len(before) {
			ended = append(ended, t)
		}
		if len(open) > 0 {
			left[t.String()] = open
		}
	}
	if len(ended) > 0 {
		if _, err := w.eraseTables(ctx, ended); err != nil {
			return err
		}
		w.log.Info("transactions have ended that were open when a table changed; its keys are deleted again", zap.Stringers("tables", ended))
	}
	w.note.Unsettled = left
	if len(ended) > 0 {
		return w.writeNote(ctx)
	}
	return nil
}

// eraseUncovered deletes the keys of tables whose changes do not all come.
func (w *watch) eraseUncovered(ctx context.Context) error {
	if len(w.uncovered) == 0 {
		return nil
	}
	began := time.Now()
	if _, err := w.eraseTables(ctx, w.uncovered); err != nil {
		return err
	}
	now := time.Now()
	w.restUntil = now.Add(min(4*now.Sub(began), mostRest))
	return nil
}

// eraseTables deletes every key that the rules make of the tables.
func (w *watch) eraseTables(ctx context.Context, tables []cdc.Table) (existed int, err error) {
	var e erasure
	for _, t := range tables {
		w.opts.Rules.tables[t].truncate(&e)
	}
	existed, err = w.persist(ctx, func(ctx context.Context) (int, error) { return w.eraser.Delete(ctx, e.keys) })
	if err == nil {
		var n int
		if len(e.patterns) <= maxScans {
			n, err = w.eraser.DeleteMatching(ctx, e.patterns)
		} else {
			n, err = w.deleteEverything(ctx, func(int) {})
		}
		existed += n
	}
	if err != nil {
		return existed, fmt.Errorf("delete the keys of %s: %w", tables, err)
	}
	w.metrics.keys(existed, existed)
	return existed, nil
}

// hash stands for the sight in the note.
func (s sight) hash() string {
	h := sha256.New()
	for _, part := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(h, "%s %q\n", part, s[part])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// differs names what is another than before, "" when nothing is.
func (s sight) differs(before sight) string {
	if len(s) == 0 && len(before) > 0 {
		return "dropped"
	}
	if len(s) > 0 && len(before) == 0 {
		return "created"
	}
	if s[sightTable] != before[sightTable] {
		return "another table has its name"
	}
	var parts []string
	for _, part := range slices.Sorted(maps.Keys(s)) {
		if s[part] != before[part] {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ", ")
}
