package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// askTimeout bounds one question who serves what. Calls of rueidis wait for another's dial besides.
const askTimeout = 700 * time.Millisecond

func compareText(a, b string) int { return cmp.Compare(a, b) }

// A view is what one node of a cluster says of all.
type view struct {
	from      string // the address that was asked
	self      string // the id of the node
	primary   bool   // by its own word
	moving    bool   // one of its slots is on its way to or from another node
	addresses map[string]string
	epochs    map[string]uint64 // of each node's claims, by its id: the greater one holds
	owners    []string          // an id for each slot, or none
}

// askCluster asks every primary that is known, and the nodes that were known beforehand when one of them is silent.
func (t *topology) askCluster(ctx context.Context) ([]view, error) {
	clients := make(map[string]rueidis.Client)
	for address, n := range t.nodes {
		clients[address] = n.writer
	}
	views, failure := askNodes(ctx, clients)
	if failure != nil || len(views) == 0 {
		clear(clients)
		for _, address := range t.options.addresses() {
			if t.nodes[address] == nil {
				client, err := t.scout(address)
				if err != nil {
					return nil, err
				}
				clients[address] = client
			}
		}
		more, err := askNodes(ctx, clients)
		views = append(views, more...)
		failure = errors.Join(failure, err)
	}
	if len(views) == 0 {
		return nil, failure
	}
	slices.SortFunc(views, func(a, b view) int { return compareText(a.from, b.from) })
	return views, nil
}

// askNodes asks nodes, all at a time. Who does not answer has no say.
func askNodes(ctx context.Context, clients map[string]rueidis.Client) (views []view, err error) {
	type answer struct {
		view view
		err  error
	}
	answers := make(chan answer, len(clients))
	for address, client := range clients {
		go func() {
			once, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			v, err := askNode(once, client, address)
			answers <- answer{v, err}
		}()
	}
	var errs []error
	for range clients {
		a := <-answers
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		views = append(views, a.view)
	}
	return views, errors.Join(errs...)
}

// askNode asks one node for its view.
func askNode(ctx context.Context, client rueidis.Client, address string) (view, error) {
	replies := client.DoMulti(ctx,
		client.B().Arbitrary("CLUSTER", "NODES").Build(),
		client.B().Arbitrary("CLUSTER", "SLOTS").Build(),
	)
	text, err := replies[0].ToString()
	if err != nil {
		return view{}, fmt.Errorf("ask %s for the nodes of its cluster: %w", address, err)
	}
	v := view{from: address, addresses: make(map[string]string), epochs: make(map[string]uint64), owners: make([]string, slotCount)}
	v.readNodes(strings.TrimPrefix(text, "txt:")) // rueidis leaves the format of a verbatim string in it
	ranges, err := replies[1].ToArray()
	if err != nil {
		return view{}, fmt.Errorf("ask %s for the slots of its cluster: %w", address, err)
	}
	for _, one := range ranges {
		if err := v.readRange(one); err != nil {
			return view{}, fmt.Errorf("ask %s for the slots of its cluster: %w", address, err)
		}
	}
	return v, nil
}

// readNodes takes from CLUSTER NODES what CLUSTER SLOTS does not say. A line is: id, address, flags, primary's id, two times,
// epoch, state of the link, and slots, those on their way in brackets.
func (v *view) readNodes(text string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 8 {
			continue
		}
		if epoch, err := strconv.ParseUint(words[6], 10, 64); err == nil {
			v.epochs[words[0]] = epoch
		}
		flags := strings.Split(words[2], ",")
		if slices.Contains(flags, "myself") {
			v.self = words[0]
			v.primary = slices.Contains(flags, "master")
			v.moving = slices.ContainsFunc(words[8:], func(slot string) bool { return strings.HasPrefix(slot, "[") })
		}
	}
}

var errMalformedSlots = errors.New("the answer is malformed")

// readRange takes one entry of CLUSTER SLOTS: first slot, last slot, the primary, its replicas.
func (v *view) readRange(entry rueidis.RedisMessage) error {
	parts, err := entry.ToArray()
	if err != nil || len(parts) < 3 {
		return errMalformedSlots
	}
	first, err1 := parts[0].AsInt64()
	last, err2 := parts[1].AsInt64()
	primary, err3 := parts[2].ToArray()
	if errors.Join(err1, err2, err3) != nil || len(primary) < 3 || first < 0 || last >= slotCount {
		return errMalformedSlots
	}
	// The endpoint is empty where clients are to use the address by which they have come.
	host, err := primary[0].ToString()
	if err != nil || host == "" {
		host, _, _ = net.SplitHostPort(v.from)
	}
	port, err1 := primary[1].AsInt64()
	id, err2 := primary[2].ToString()
	if errors.Join(err1, err2) != nil {
		return errMalformedSlots
	}
	if host == "?" { // it does not know
		return nil
	}
	v.addresses[id] = net.JoinHostPort(host, strconv.FormatInt(port, 10))
	for slot := first; slot <= last; slot++ {
		v.owners[slot] = id
	}
	return nil
}

// merge finds who serves each slot. Where views differ, the claim with the greatest epoch holds, as between the nodes.
func merge(views []view) (addresses []string, owners []uint16) {
	owners = make([]uint16, slotCount)
	index := make(map[string]uint16)
	for slot := range owners {
		owners[slot] = unowned
		best, address := uint64(0), ""
		for i := range views {
			v := &views[i]
			id := v.owners[slot]
			if id == "" {
				continue
			}
			if epoch := v.epochs[id]; address == "" || epoch > best {
				best, address = epoch, v.addresses[id]
			}
		}
		if address == "" {
			continue
		}
		n, known := index[address]
		if !known {
			n = uint16(len(addresses))
			index[address] = n
			addresses = append(addresses, address)
		}
		owners[slot] = n
	}
	return addresses, owners
}

// agrees says whether the node serves, by its own word, exactly what the layout says.
func (v *view) agrees(l *layout) bool {
	if !v.primary {
		return false
	}
	for slot, id := range v.owners {
		if (id == v.self) != (l.slots[slot].node.address == v.from) {
			return false
		}
	}
	return true
}
