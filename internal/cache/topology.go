package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"walkey/internal/pace"
)

// kind is how Valkey is put together.
type kind uint8

const (
	oneServer kind = iota
	bySentinel
	inCluster
)

const (
	surveyTimeout = 2 * time.Second // of one look at who serves what
	// Between two looks of a Cache, when nothing hints at a change, and when something does.
	surveyEvery, surveyGap = 500 * time.Millisecond, 20 * time.Millisecond
)

var errNoPrimary = errors.New("no primary of Valkey is known")

// A topology knows the primaries and what each of them serves. For one server that never changes; else it asks the sentinels,
// or the nodes of the cluster. Clients are made here and nowhere else, one set for each primary, and replicas get none.
type topology struct {
	options Options
	kind    kind
	clock   func() time.Duration
	make    func(address string, primaries int) (*node, error)
	began   func(*node) // it is in the layout from now on
	ended   func(*node) // it is not any more; its clients are about to be closed

	present atomic.Pointer[layout]
	changes atomic.Uint64 // counts the layouts
	watched atomic.Bool   // somebody looks when hinted at
	hint    chan struct{} // holds one when something hints at a change

	turn   chan struct{}             // holds one while somebody looks or changes what is below
	nodes  map[string]*node          // by address
	scouts map[string]rueidis.Client // by address: of seeds, of sentinels, of nodes that serve nothing yet
	closed bool

	ticker   *pace.Ticker   // of watching
	watching sync.WaitGroup // watchLines
}

// newTopology makes a topology that knows nothing yet. The caller sets make, and may set began and ended.
func newTopology(o Options, clock func() time.Duration) *topology {
	t := &topology{
		options: o, kind: o.kind(), clock: clock,
		began: func(*node) {}, ended: func(*node) {},
		hint: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		nodes: make(map[string]*node), scouts: make(map[string]rueidis.Client),
	}
	slots := 1
	if t.kind == inCluster {
		slots = slotCount
	}
	t.present.Store(nobody(o, slots))
	return t
}

// open looks for the first time, and watches lines until closeClients. That nobody answers is no error.
func (t *topology) open() error {
	if err := t.lookFirst(); err != nil {
		return err
	}
	t.ticker = pace.Every(lookAtLines)
	t.watching.Go(func() { t.watchLines(t.ticker) })
	return nil
}

func (t *topology) lookFirst() error {
	if t.kind == oneServer {
		n, err := t.make(t.options.addresses()[0], 1)
		if err != nil {
			return err
		}
		l := whole(n, 0)
		l.rename(t.options.Prefix)
		t.nodes[n.address] = n
		t.present.Store(l)
		t.began(n)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), surveyTimeout)
	defer cancel()
	if err := t.refresh(ctx); err != nil {
		t.options.Logger.Warn("Valkey is not reachable yet", zap.Error(err))
	}
	return nil
}

// serving is who serves a full key.
func (t *topology) serving(key string) *serving { return t.present.Load().at(slotOf(key)) }

// nudge has a Cache look soon.
func (t *topology) nudge() {
	select {
	case t.hint <- struct{}{}:
	default:
	}
}

// failed has it looked who serves what, when a call has failed and who was called may be no primary any more: soon where
// somebody watches, else now.
func (t *topology) failed(ctx context.Context, err error) {
	if t.kind == oneServer || err == nil {
		return
	}
	if t.watched.Load() {
		t.nudge()
		return
	}
	if err := t.refresh(ctx); err != nil {
		t.options.Logger.Debug("nobody says who serves what", zap.Error(err))
	}
}

// watch looks again and again until ctx ends.
func (t *topology) watch(ctx context.Context) {
	if t.kind == oneServer {
		return
	}
	t.watched.Store(true)
	timer := time.NewTimer(surveyEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-t.hint:
		case <-ctx.Done():
			return
		}
		looking, cancel := context.WithTimeout(ctx, surveyTimeout)
		if err := t.refresh(looking); err != nil && ctx.Err() == nil {
			t.options.Logger.Debug("nobody says who serves what", zap.Error(err))
		}
		cancel()
		select { // hints come in crowds
		case <-time.After(surveyGap):
		case <-ctx.Done():
			return
		}
		timer.Reset(surveyEvery)
	}
}

// refresh finds out who serves what, and publishes it when it is something new.
func (t *topology) refresh(ctx context.Context) error {
	if t.kind == oneServer {
		return nil
	}
	if err := t.take(ctx); err != nil {
		return err
	}
	defer t.leave()
	_, err := t.surveyLocked(ctx)
	return err
}

// surveyLocked is refresh for those who have the turn. Of a cluster it gives what every node said of it.
func (t *topology) surveyLocked(ctx context.Context) ([]view, error) {
	if t.kind == oneServer {
		return nil, nil
	}
	if t.kind == bySentinel {
		address, err := t.askSentinels(ctx)
		if err != nil {
			return nil, err
		}
		return nil, t.publish([]string{address}, []uint16{0})
	}
	views, err := t.askCluster(ctx)
	if err != nil {
		return nil, err
	}
	addresses, owners := merge(views)
	if len(addresses) == 0 {
		return nil, fmt.Errorf("%w: the nodes of the cluster name none", errNoPrimary)
	}
	return views, t.publish(addresses, owners)
}

// unowned stands for the owner of a slot that nobody serves.
const unowned = ^uint16(0)

// publish makes the layout in which owners, for each slot, names the one of addresses that serves it.
func (t *topology) publish(addresses []string, owners []uint16) error {
	before := t.present.Load()
	same := len(before.nodes) == len(addresses)
	for i := 0; same && i < len(owners); i++ {
		address := ""
		if owners[i] != unowned {
			address = addresses[owners[i]]
		}
		same = before.slots[i].node.address == address
	}
	if same {
		return nil
	}
	now := t.clock()
	next := &layout{slots: make([]serving, len(owners))}
	nodes := make([]*node, len(addresses))
	var fresh []*node
	for i, address := range addresses {
		if nodes[i] = t.nodes[address]; nodes[i] != nil {
			continue
		}
		n, err := t.make(address, len(addresses))
		if err != nil {
			return err
		}
		nodes[i] = n
		fresh = append(fresh, n)
	}
	none := nobody(t.options, 1).slots[0].node
	moved := 0
	for i, owner := range owners {
		n := none
		if owner != unowned {
			n = nodes[owner]
		}
		next.slots[i] = before.slots[i]
		if before.slots[i].node != n {
			next.slots[i] = serving{n, now + t.options.MaxStaleness}
			moved++
		}
	}
	next.nodes = slices.SortedFunc(slices.Values(nodes), func(a, b *node) int { return compareText(a.address, b.address) })
	// Before anybody reads by the new layout, and so that what was read by the old one proves nothing.
	renamed := next.rename(t.options.Prefix)
	for _, n := range renamed {
		if n.guard != nil {
			n.guard.revoke()
		}
	}
	gone := maps.Clone(t.nodes)
	for _, n := range nodes {
		delete(gone, n.address)
		t.nodes[n.address] = n
	}
	t.present.Store(next)
	t.changes.Add(1)
	level := zap.DebugLevel // slots may move by the thousand
	if len(fresh)+len(gone) > 0 {
		level = zap.InfoLevel
	}
	t.options.Logger.Log(level, "other primaries of Valkey serve", zap.Strings("primaries", addresses), zap.Int("slots moved", moved))
	for _, n := range fresh {
		if scout := t.scouts[n.address]; scout != nil {
			scout.Close()
			delete(t.scouts, n.address)
		}
		t.began(n)
	}
	for _, n := range gone {
		delete(t.nodes, n.address)
		t.ended(n)
		n.close()
	}
	return nil
}

// take waits for the turn.
func (t *topology) take(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.closed {
		t.leave()
		return ErrClosed
	}
	return nil
}

func (t *topology) leave() { <-t.turn }

// scout is a client of an address that serves nothing that is known of. The caller has the turn.
func (t *topology) scout(address string) (rueidis.Client, error) {
	if client := t.scouts[address]; client != nil {
		return client, nil
	}
	o := scoutOptions(t.options, address)
	if t.kind == bySentinel {
		o.Username, o.Password = "", "" // a sentinel has its own, and mostly none; see askSentinel
	}
	client, err := rueidis.NewClient(o)
	if client == nil {
		return nil, err
	}
	t.scouts[address] = client
	return client, nil
}

// clientAt is a client of an address, whoever is there.
func (t *topology) clientAt(ctx context.Context, address string) (rueidis.Client, error) {
	if err := t.take(ctx); err != nil {
		return nil, err
	}
	defer t.leave()
	if n := t.nodes[address]; n != nil {
		return n.writer, nil
	}
	return t.scout(address)
}

// close lets no further look begin.
func (t *topology) close() {
	t.turn <- struct{}{}
	t.closed = true
	<-t.turn
}

// closeClients ends all connections.
func (t *topology) closeClients() {
	for _, n := range t.nodes {
		n.close()
	}
	for _, scout := range t.scouts {
		scout.Close()
	}
	t.ticker.Stop()
	t.watching.Wait()
}

func (n *node) close() {
	if n.reader != nil {
		n.reader.close()
	}
	n.writer.Close()
}
