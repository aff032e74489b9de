package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"walkey/internal/freeport"
)

// SentinelName is what the sentinels of a [Sentinels] call the primary.
const SentinelName = "main"

// SentinelOptions say how a primary with replicas and sentinels is to be started.
type SentinelOptions struct {
	Replicas int // 1 when zero

	// DownAfter is after how long of silence the primary counts as failed; a second when zero.
	DownAfter time.Duration

	// Settings are those of every server, as in [ValkeyOptions].
	Settings map[string]string

	// Front, when set, is asked for the port by which a server is known to clients, to the others and to the sentinels, such as
	// that of a proxy. The host stays.
	Front func(n *Node) (port int, err error)

	// Log takes the logs of all servers.
	Log io.Writer
}

// Sentinels are a primary, its replicas and three sentinels that watch over them.
type Sentinels struct {
	Servers []*Node // the first one is the primary when all begins
	Watch   []*Valkey
	fronts  []int // ports by which the servers are known
}

// StartSentinels starts everything and returns when the replicas are in step and the sentinels know one another and the replicas.
func StartSentinels(ctx context.Context, o SentinelOptions) (s *Sentinels, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	o.Replicas = max(o.Replicas, 1)
	if o.DownAfter == 0 {
		o.DownAfter = time.Second
	}
	s = &Sentinels{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start servers with sentinels: %w", err), s.Stop(context.WithoutCancel(ctx)))
		}
	}()
	for i := range 1 + o.Replicas {
		if err := s.add(ctx, o, i); err != nil {
			return s, err
		}
	}
	for range 3 {
		w, err := StartValkey(ctx, ValkeyOptions{Sentinel: true, Log: o.Log, Lines: []string{
			fmt.Sprintf("sentinel monitor %s %s %d 2", SentinelName, freeport.Host, s.fronts[0]),
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", SentinelName, o.DownAfter.Milliseconds()),
			fmt.Sprintf("sentinel failover-timeout %s %d", SentinelName, 3*o.DownAfter.Milliseconds()),
		}})
		if err != nil {
			return s, err
		}
		s.Watch = append(s.Watch, w)
	}
	return s, s.Settle(ctx)
}

func (s *Sentinels) add(ctx context.Context, o SentinelOptions, i int) error {
	n := &Node{Source: fmt.Sprintf("127.0.3.%d", i+1)}
	settings := map[string]string{
		"bind-source-addr": n.Source, "replica-announce-ip": freeport.Host,
		"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1",
	}
	for name, value := range o.Settings {
		settings[name] = value
	}
	var err error
	if n.Valkey, err = StartValkey(ctx, ValkeyOptions{Settings: settings, Log: o.Log}); err != nil {
		return err
	}
	s.Servers = append(s.Servers, n)
	port := n.Port()
	if o.Front != nil {
		if port, err = o.Front(n); err != nil {
			return err
		}
		if err := n.set(ctx, map[string]string{"replica-announce-port": strconv.Itoa(port)}); err != nil {
			return err
		}
	}
	s.fronts = append(s.fronts, port)
	if i == 0 {
		return nil
	}
	_, err = n.Ask(ctx, "REPLICAOF", freeport.Host, strconv.Itoa(s.fronts[0]))
	return err
}

// Settle waits until every server that runs is the primary or a replica in step with it, and every sentinel that runs agrees.
func (s *Sentinels) Settle(ctx context.Context) error {
	for {
		err := s.settled(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (s *Sentinels) settled(ctx context.Context) error {
	primary, err := s.Primary(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, n := range s.Servers {
		if !n.current().Running() {
			continue
		}
		running++
		said, err := n.Ask(ctx, "INFO", "replication")
		if err != nil {
			return err
		}
		inStep := strings.Contains(said[0], "role:slave") && strings.Contains(said[0], "master_link_status:up")
		if n == primary {
			inStep = strings.Contains(said[0], "role:master")
		}
		if !inStep {
			return fmt.Errorf("%s is not in step", n.Addr())
		}
	}
	for _, w := range s.Watch {
		if !w.current().Running() {
			continue
		}
		said, err := w.Ask(ctx, "SENTINEL", "MASTER", SentinelName)
		if err != nil {
			return err
		}
		fields := map[string]string{}
		for i := 0; i+1 < len(said); i += 2 {
			fields[said[i]] = said[i+1]
		}
		if fields["num-other-sentinels"] != strconv.Itoa(len(s.Watch)-1) || fields["flags"] != "master" || fields["num-slaves"] != strconv.Itoa(len(s.Servers)-1) {
			return fmt.Errorf("the sentinel at %s says %v", w.Addr(), fields)
		}
	}
	return nil
}

// Primary gives the server that the first sentinel that answers calls the primary.
func (s *Sentinels) Primary(ctx context.Context) (*Node, error) {
	var errs []error
	for _, w := range s.Watch {
		said, err := w.Ask(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelName)
		if err != nil || len(said) != 2 {
			errs = append(errs, err)
			continue
		}
		for i, port := range s.fronts {
			if said[1] == strconv.Itoa(port) {
				return s.Servers[i], nil
			}
		}
	}
	return nil, errors.Join(append(errs, errors.New("no sentinel names a primary"))...)
}

// Failover has the sentinels promote a replica while all is well, and waits until one is the primary.
func (s *Sentinels) Failover(ctx context.Context) error {
	before, err := s.Primary(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Watch[0].Ask(ctx, "SENTINEL", "FAILOVER", SentinelName); err != nil {
		return err
	}
	return s.Promoted(ctx, before)
}

// Promoted waits until another server than the one before is the primary.
func (s *Sentinels) Promoted(ctx context.Context, before *Node) error {
	for {
		now, err := s.Primary(ctx)
		if err == nil && now != before {
			return nil
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("%s is still the primary", before.Addr()), ctx.Err(), err)
		}
	}
}

// Addrs are the addresses of the sentinels.
func (s *Sentinels) Addrs() []string {
	var all []string
	for _, w := range s.Watch {
		all = append(all, net.JoinHostPort(freeport.Host, strconv.Itoa(w.Port())))
	}
	return all
}

// Stop ends all servers.
func (s *Sentinels) Stop(ctx context.Context) error {
	var errs []error
	for _, w := range s.Watch {
		errs = append(errs, w.Stop(ctx))
	}
	for _, n := range s.Servers {
		errs = append(errs, n.Valkey.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Log is the end of what the servers logged.
func (s *Sentinels) Log() string {
	var b strings.Builder
	for _, n := range s.Servers {
		fmt.Fprintf(&b, "%s:\n%s\n", n.Addr(), n.Valkey.Log())
	}
	for _, w := range s.Watch {
		fmt.Fprintf(&b, "sentinel %s:\n%s\n", w.Addr(), w.Log())
	}
	return b.String()
}
