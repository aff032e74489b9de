package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/faultproxy"
)

// cluster is a cluster with a keeper.
type cluster struct {
	*embedded.Cluster
	keeper *keeper
}

func startCluster(t *testing.T, o embedded.ClusterOptions) *cluster {
	t.Helper()
	c := embeddedtest.ValkeyCluster(t, o)
	return &cluster{c, startKeeper(t, clusterOptions(c))}
}

// spread are addresses all over the slots, strings and fields.
func spread(c *Cache, n int) (all []Address) {
	for i := range n {
		if i%4 == 3 {
			all = append(all, c.Field(ident(i), "variant"))
		} else {
			all = append(all, c.At(ident(i)))
		}
	}
	return all
}

func TestSlots(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{Primaries: 1})
	for _, key := range []string{"", "foo", "p:material:1", "{user}:1", "a{}b", "a{b}{c}", "a{b", "}{x}", "\x00\xff"} {
		said, err := c.Nodes[0].Ask(t.Context(), "CLUSTER", "KEYSLOT", key)
		if err != nil || said[0] != strconv.Itoa(int(slotOf(key))) {
			t.Errorf("%q is in slot %d; Valkey says %q, %v", key, slotOf(key), said, err)
		}
	}
	ranks := make(map[uint16]bool)
	for slot := range uint16(slotCount) {
		if got := slotOf("p:{" + slotTag(slot) + "}"); got != slot {
			t.Fatalf("the tag of slot %d lies in %d", slot, got)
		}
		ranks[stateRank(slot)] = true
	}
	if len(ranks) != slotCount {
		t.Errorf("%d slots have %d ranks", slotCount, len(ranks))
	}
}

// All that a cache and an eraser do works whichever primary a key lies on.
func TestClusterServesEverySlot(t *testing.T) {
	t.Parallel()
	cl := startCluster(t, embedded.ClusterOptions{})
	k := cl.keeper
	c, other := k.open(), k.open()
	s := newSource("first")
	at := spread(c, 60)
	for _, a := range at {
		if got := fetch(t.Context(), c, a, s.load); got.body != "first" || got.outcome != MissStored {
			t.Errorf("%s: %+v", a.key, got)
		}
		if got := fetch(t.Context(), other, a, neverLoad); got.body != "first" {
			t.Errorf("%s from another process: %+v", a.key, got)
		}
		if got := fetch(t.Context(), c, a, neverLoad); got.body != "first" {
			t.Errorf("%s again: %+v", a.key, got)
		}
	}
	for _, n := range c.topology.present.Load().nodes {
		if size, err := n.writer.Do(t.Context(), n.writer.B().Dbsize().Build()).AsInt64(); err != nil || size < 10 {
			t.Errorf("%s holds %d keys, %v", n.address, size, err)
		}
	}
	k.change(func() { s.set("second") }, at...)
	for _, a := range at {
		awaitFresh(t, other, a, s, "second")
	}
	if err := k.eraser.SetProgress(t.Context(), "keeper", 1000); err != nil {
		t.Fatal(err)
	}
	s.set("third") // which nobody is told of
	for _, a := range at {
		if value, _, err := c.FetchSince(t.Context(), a, Lists, 1000, s.load); err != nil || string(value.Encoded()) != "second" {
			t.Errorf("%s since a position that was reached: %q, %v", a.key, value.Encoded(), err)
		}
		if value, outcome, err := c.FetchSince(t.Context(), a, Lists, 1001, s.load); err != nil || string(value.Encoded()) != "third" || outcome != BypassToken {
			t.Errorf("%s since one that was not: %q, %s, %v", a.key, value.Encoded(), outcome, err)
		}
	}
	session := c.Sessions()
	for i := range 20 {
		if err := session.Commit(t.Context(), ident(i), []byte("data"), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if wait, err := c.Take(t.Context(), ident(i), Limit{Burst: 1, Every: time.Hour}); err != nil || wait != 0 {
			t.Errorf("%s, %v", wait, err)
		}
	}
	if n, err := k.eraser.DeleteMatching(t.Context(), everything); err != nil || n < 50 {
		t.Errorf("%d keys matched, %v", n, err)
	}
	for i := range 20 {
		if data, found, err := session.Find(t.Context(), ident(i), time.Hour); err != nil || !found || string(data) != "data" {
			t.Errorf("a session after everything was deleted: %q, %v, %v", data, found, err)
		}
		if err := session.Delete(t.Context(), ident(i)); err != nil {
			t.Error(err)
		}
	}
	for _, a := range at {
		awaitFresh(t, c, a, s, "third")
	}
	if err := c.Set(t.Context(), at[0], Content{Body: []byte("set")}, Lists); err != nil {
		t.Fatal(err)
	}
	awaitBody(t, c, at[0], "set")
	if err := c.Delete(t.Context(), at...); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Clear(t.Context()); err != nil || n != 0 {
		t.Errorf("%d keys were left, %v", n, err)
	}
	if err := k.eraser.SetNote(t.Context(), "note"); err != nil {
		t.Fatal(err)
	}
	if note, ok, err := k.eraser.Note(t.Context()); err != nil || !ok || note != "note" {
		t.Errorf("%q, %v, %v", note, ok, err)
	}
	servers, err := k.eraser.Examine(t.Context(), []string{"p:constant"}, everything)
	if err != nil || len(servers) != 3 {
		t.Fatalf("%+v, %v", servers, err)
	}
	for _, server := range servers {
		if !server.Cluster || server.Role != "master" || len(server.Denied) > 0 {
			t.Errorf("%+v", server)
		}
	}
}

// awaitFresh waits for the push of a delete that was answered.
func awaitFresh(t *testing.T, c *Cache, at Address, s *source, body string) {
	t.Helper()
	await10(t, body, func() bool { return fetch(t.Context(), c, at, s.load).body == body })
}

// Slots move to and fro, and to a primary that is new, while everything is read and written: no answer is older than the bound,
// and the cache is used all the time.
func TestSlotsMoveUnderLoad(t *testing.T) {
	t.Parallel()
	cl := startCluster(t, embedded.ClusterOptions{})
	k := cl.keeper
	caches := []*Cache{k.open(), k.open()}
	v := &versions{}
	at := spread(caches[0], 24)
	stop := v.readers(t, k.options.MaxStaleness, caches, at)
	fresh, err := cl.Add(t.Context(), embedded.ClusterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		for i, a := range at[:8] {
			from, err := cl.Primary(t.Context(), cl.Nodes[0], int(a.slot))
			if err != nil {
				t.Fatal(err)
			}
			to := cl.Nodes[(i+round)%4]
			if round == 0 {
				to = fresh
			}
			if from == to {
				continue
			}
			err = cl.Move(t.Context(), int(a.slot), from, to, func() {
				k.change(v.next, at...)
				<-time.After(20 * time.Millisecond)
			})
			if err != nil {
				t.Fatal(err)
			}
			k.change(v.next, at...)
		}
	}
	for _, c := range caches {
		k.awaitTrust(c)
	}
	k.change(v.next, at...)
	s := newSource("")
	s.content.Store(func() *Content { c, _ := v.load(t.Context()); return &c }())
	for _, c := range caches {
		for _, a := range at {
			awaitFresh(t, c, a, s, strconv.Itoa(len(v.replaced)))
		}
	}
	if answers, hits := stop(); hits*4 < answers {
		t.Errorf("%d of %d answers came from the cache", hits, answers)
	}
}

// A value that was left behind on a primary by a move that was broken off must not be served when the slot comes for good,
// however old it is.
func TestWhatAMoveLeftBehindIsNotServed(t *testing.T) {
	t.Parallel()
	cl := startCluster(t, embedded.ClusterOptions{})
	k := cl.keeper
	c := k.open()
	at, s := c.At("key"), newSource("old")
	slot := strconv.Itoa(int(at.slot))
	from, err := cl.Primary(t.Context(), cl.Nodes[0], int(at.slot))
	if err != nil {
		t.Fatal(err)
	}
	to := cl.Nodes[0]
	if from == to {
		to = cl.Nodes[1]
	}
	ask := func(n *embedded.Node, words ...string) []string {
		t.Helper()
		said, err := n.Ask(t.Context(), words...)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored {
		t.Fatalf("%+v", got)
	}
	// The value goes over, and the move is broken off.
	ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID)
	ask(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID)
	ask(from, "MIGRATE", "127.0.0.1", strconv.Itoa(to.Port()), at.key, "0", "5000")
	ask(from, "CLUSTER", "SETSLOT", slot, "STABLE")
	ask(to, "CLUSTER", "SETSLOT", slot, "STABLE")
	k.change(func() { s.set("new") }, at) // on the primary that serves the slot
	if left := ask(to, "CLUSTER", "COUNTKEYSINSLOT", slot); left[0] != "1" {
		t.Fatalf("%s keys were left behind", left)
	}
	awaitFresh(t, c, at, s, "new")
	k.change(func() {}, at)
	// The slot comes for good, without its keys, of which there are none.
	for _, n := range []*embedded.Node{to, from, cl.Nodes[2]} {
		ask(n, "CLUSTER", "SETSLOT", slot, "NODE", to.ID)
	}
	end := time.Now().Add(2 * k.options.MaxStaleness)
	hits := 0
	for time.Now().Before(end) || hits == 0 {
		got := fetch(t.Context(), c, at, s.load)
		if got.body != "new" {
			t.Fatalf("%+v", got)
		}
		if got.outcome == HitLocal && c.at(at).node.address == to.Addr() {
			hits++
		}
		<-time.After(5 * time.Millisecond)
	}
}

// fronts puts proxies before the nodes of a cluster or of sentinels: of clients and replicas, and of the other nodes.
type fronts struct {
	clients, buses map[*embedded.Node]*faultproxy.Proxy
}

func newFronts() *fronts {
	return &fronts{map[*embedded.Node]*faultproxy.Proxy{}, map[*embedded.Node]*faultproxy.Proxy{}}
}

func (f *fronts) listen(t *testing.T, target string) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.Listen(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ofCluster is embedded.ClusterOptions.Front.
func (f *fronts) ofCluster(t *testing.T) func(n *embedded.Node) (port, busPort int, err error) {
	return func(n *embedded.Node) (int, int, error) {
		f.clients[n] = f.listen(t, n.Addr())
		f.buses[n] = f.listen(t, "127.0.0.1:"+strconv.Itoa(n.BusPort))
		return f.clients[n].Port(), f.buses[n].Port(), nil
	}
}

// isolate cuts a node off from all other nodes, in both directions; clients still reach it.
func (f *fronts) isolate(n *embedded.Node) {
	for other, bus := range f.buses {
		if other == n {
			bus.Cut()
		} else {
			bus.CutFrom(n.Source)
		}
		if other != n {
			f.clients[n].CutFrom(other.Source)
		}
	}
}

// The kill of a primary costs the cache until a replica goes on, and no answer is older than the bound.
func TestClusterPrimaryKilled(t *testing.T) {
	t.Parallel()
	cl := startCluster(t, embedded.ClusterOptions{Replicas: 1})
	k := cl.keeper
	caches := []*Cache{k.open(), k.open()}
	v := &versions{}
	at := spread(caches[0], 24)
	stop := v.readers(t, k.options.MaxStaleness, caches, at)
	for range 10 {
		k.change(v.next, at...)
	}
	if err := cl.Nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	k.change(v.next, at...) // until it is answered
	await10(t, "another primary", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.promoted+k.scanned > 0
	})
	for _, c := range caches {
		k.awaitTrust(c)
	}
	for range 10 {
		k.change(v.next, at...)
	}
	stop()
	if repeated, scanned := k.counts(); scanned > 0 {
		t.Errorf("%d deletes were repeated and %d primaries emptied, although the replica had followed", repeated, scanned)
	}
}

// A primary that is cut off with a reader answers it, and believes to be one until its time is out. Its values are not served
// for longer than the bound after they were replaced elsewhere.
func TestClusterPrimaryInTheMinority(t *testing.T) {
	t.Parallel()
	f := newFronts()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{
		Replicas: 1, NodeTimeout: 2 * time.Second, Front: f.ofCluster(t),
		Settings: map[string]string{"cluster-allow-reads-when-down": "yes"}, // the worst that can be set up
	})
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, f.clients[n].Addr())
	}
	k := startKeeper(t, Options{Addrs: addrs})
	lost := c.Nodes[0]
	// The reader knows of the primary alone, and has a way to nobody else once that is cut off: the others' answers stay away.
	own := make(map[*embedded.Node]*faultproxy.Proxy)
	o := k.options
	o.Addrs = nil
	const host = "127.0.4.1"
	for _, n := range c.Nodes {
		p, err := faultproxy.ListenOn(t.Context(), fmt.Sprintf("%s:%d", host, f.clients[n].Port()), n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		own[n] = p
		o.Addrs = append(o.Addrs, p.Addr())
	}
	reader := k.open(func(to *Options) { to.Addrs = o.Addrs })
	var at []Address
	for i := 0; len(at) < 8; i++ {
		if a := reader.At(ident(i)); int(a.slot) < slotCount/3 {
			at = append(at, a)
		}
	}
	v := &versions{}
	k.change(v.next, at...)
	stop := v.readers(t, k.options.MaxStaleness, []*Cache{reader}, at)
	await10(t, "hits", func() bool { return reader.Stats().HitsLocal > 100 })
	f.isolate(lost)
	f.clients[lost].Cut() // the keeper's way
	for n, p := range own {
		if n != lost {
			p.Cut()
		}
	}
	k.change(v.next, at...) // on the replica, once it is promoted
	for range 20 {
		k.change(v.next, at...)
		<-time.After(50 * time.Millisecond)
	}
	stop()
	if v.worst < k.options.MaxStaleness/4 {
		t.Error("nothing old was read: the reader was not in the minority")
	}
}

// A cluster is told of in place of one server, and the other way round.
func TestWhatIsNoCluster(t *testing.T) {
	t.Parallel()
	v := embeddedtest.Valkey(t)
	e, err := OpenEraser(Options{Addrs: []string{v.Addr()}, Prefix: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := e.Examine(ctx, nil, nil); err == nil || !strings.Contains(err.Error(), "cluster support disabled") {
		t.Errorf("got %v", err)
	}
	if _, err := OpenEraser(Options{Addrs: []string{v.Addr()}, Prefix: "a{p}"}); err == nil || !strings.Contains(err.Error(), "braces") {
		t.Errorf("got %v", err)
	}
}
