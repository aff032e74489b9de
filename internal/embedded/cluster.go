package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"walkey/internal/freeport"
)

const slotCount = 16384

// ClusterOptions say how a Valkey Cluster is to be started.
type ClusterOptions struct {
	Primaries int // 3 when zero
	Replicas  int // of each primary

	// NodeTimeout is after how long of silence a node counts as failed; a second when zero.
	NodeTimeout time.Duration

	// Settings are those of every node, as in [ValkeyOptions].
	Settings map[string]string

	// Front, when set, is asked for the ports by which a node is known to clients and to the other nodes, such as those of
	// proxies. The hosts stay.
	Front func(n *Node) (port, busPort int, err error)

	// Log takes the logs of all nodes.
	Log io.Writer
}

// A Node is a server of a cluster. Its outgoing connections, those to other nodes, come from a loopback address of its own.
type Node struct {
	*Valkey
	ID      string
	BusPort int
	Source  string // where its connections come from
}

// Cluster is a private Valkey Cluster. First come the primaries, then their replicas, in the same order.
type Cluster struct {
	Nodes []*Node
}

// StartCluster starts the nodes and joins them, and returns when all slots are served and all replicas are in step.
func StartCluster(ctx context.Context, o ClusterOptions) (c *Cluster, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if o.Primaries == 0 {
		o.Primaries = 3
	}
	if o.NodeTimeout == 0 {
		o.NodeTimeout = time.Second
	}
	c = &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a cluster: %w", err), c.Stop(context.WithoutCancel(ctx)))
		}
	}()
	for i := range o.Primaries * (1 + o.Replicas) {
		if err := c.add(ctx, o, i); err != nil {
			return c, err
		}
	}
	return c, c.form(ctx, o)
}

// add starts one node, which knows no other.
func (c *Cluster) add(ctx context.Context, o ClusterOptions, i int) error {
	n := &Node{Source: fmt.Sprintf("127.0.2.%d", i+1)}
	var err error
	if n.BusPort, err = freeport.Pick(); err != nil {
		return err
	}
	settings := map[string]string{
		"cluster-enabled":                 "yes",
		"cluster-port":                    strconv.Itoa(n.BusPort),
		"cluster-node-timeout":            strconv.FormatInt(o.NodeTimeout.Milliseconds(), 10),
		"cluster-announce-ip":             freeport.Host,
		"bind-source-addr":                n.Source,
		"repl-diskless-sync-delay":        "0",
		"repl-ping-replica-period":        "1",
		"cluster-replica-validity-factor": "0",
		// Clients use the host by which they have come, so that each can have proxies of its own.
		"cluster-preferred-endpoint-type": "unknown-endpoint",
	}
	maps.Copy(settings, o.Settings)
	if n.Valkey, err = StartValkey(ctx, ValkeyOptions{Settings: settings, Log: o.Log}); err != nil {
		return err
	}
	c.Nodes = append(c.Nodes, n)
	id, err := n.Ask(ctx, "CLUSTER", "MYID")
	if err != nil {
		return err
	}
	n.ID = id[0]
	if o.Front == nil {
		return nil
	}
	port, bus, err := o.Front(n)
	if err != nil {
		return err
	}
	return n.set(ctx, map[string]string{"cluster-announce-port": strconv.Itoa(port), "cluster-announce-bus-port": strconv.Itoa(bus)})
}

// form joins the nodes.
func (c *Cluster) form(ctx context.Context, o ClusterOptions) error {
	for i, n := range c.Nodes {
		if _, err := n.Ask(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
		if i < o.Primaries {
			from, to := i*slotCount/o.Primaries, (i+1)*slotCount/o.Primaries-1
			if _, err := n.Ask(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
				return err
			}
		}
	}
	for _, n := range c.Nodes[1:] {
		if err := c.meet(ctx, n); err != nil {
			return err
		}
	}
	for i, n := range c.Nodes[o.Primaries:] {
		if err := c.until(ctx, n, func(nodes string) bool { return strings.Count(nodes, "\n") == len(c.Nodes) }); err != nil {
			return err
		}
		if _, err := n.Ask(ctx, "CLUSTER", "REPLICATE", c.Nodes[i%o.Primaries].ID); err != nil {
			return err
		}
	}
	return c.Settle(ctx)
}

// meet makes a node known to the first one, and by it to all.
func (c *Cluster) meet(ctx context.Context, n *Node) error {
	_, err := n.Ask(ctx, "CLUSTER", "MEET", freeport.Host, strconv.Itoa(c.Nodes[0].Port()), strconv.Itoa(c.Nodes[0].BusPort))
	return err
}

// Add starts a primary more, which serves no slot yet, and joins it.
func (c *Cluster) Add(ctx context.Context, o ClusterOptions) (*Node, error) {
	if o.NodeTimeout == 0 {
		o.NodeTimeout = time.Second
	}
	if err := c.add(ctx, o, len(c.Nodes)); err != nil {
		return nil, err
	}
	n := c.Nodes[len(c.Nodes)-1]
	if err := c.meet(ctx, n); err != nil {
		return nil, err
	}
	return n, c.Settle(ctx)
}

// until waits for what a node says of all.
func (c *Cluster) until(ctx context.Context, n *Node, check func(nodes string) bool) error {
	for {
		nodes, err := n.Ask(ctx, "CLUSTER", "NODES")
		if err == nil && check(nodes[0]) {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("%s never said what was waited for: %w; it says %q", n.Addr(), errors.Join(ctx.Err(), err), nodes)
		}
	}
}

// Settle waits until every node that runs knows all the others, finds all slots served, and every replica is in step.
func (c *Cluster) Settle(ctx context.Context) error {
	for _, n := range c.Nodes {
		if !n.current().Running() {
			continue
		}
		for {
			info, err1 := n.Ask(ctx, "CLUSTER", "INFO")
			replication, err2 := n.Ask(ctx, "INFO", "replication")
			err := errors.Join(err1, err2)
			if err == nil && strings.Contains(info[0], "cluster_state:ok") && strings.Contains(info[0], "cluster_known_nodes:"+strconv.Itoa(len(c.Nodes))) &&
				!strings.Contains(replication[0], "master_link_status:down") {
				break
			}
			if pause(ctx, 10*time.Millisecond) != nil {
				return fmt.Errorf("%s is not settled: %w; it says %q", n.Addr(), errors.Join(ctx.Err(), err), info)
			}
		}
	}
	return nil
}

// Addrs are the addresses of the nodes, at a host of one's choice.
func (c *Cluster) Addrs(host string) []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, net.JoinHostPort(host, strconv.Itoa(n.Port())))
	}
	return all
}

// Primary gives the node that serves a slot, as another one says it.
func (c *Cluster) Primary(ctx context.Context, by *Node, slot int) (*Node, error) {
	nodes, err := by.Ask(ctx, "CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(nodes[0]) {
		words := strings.Fields(line)
		for _, part := range words[min(8, len(words)):] {
			first, last, isRange := strings.Cut(part, "-")
			from, err := strconv.Atoi(first)
			if err != nil {
				continue // on its way
			}
			to := from
			if isRange {
				to, _ = strconv.Atoi(last)
			}
			if slot >= from && slot <= to {
				if i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.ID == words[0] }); i >= 0 {
					return c.Nodes[i], nil
				}
			}
		}
	}
	return nil, fmt.Errorf("%s says that nobody serves slot %d", by.Addr(), slot)
}

// Primaries gives the primaries that run and serve slots, each with its replicas that run, as a node says it that runs.
func (c *Cluster) Primaries(ctx context.Context) (map[*Node][]*Node, error) {
	byID := make(map[string]*Node, len(c.Nodes))
	for _, n := range c.Nodes {
		byID[n.ID] = n
	}
	var errs []error
	for _, by := range c.Nodes {
		if !by.current().Running() {
			continue
		}
		nodes, err := by.Ask(ctx, "CLUSTER", "NODES")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all := make(map[*Node][]*Node)
		var replicas [][2]*Node
		for line := range strings.Lines(nodes[0]) {
			words := strings.Fields(line)
			n := byID[words[0]]
			if n == nil || !n.current().Running() {
				continue
			}
			if primary := byID[words[3]]; primary != nil {
				replicas = append(replicas, [2]*Node{primary, n})
			} else if len(words) > 8 {
				all[n] = nil
			}
		}
		for _, pair := range replicas {
			if _, serves := all[pair[0]]; serves {
				all[pair[0]] = append(all[pair[0]], pair[1])
			}
		}
		return all, nil
	}
	return nil, errors.Join(append(errs, errors.New("no node of the cluster answers"))...)
}

// Move moves a slot with all its keys, one key after the other, as it is done by hand. Between, when set, is called when the
// half of the keys has moved.
func (c *Cluster) Move(ctx context.Context, slot int, from, to *Node, between func()) error {
	number := strconv.Itoa(slot)
	if _, err := to.Ask(ctx, "CLUSTER", "SETSLOT", number, "IMPORTING", from.ID); err != nil {
		return err
	}
	if _, err := from.Ask(ctx, "CLUSTER", "SETSLOT", number, "MIGRATING", to.ID); err != nil {
		return err
	}
	for {
		keys, err := from.Ask(ctx, "CLUSTER", "GETKEYSINSLOT", number, "100")
		if err != nil {
			return err
		}
		if between != nil {
			keys = keys[:(len(keys)+1)/2]
		}
		for _, key := range keys {
			if _, err := from.Ask(ctx, "MIGRATE", freeport.Host, strconv.Itoa(to.Port()), key, "0", "5000"); err != nil {
				return err
			}
		}
		if between != nil {
			between()
			between = nil
			continue
		}
		if len(keys) == 0 {
			break
		}
	}
	for _, n := range append([]*Node{to, from}, c.Nodes...) { // the new owner first
		if !n.current().Running() {
			continue
		}
		if _, err := n.Ask(ctx, "CLUSTER", "SETSLOT", number, "NODE", to.ID); err != nil && !strings.Contains(err.Error(), "primar") && !strings.Contains(err.Error(), "master") {
			return err // a replica hears of it from its primary
		}
	}
	return nil
}

// Stop ends all nodes.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Valkey.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Log is the end of what the nodes logged.
func (c *Cluster) Log() string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "%s:\n%s\n", n.Addr(), n.Valkey.Log())
	}
	return b.String()
}
