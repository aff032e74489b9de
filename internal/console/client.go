package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"walkey/internal/status"
)

const (
	// dialTimeout bounds the connect, answerTimeout the wait for an answer to begin.
	dialTimeout, answerTimeout = 2 * time.Second, 3 * time.Second
	// silence is how long a stream may be silent before it counts as lost: something comes every aliveEvery.
	silence = 3 * aliveEvery
)

// ErrNoProcess says that no invalidator answers at an address.
var ErrNoProcess = errors.New("no invalidator answers")

// Client asks a running invalidator.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client of the process that serves at an address to listen on, such as ":8081": without a host, or with
// one that means every interface, it is this machine.
func NewClient(addr string) *Client {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return &Client{base: "http://" + addr, http: &http.Client{Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ResponseHeaderTimeout: answerTimeout,
	}}}
}

// Base is the URL that it asks.
func (c *Client) Base() string { return c.base }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// get asks; whoever gets a response closes its body.
func (c *Client) get(ctx context.Context, path, accept, lastID string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.base, err)
	}
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrNoProcess, c.base, cause(err))
	}
	kind := response.Header.Get("Content-Type")
	if response.StatusCode == http.StatusOK && strings.HasPrefix(kind, accept) {
		return response, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // for people; part of it is better than none
	_ = response.Body.Close()
	if response.StatusCode == http.StatusServiceUnavailable {
		return nil, fmt.Errorf("%w at %s: it says: %s", ErrNoProcess, c.base, strings.TrimSpace(string(text)))
	}
	return nil, fmt.Errorf("%w at %s: something else does (GET %s: %s)", ErrNoProcess, c.base, path, response.Status)
}

// cause takes the URL off an error of package http: it is said already.
func cause(err error) error {
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		return outer.Err
	}
	return err
}

// Report asks for the latest report. The error is [ErrNoProcess] when nobody answers, or somebody else.
func (c *Client) Report(ctx context.Context) (status.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	response, err := c.get(ctx, "/status", "application/json", "")
	if err != nil {
		return status.Report{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var r status.Report
	if err := json.NewDecoder(response.Body).Decode(&r); err != nil || r.State == "" || r.Process == nil {
		return status.Report{}, fmt.Errorf("%w at %s: something else does", ErrNoProcess, c.base)
	}
	return r, nil
}

// Reader is told what Tail reads.
type Reader struct {
	// Show gets each event, with the line of JSON that it came as. Its error ends Tail.
	Show func(e Event, line []byte) error
	// Begun is called when a stream has begun: what happens from now on comes.
	Begun func()
	// Lost is called with the reason when a stream is lost, once for each loss. It is begun again.
	Lost func(error)
}

// Tail reads every event that the filter lets through until ctx ends. It is an error when nobody answers at first; a stream
// that is lost later is begun again.
func (c *Client) Tail(ctx context.Context, filter Filter, to Reader) error {
	query := url.Values{"table": filter.Tables, "key": filter.Keys}.Encode()
	pauses := &backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 2 * time.Second}
	pauses.Reset()
	t := tail{client: c, path: "/events?" + query, to: to}
	told := false // of the present loss
	for {
		began, err := t.once(ctx)
		switch {
		case t.refused != nil || ctx.Err() != nil:
			return t.refused
		case !t.connected:
			return err
		case began:
			told = false
			pauses.Reset()
		}
		if !told {
			told = true
			to.Lost(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// tail is one going on.
type tail struct {
	client    *Client
	path      string
	to        Reader
	last      string // id of the last event
	connected bool   // once, at least
	refused   error  // by Reader.Show
}

// once reads one stream to its end. began says whether there was one.
func (t *tail) once(ctx context.Context) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := t.client.get(ctx, t.path, "text/event-stream", t.last)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	t.connected = true
	t.to.Begun()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	lines := bufio.NewReader(response.Body)
	id := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return true, fmt.Errorf("the stream of %s ended: %w", t.client.base, err)
		}
		watchdog.Reset(silence)
		line = strings.TrimSuffix(line, "\n")
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "id":
			id = value
		case "data":
			var e Event
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				return true, fmt.Errorf("read an event of %s: %w", t.client.base, err)
			}
			if t.refused = t.to.Show(e, []byte(value)); t.refused != nil {
				return true, t.refused
			}
			if id != "" {
				t.last = id
			}
			id = ""
		}
	}
}
