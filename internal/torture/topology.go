package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"walkey/internal/embedded"
	"walkey/internal/faultproxy"
)

// How Valkey is put together.
const (
	single   = "single"
	sentinel = "sentinel"
	cluster  = "cluster"
)

// failureAfter is after how long of silence a server of a sentinel's or a cluster's counts as failed: below and above what
// faults last, so that some end with a promotion and some without.
const failureAfter = 1500 * time.Millisecond

// many are the servers of a cluster or of sentinels.
type many struct {
	cluster   *embedded.Cluster
	sentinels *embedded.Sentinels
	clients   map[*embedded.Node]*faultproxy.Proxy // before each server, for replicas (and with sentinels for everybody)
	buses     map[*embedded.Node]*faultproxy.Proxy // for the other nodes of a cluster
}

// A link is what faults happen to.
type link interface {
	Cut()
	Break()
	Silence()
	SilenceReplies()
	Delay(d time.Duration)
	Heal()
}

// links are those of one program, to all servers. They break together.
type links []*faultproxy.Proxy

// Cut and the others do to all links what they do to one.
func (l links) Cut()                  { l.each((*faultproxy.Proxy).Cut) }
func (l links) Break()                { l.each((*faultproxy.Proxy).Break) }
func (l links) Silence()              { l.each((*faultproxy.Proxy).Silence) }
func (l links) SilenceReplies()       { l.each((*faultproxy.Proxy).SilenceReplies) }
func (l links) Heal()                 { l.each((*faultproxy.Proxy).Heal) }
func (l links) Delay(d time.Duration) { l.each(func(p *faultproxy.Proxy) { p.Delay(d) }) }

func (l links) each(do func(*faultproxy.Proxy)) {
	for _, p := range l {
		do(p)
	}
}

// startValkey starts what the topology is made of.
func (w *world) startValkey(ctx context.Context) (err error) {
	w.many.clients, w.many.buses = map[*embedded.Node]*faultproxy.Proxy{}, map[*embedded.Node]*faultproxy.Proxy{}
	before := func(into map[*embedded.Node]*faultproxy.Proxy, n *embedded.Node, target string) (int, error) {
		p, err := faultproxy.Listen(ctx, target)
		if err != nil {
			return 0, err
		}
		into[n] = p
		w.cleanup = append(w.cleanup, p.Close)
		return p.Port(), nil
	}
	switch w.options.topology {
	case sentinel:
		w.many.sentinels, err = embedded.StartSentinels(ctx, embedded.SentinelOptions{
			Replicas: 2, DownAfter: failureAfter, Settings: valkeySettings,
			Front: func(n *embedded.Node) (int, error) { return before(w.many.clients, n, n.Addr()) },
		})
	case cluster:
		w.many.cluster, err = embedded.StartCluster(ctx, embedded.ClusterOptions{
			Replicas: 1, NodeTimeout: failureAfter, Settings: valkeySettings,
			Front: func(n *embedded.Node) (port, bus int, err error) {
				if port, err = before(w.many.clients, n, n.Addr()); err == nil {
					bus, err = before(w.many.buses, n, net.JoinHostPort(n.Host(), strconv.Itoa(n.BusPort)))
				}
				return port, bus, err
			},
		})
	case single:
		w.valkey, err = embedded.StartValkey(ctx, embedded.ValkeyOptions{Settings: valkeySettings})
	default:
		err = fmt.Errorf("there is no topology %q: single, sentinel or cluster", w.options.topology)
	}
	return err
}

// link makes the links of a program to Valkey, and gives what tells it of them.
func (w *world) link(ctx context.Context, p *part) (env []string, err error) {
	if w.options.topology == sentinel {
		return []string{"VALKEY_ADDRS=" + strings.Join(w.many.sentinels.Addrs(), ","), "VALKEY_SENTINEL_MASTER=" + embedded.SentinelName}, nil
	}
	add := func(proxy *faultproxy.Proxy, err error) error {
		if err == nil {
			p.valkey = append(p.valkey, proxy)
			w.cleanup = append(w.cleanup, proxy.Close)
		}
		return err
	}
	if w.options.topology == single {
		if err := add(faultproxy.Listen(ctx, w.valkey.Addr())); err != nil {
			return nil, err
		}
		return []string{"VALKEY_HOST=" + p.valkey[0].Host(), "VALKEY_PORT=" + strconv.Itoa(p.valkey[0].Port())}, nil
	}
	// A host for each program, with the nodes' announced ports: the nodes leave it to their clients which host they use.
	host := fmt.Sprintf("127.0.5.%d", len(w.apis)+len(w.inval)+1)
	var addrs []string
	for _, n := range w.many.cluster.Nodes {
		if err := add(faultproxy.ListenOn(ctx, net.JoinHostPort(host, strconv.Itoa(w.many.clients[n].Port())), n.Addr())); err != nil {
			return nil, err
		}
		addrs = append(addrs, p.valkey[len(p.valkey)-1].Addr())
	}
	return []string{"VALKEY_ADDRS=" + strings.Join(addrs, ",")}, nil
}

func (m *many) stop(ctx context.Context) error {
	var errs []error
	if m.cluster != nil {
		errs = append(errs, m.cluster.Stop(ctx))
	}
	if m.sentinels != nil {
		errs = append(errs, m.sentinels.Stop(ctx))
	}
	return errors.Join(errs...)
}

// settle waits until everything runs as it should, so that the next fault finds somebody to break.
func (m *many) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if m.cluster != nil {
		return m.cluster.Settle(ctx)
	}
	return m.sentinels.Settle(ctx)
}

// primary gives a primary that has a replica, and the replica.
func (m *many) primary(ctx context.Context, random *rand.Rand) (primary, replica *embedded.Node, err error) {
	if m.sentinels != nil {
		if primary, err = m.sentinels.Primary(ctx); err != nil {
			return nil, nil, err
		}
		others := slices.DeleteFunc(slices.Clone(m.sentinels.Servers), func(n *embedded.Node) bool { return n == primary })
		return primary, others[random.IntN(len(others))], nil
	}
	err = eventually(ctx, func(ctx context.Context) error {
		all, err := m.cluster.Primaries(ctx)
		if err != nil {
			return err
		}
		var with []*embedded.Node
		for _, n := range m.cluster.Nodes { // in an order that does not change
			if len(all[n]) > 0 {
				with = append(with, n)
			}
		}
		if len(with) == 0 {
			return errors.New("no primary has a replica")
		}
		primary = with[random.IntN(len(with))]
		replica = all[primary][0]
		return nil
	})
	return primary, replica, err
}

// promoted waits until a primary is none any more.
func (m *many) promoted(ctx context.Context, before *embedded.Node) error {
	if m.sentinels != nil {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return m.sentinels.Promoted(ctx, before)
	}
	return eventually(ctx, func(ctx context.Context) error {
		all, err := m.cluster.Primaries(ctx)
		if _, still := all[before]; err == nil && (still || len(all) < 3) {
			err = errors.New("nobody was promoted")
		}
		return err
	})
}

// valkeyFaults are what can happen to Valkey.
func valkeyFaults(topology string) []fault {
	if topology == single {
		return singleFaults()
	}
	all := []fault{
		{"failover asked for", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.askForFailover(ctx, random) }},
		{"primary killed", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.killPrimary(ctx, random, nil) }},
		{"primary killed, deletes lost", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.killUnreplicated(ctx, random) }},
		{"primary killed, back at once", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error {
			primary, _, err := r.world.many.primary(ctx, random)
			if err != nil {
				return err
			}
			return errors.Join(primary.Kill(), primary.Restart(context.WithoutCancel(ctx)), r.world.many.settle(ctx))
		}},
		{"primary frozen", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error {
			primary, _, err := r.world.many.primary(ctx, random)
			if err != nil {
				return err
			}
			return r.freezeNode(ctx, primary, r.some(random))
		}},
		{"replica frozen", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error {
			_, replica, err := r.world.many.primary(ctx, random)
			if err != nil {
				return err
			}
			return r.freezeNode(ctx, replica, r.some(random))
		}},
	}
	if topology == sentinel {
		return append(all, fault{"sentinel killed", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error {
			watch := r.world.many.sentinels.Watch[random.IntN(len(r.world.many.sentinels.Watch))]
			return errors.Join(watch.Kill(), pause(ctx, r.some(random)), watch.Restart(context.WithoutCancel(ctx)), r.world.many.settle(ctx))
		}})
	}
	return append(
		all,
		fault{"primary cut off from the others", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.isolate(ctx, random) }},
		fault{"slots moved", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.moveSlots(ctx, random) }},
		fault{"slots moved", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.moveSlots(ctx, random) }},
	)
}

// askForFailover has a replica take over while all is well.
func (r *run) askForFailover(ctx context.Context, random *rand.Rand) error {
	m := &r.world.many
	primary, replica, err := m.primary(ctx, random)
	if err != nil {
		return err
	}
	if m.sentinels != nil {
		// Soon after another failover it is refused.
		return errors.Join(eventually(ctx, func(ctx context.Context) error {
			_, err := m.sentinels.Watch[0].Ask(ctx, "SENTINEL", "FAILOVER", embedded.SentinelName)
			return err
		}), m.promoted(ctx, primary), m.settle(ctx))
	}
	_, err = replica.Ask(ctx, "CLUSTER", "FAILOVER")
	return errors.Join(err, m.promoted(ctx, primary), m.settle(ctx))
}

// killPrimary kills a primary and starts it again once a replica has taken over.
func (r *run) killPrimary(ctx context.Context, random *rand.Rand, before func(primary *embedded.Node) error) error {
	m := &r.world.many
	primary, _, err := m.primary(ctx, random)
	if err != nil {
		return err
	}
	if before != nil {
		if err := before(primary); err != nil {
			return err
		}
	}
	if err := primary.Kill(); err != nil {
		return err
	}
	err = m.promoted(ctx, primary)
	m.clients[primary].Heal()
	return errors.Join(err, primary.Restart(context.WithoutCancel(ctx)), m.settle(ctx))
}

// killUnreplicated cuts the replicas off before it kills the primary: what was deleted in between is lost.
func (r *run) killUnreplicated(ctx context.Context, random *rand.Rand) error {
	return r.killPrimary(ctx, random, func(primary *embedded.Node) error {
		r.cutReplicas(primary)
		return pause(ctx, r.some(random)/5)
	})
}

func (r *run) cutReplicas(primary *embedded.Node) {
	m := &r.world.many
	for n := range m.clients {
		if n != primary {
			m.clients[primary].CutFrom(n.Source)
		}
	}
}

// freezeNode stops a server for d.
func (r *run) freezeNode(ctx context.Context, n *embedded.Node, d time.Duration) error {
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), n.Signal(syscall.SIGCONT), r.world.many.settle(ctx))
}

// isolate cuts a primary off from all other nodes, but not from the programs: it goes on for a while as if nothing were.
func (r *run) isolate(ctx context.Context, random *rand.Rand) error {
	m := &r.world.many
	primary, _, err := m.primary(ctx, random)
	if err != nil {
		return err
	}
	for n, bus := range m.buses {
		if n == primary {
			bus.Cut()
		} else {
			bus.CutFrom(primary.Source)
			m.clients[primary].CutFrom(n.Source)
		}
	}
	err = pause(ctx, r.some(random))
	for n, bus := range m.buses {
		bus.Heal()
		m.clients[n].Heal()
	}
	return errors.Join(err, m.settle(ctx))
}

// moveSlots moves the slots of some keys to another primary.
func (r *run) moveSlots(ctx context.Context, random *rand.Rand) error {
	m := &r.world.many
	to, _, err := m.primary(ctx, random)
	if err != nil {
		return err
	}
	for range 4 {
		key := "bloodofjesus:materials_list_active"
		if random.IntN(4) > 0 {
			key = fmt.Sprintf("bloodofjesus:material:%d", 1+random.IntN(slots))
		}
		said, err := to.Ask(ctx, "CLUSTER", "KEYSLOT", key)
		if err != nil {
			return err
		}
		slot, err := strconv.Atoi(said[0])
		if err != nil {
			return err
		}
		from, err := m.cluster.Primary(ctx, to, slot)
		if err != nil {
			return err
		}
		if from == to {
			continue
		}
		if err := m.cluster.Move(ctx, slot, from, to, func() { _ = pause(ctx, 50*time.Millisecond) }); err != nil {
			return err
		}
	}
	return m.settle(ctx)
}

// loseDeletes changes all rows while no replica follows, and has one take over.
func (r *run) loseDeletes(ctx context.Context) error {
	r.writing.turn.Lock()
	defer r.writing.turn.Unlock()
	if err := pause(ctx, 500*time.Millisecond); err != nil { // readers fill it, replicas follow
		return err
	}
	err := r.killPrimary(ctx, rand.New(rand.NewPCG(1, 1)), func(primary *embedded.Node) error {
		r.cutReplicas(primary)
		for slot := 1; slot <= slots; slot++ {
			if _, err := r.write(ctx, slot); err != nil {
				return err
			}
		}
		return pause(ctx, 300*time.Millisecond)
	})
	if err != nil {
		return err
	}
	if err := r.world.each(ctx, r.world.apis, "serves from the cache again", (*part).serves); err != nil {
		return err
	}
	return r.quiet(ctx)
}
