// Package faultproxy stands between a client and a server as a TCP proxy that a test can make faulty: cut, silent, or holding
// back chosen bytes.
//
// Bytes that are held back are kept in order and delivered after [Proxy.Heal] or [Proxy.Release], also those of a client that has
// given up meanwhile, as a real network does; only [Proxy.Cut], [Proxy.Break] and [Proxy.Close] lose them. When a method that stops
// bytes returns, none pass any more. The proxy sees chunks of a byte stream, as one read returns them, not messages of a protocol.
package faultproxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"walkey/internal/freeport"
)

const (
	dialTimeout  = 5 * time.Second
	relistenStep = 10 * time.Millisecond
	relistenMax  = 5 * time.Second
)

// Proxy forwards connections to its target. Its methods may be called at the same time by several goroutines.
type Proxy struct {
	target string
	addr   *net.TCPAddr
	ctx    context.Context //nolint:containedctx // the life of the proxy
	cancel context.CancelFunc
	held   chan struct{}
	owned  sync.WaitGroup // the accepting goroutine and those of the links

	mu sync.Mutex
	// Guarded by mu.
	changed       chan struct{} // closed and replaced whenever something below changes
	listener      net.Listener  // nil while cut or closed
	links         map[*link]struct{}
	silent        bool // nothing passes
	silentReplies bool // nothing passes from server to client
	delay         time.Duration
	cutFrom       map[string]bool // addresses whose connections are refused
	matchReply    func([]byte) bool
	matchRequest  func([]byte) bool
	err           error // of a listener that could not come back
}

// Listen starts a proxy on a free loopback port. It forwards to target (host:port) until Close, or until ctx ends.
func Listen(ctx context.Context, target string) (*Proxy, error) {
	l, err := freeport.Listen()
	if err != nil {
		return nil, err
	}
	return start(ctx, l, target), nil
}

// ListenOn is Listen on an address of one's choice: host:port. All of 127.0.0.0/8 is this machine.
func ListenOn(ctx context.Context, addr, target string) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return start(ctx, l, target), nil
}

func start(ctx context.Context, l net.Listener, target string) *Proxy {
	p := &Proxy{
		target: target, addr: l.Addr().(*net.TCPAddr), listener: l, cutFrom: map[string]bool{},
		held: make(chan struct{}, 1), changed: make(chan struct{}), links: map[*link]struct{}{},
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.owned.Go(func() { p.accept(l) })
	p.owned.Go(func() {
		<-p.ctx.Done()
		p.shut()
	})
	return p
}

// Addr is the address that clients connect to: host:port.
func (p *Proxy) Addr() string { return p.addr.String() }

// Host is the address without the port.
func (p *Proxy) Host() string { return p.addr.IP.String() }

// Port is the port that clients connect to. It stays the same for the life of the proxy.
func (p *Proxy) Port() int { return p.addr.Port }

// Silence makes the link half-open: connections stay open and new ones are accepted, but nothing is forwarded either way, the end
// of a connection included.
func (p *Proxy) Silence() { p.hush(func() { p.silent = true }) }

// SilenceReplies holds everything that the server sends. What clients send still arrives.
func (p *Proxy) SilenceReplies() { p.hush(func() { p.silentReplies = true }) }

// Delay lets every chunk wait for d, in both directions, before it is forwarded. Zero ends that.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Heal ends silence and every cut. What was held back by silence is delivered.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent, p.silentReplies = false, false
	clear(p.cutFrom)
	p.announce()
	if p.listener != nil || p.ctx.Err() != nil {
		return
	}
	l, err := relisten(p.ctx, p.addr)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return
	}
	p.listener = l
	p.owned.Go(func() { p.accept(l) })
}

// relisten waits for an address that another process uses at the moment.
func relisten(ctx context.Context, addr *net.TCPAddr) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, relistenMax)
	defer cancel()
	tick := time.NewTicker(relistenStep)
	defer tick.Stop()
	for {
		l, err := net.ListenTCP("tcp", addr)
		if err == nil {
			return l, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Cut closes all connections and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeListener()
	p.closeLinks()
}

// CutFrom closes the connections that come from an address of this machine, and refuses new ones from there until Heal.
func (p *Proxy) CutFrom(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutFrom[host] = true
	for l := range p.links {
		if hostOf(l.client) == host {
			l.close()
		}
	}
	p.announce()
}

// hostOf is the address that a client comes from.
func hostOf(client net.Conn) string { return client.RemoteAddr().(*net.TCPAddr).IP.String() }

// Break closes the present connections. New ones are forwarded.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLinks()
}

// HoldReplies waits for the first chunk from a client that matches, forwards it, and holds everything that the server then sends
// on that connection until Release. Held tells when the first bytes of the answer are here: the server has acted by then. Match is
// called by one goroutine at a time, must be quick and must not call the proxy.
func (p *Proxy) HoldReplies(match func(chunk []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.matchReply = match
}

// HoldRequests waits for the first chunk from a client that matches, and holds it and what follows it on that connection until
// Release. Held tells when that has happened. Match is called as that of HoldReplies.
func (p *Proxy) HoldRequests(match func(chunk []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.matchRequest = match
}

// Held delivers one value when HoldReplies or HoldRequests has caught something; at most one is kept for a reader who comes late.
func (p *Proxy) Held() <-chan struct{} { return p.held }

// Release delivers what HoldReplies and HoldRequests hold, and ends both. Silence stays.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.matchReply, p.matchRequest = nil, nil
	for l := range p.links {
		l.requests.held, l.replies.held, l.replies.tell = false, false, false
	}
	p.announce()
}

// Connections is the number of clients' connections that are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends all connections and waits for the proxy's goroutines. The error is that of a Heal that could not listen again.
func (p *Proxy) Close() error {
	p.cancel()
	p.owned.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *Proxy) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeListener()
	p.closeLinks()
}

// announce wakes all who wait for a change. The caller holds mu.
func (p *Proxy) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// closeListener refuses new connections. The caller holds mu.
func (p *Proxy) closeListener() {
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// closeLinks ends the connections. The caller holds mu.
func (p *Proxy) closeLinks() {
	for l := range p.links {
		l.close()
	}
	p.announce()
}

// hush changes the state by change and waits until no byte that it stops is still on its way out.
func (p *Proxy) hush(change func()) {
	p.mu.Lock()
	change()
	for {
		busy := false
		for l := range p.links {
			busy = l.requests.interrupt() || busy
			busy = l.replies.interrupt() || busy
		}
		changed := p.changed
		p.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
	}
}

// accept takes clients until the listener is closed.
func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed: by Cut, Close or the end of the context
		}
		p.mu.Lock()
		if p.listener != listener || p.ctx.Err() != nil {
			p.mu.Unlock()
			_ = client.Close()
			return
		}
		if p.cutFrom[hostOf(client)] {
			p.mu.Unlock()
			_ = client.Close()
			continue
		}
		l := newLink(p, client.(*net.TCPConn))
		p.links[l] = struct{}{}
		p.owned.Go(l.run)
		p.mu.Unlock()
	}
}
