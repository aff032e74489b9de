package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// link is one client's connection with its counterpart to the server.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	done   chan struct{} // closed by close

	// Guarded by proxy.mu.
	server   *net.TCPConn // nil until it is dialled
	closed   bool
	requests direction
	replies  direction
}

// direction is the state of one way through a link. Its fields are guarded by proxy.mu.
type direction struct {
	link    *link
	replies bool
	held    bool         // by HoldRequests or HoldReplies
	tell    bool         // announce on Proxy.held when the first bytes are held
	out     *net.TCPConn // being written to at the moment; nil when not
}

func newLink(p *Proxy, client *net.TCPConn) *link {
	l := &link{proxy: p, client: client, done: make(chan struct{})}
	l.requests = direction{link: l}
	l.replies = direction{link: l, replies: true}
	return l
}

// close ends both connections. The caller holds proxy.mu.
func (l *link) close() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
}

// run forwards until both ways have ended, and takes the link out of the proxy.
func (l *link) run() {
	defer func() {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		l.close()
		delete(l.proxy.links, l)
		l.proxy.announce()
	}()
	if !l.dial() {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(&l.requests, l.client, l.server) })
	both.Go(func() { l.pump(&l.replies, l.server, l.client) })
	both.Wait()
}

// dial connects to the server once requests pass. Its failure reaches the client as the end of the connection, when replies pass.
func (l *link) dial() bool {
	if !l.requests.wait() {
		return false
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(l.proxy.ctx, "tcp", l.proxy.target)
	if err != nil {
		l.replies.wait()
		return false
	}
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return false
	}
	l.server = conn.(*net.TCPConn)
	return true
}

// pump copies one way until its end, which it passes on as well.
func (l *link) pump(d *direction, from, to *net.TCPConn) {
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := from.Read(buffer)
		if n > 0 {
			if !d.replies {
				l.inspect(buffer[:n])
			}
			if !l.delay() || !d.forward(to, buffer[:n]) {
				l.end()
				return
			}
		}
		if readErr == nil {
			continue
		}
		if !d.wait() || !errors.Is(readErr, io.EOF) || to.CloseWrite() != nil {
			l.end()
		}
		return
	}
}

func (l *link) end() {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.close()
}

// inspect looks whether a client's chunk is one that the test waits for. Each of the two is caught once.
func (l *link) inspect(chunk []byte) {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.matchReply != nil && p.matchReply(chunk) {
		p.matchReply = nil
		l.replies.held, l.replies.tell = true, true
	}
	if p.matchRequest != nil && p.matchRequest(chunk) {
		p.matchRequest = nil
		l.requests.held, l.requests.tell = true, true
	}
}

func (l *link) delay() bool {
	l.proxy.mu.Lock()
	d := l.proxy.delay
	l.proxy.mu.Unlock()
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// stopped tells whether bytes have to wait. The caller holds proxy.mu.
func (d *direction) stopped() bool {
	p := d.link.proxy
	return p.silent || d.held || d.replies && p.silentReplies
}

// interrupt tells whether bytes are being written that should wait by now, and breaks that write off. The caller holds proxy.mu.
func (d *direction) interrupt() bool {
	if d.out == nil || !d.stopped() {
		return false
	}
	_ = d.out.SetWriteDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose write ends by itself
	return true
}

// wait returns when bytes may pass, or false when the link is closed.
func (d *direction) wait() bool { return d.enter(nil) }

// enter waits like wait and notes that out is written to from now on; leave ends that.
func (d *direction) enter(out *net.TCPConn) bool {
	p := d.link.proxy
	for {
		p.mu.Lock()
		if d.link.closed {
			p.mu.Unlock()
			return false
		}
		if !d.stopped() {
			if d.out = out; out != nil {
				_ = out.SetWriteDeadline(time.Time{})
			}
			p.mu.Unlock()
			return true
		}
		if d.tell {
			d.tell = false
			select {
			case p.held <- struct{}{}:
			default:
			}
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-d.link.done:
			return false
		}
	}
}

func (d *direction) leave() {
	p := d.link.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	d.out = nil
	p.announce()
}

// forward writes the chunk while bytes may pass: what a write that was broken off has not written waits like the rest.
func (d *direction) forward(to *net.TCPConn, chunk []byte) bool {
	for len(chunk) > 0 {
		if !d.enter(to) {
			return false
		}
		n, err := to.Write(chunk)
		d.leave()
		chunk = chunk[n:]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return true
}
