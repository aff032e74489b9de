package cache

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	auditGap    = 100 * time.Millisecond // from the begin of one audit to that of the next, at least
	auditLook   = 20 * time.Millisecond  // between two looks at whether a difference persists
	auditsAhead = 16                     // hits that wait to be audited; more are passed over
)

// An auditor loads what was served from the cache once more, one in so many hits, behind the requests' backs, and compares.
//
// A difference alone says nothing: the change may be a moment old. So the end of the source's WAL is asked for after the load, and the
// difference counts once the eraser's progress has passed that, for by then the delete must have been seen here; or once
// Options.MaxStaleness has gone by since the load. And it counts only if the very value that was audited is still served then, and a load as
// requests have it does not give the same. A cache that is not trusted serves nothing, so an eraser that stands still raises no alarm.
type auditor struct {
	every    uint64 // hits
	position func(context.Context) (uint64, error)
	copies   bool // Options.Copies
	asked    chan audited

	// The counts of hits at which the next one is audited.
	nextLocal, nextValkey atomic.Uint64
}

// audited is a hit.
type audited struct {
	ctx   context.Context
	at    Address
	value Value
	load  Loader
}

func newAuditor(o Options) *auditor {
	a := &auditor{every: uint64(o.AuditRate), position: o.Position, copies: o.Copies, asked: make(chan audited, auditsAhead)}
	first := uint64(math.MaxUint64)
	if o.AuditRate > 0 && o.Position != nil {
		first = a.every
	}
	a.nextLocal.Store(first)
	a.nextValkey.Store(first)
	return a
}

// sample takes a hit, unless another one was quicker or too many wait. It is called when count has come to next.
func (a *auditor) sample(ctx context.Context, next *atomic.Uint64, count uint64, at Address, v Value, load Loader) {
	if due := next.Load(); count < due || !next.CompareAndSwap(due, count+a.every) {
		return
	}
	select {
	case a.asked <- audited{context.WithoutCancel(ctx), at, v, load}:
	default:
	}
}

type auditing struct{}

// Audits says whether a loader is called for an audit. It then has to read at the source itself: a copy may show a change before the
// source does, and until that does, what was served is right.
func Audits(ctx context.Context) bool {
	is, _ := ctx.Value(auditing{}).(bool)
	return is
}

// audits runs audits until the cache closes, one after the other.
func (c *Cache) audits() {
	ticker := time.NewTicker(auditGap)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.life.Done():
			return
		}
		select {
		case hit := <-c.auditor.asked:
			c.audit(hit)
		case <-c.life.Done():
			return
		}
	}
}

// audit compares one hit with what its loader says now.
func (c *Cache) audit(hit audited) {
	if !c.places.idle() {
		return // requests come first
	}
	if c.begin() != nil {
		return
	}
	c.counts.audits.Add(1)
	var content Content
	err := c.load(context.WithValue(hit.ctx, auditing{}, true), hit.load, &content)
	c.over()
	loaded := c.now()
	var position uint64
	if err == nil {
		asking, cancel := context.WithTimeout(c.life, loadTimeout)
		position, err = c.auditor.position(asking)
		cancel()
	}
	if err != nil {
		c.counts.auditsUnfinished.Add(1)
		c.log.Debug("an audit could not load", zap.String("key", hit.at.key), zap.Error(err))
		return
	}
	if sameContent(hit.value, content) {
		c.counts.auditsConsistent.Add(1)
		return
	}
	c.pursue(hit, content, loaded, position)
}

// pursue finds out whether a difference persists.
func (c *Cache) pursue(hit audited, content Content, loaded time.Duration, position uint64) {
	ticker := time.NewTicker(auditLook)
	defer ticker.Stop()
	found := false
	for {
		// In this order: the progress is of before the look.
		place := c.at(hit.at)
		passed, late := false, c.now() > loaded+c.kept.max
		if t := place.trust(c.now()); t != nil {
			passed = place.node.reached.under(t, position, place.node.guard.always)
		}
		now, served := c.Get(hit.at)
		if !served || now.fill() != hit.value.fill() {
			if found {
				c.tellStale(hit, content, position, c.now()-loaded, "what was old is not served any more")
				c.counts.auditsStale.Add(1)
				return
			}
			c.counts.auditsConsistent.Add(1)
			c.counts.auditsLag.Add(1)
			return
		}
		if passed && !found {
			found = true
			c.tellStale(hit, content, position, c.now()-loaded, "a value is served although its delete should have come")
		}
		if late && c.ahead(hit) {
			c.counts.auditsConsistent.Add(1)
			return
		}
		if late && !passed && c.auditor.copies {
			// The eraser goes on proving that it has deleted whatever can be seen, and does not come to the position: a commit before
			// it hangs. A copy of the source may have shown that commit, and may not answer any more.
			c.counts.auditsUnfinished.Add(1)
			c.log.Debug("an audit found a difference while a commit hangs that a copy of the source may have shown", zap.String("key", hit.at.key))
			return
		}
		if late {
			c.tellStale(hit, content, position, c.now()-loaded, "a value is served for longer than may be after it was overwritten")
			c.counts.auditsStaleLong.Add(1)
			return
		}
		select {
		case <-ticker.C:
		case <-c.life.Done():
			c.counts.auditsUnfinished.Add(1)
			return
		}
	}
}

// ahead says whether what was served is what its loader gives to a request now. A loader that reads from a copy of the source may have shown
// a change before the source itself does: a commit that waits for a standby is seen there and not yet here, for as long as it waits.
func (c *Cache) ahead(hit audited) bool {
	if c.begin() != nil {
		return false
	}
	defer c.over()
	var content Content
	return c.load(hit.ctx, hit.load, &content) == nil && sameContent(hit.value, content)
}

func (c *Cache) tellStale(hit audited, content Content, position uint64, age time.Duration, what string) {
	now := loadedValue(content, fillID{}, c.decoded)
	c.log.Error("audit: "+what, zap.String("key", hit.at.key), zap.String("field", hit.at.field),
		zap.String("served", hit.value.Tag()), zap.Int("served_bytes", hit.value.Length()), zap.String("fill", fmt.Sprintf("%x", hit.value.fill())),
		zap.String("loaded", now.Tag()), zap.Int("loaded_bytes", now.Length()),
		zap.String("lsn", fmt.Sprintf("%X/%X", position>>32, uint32(position))), zap.Duration("age", age))
}

// sameContent compares by value: what would be answered, whatever the stored head says of it.
func sameContent(v Value, content Content) bool {
	if v.Absent() || content.Absent {
		return v.Absent() == content.Absent
	}
	body, err := v.Identity()
	return err == nil && bytes.Equal(body, content.Body) && bytes.Equal(v.Meta(), content.Meta)
}
