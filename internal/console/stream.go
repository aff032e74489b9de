package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"walkey/internal/status"
)

const (
	// writeTimeout is how long a client may take to read what it is sent; then it is cut off.
	writeTimeout = 10 * time.Second
	// aliveEvery is how often something is sent in any case, so that either side notices when the other is gone.
	aliveEvery = 10 * time.Second
	// pageEvery bounds how often a page gets transactions, pageMost how many at once: more than that nobody can read.
	pageEvery, pageMost = 100 * time.Millisecond, 25
	// pageFirst is how many of the past a fresh page gets.
	pageFirst = 50
)

// stream is one answer of server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// open begins the answer.
func openStream(w http.ResponseWriter) (*stream, error) {
	s := &stream{w: w, control: http.NewResponseController(w)}
	// The server's limit on reading a request would end the request's context after a while.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("begin the stream: %w", err)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back
	return s, s.flush()
}

// send writes one event. Its data is one line of JSON.
func (s *stream) send(id, name string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if id != "" {
		if _, err := fmt.Fprintf(s.w, "id: %s\n", id); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, text)
	return err
}

// alive writes a comment, which clients pass over.
func (s *stream) alive() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(s.w, ":\n\n"); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *stream) flush() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.control.Flush()
}

// events streams every event, for `invalidator tail`. A client that comes back with the id of the last one that it has seen
// goes on behind it.
func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	feed := c.options.Feed
	query := r.URL.Query()
	filter := Filter{Tables: query["table"], Keys: query["key"], prefix: c.prefix}
	after := feed.position()
	if run, seen, ok := strings.Cut(r.Header.Get("Last-Event-ID"), "."); ok && run == feed.run {
		if id, err := strconv.ParseUint(seen, 10, 64); err == nil {
			after = min(after, id)
		}
	}
	me, err := feed.watch(filter)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer feed.leave(me)
	s, err := openStream(w)
	if err != nil {
		return // the client has gone
	}
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		var events []Event
		var missed uint64
		events, missed, after = feed.after(after, ringSize, filter)
		if missed > 0 {
			events = append([]Event{{Type: TypeMissed, At: time.Now().UTC(), Missed: missed}}, events...)
		}
		for i := range events {
			id := ""
			if events[i].ID != 0 {
				id = feed.run + "." + strconv.FormatUint(events[i].ID, 10)
			}
			if s.send(id, events[i].Type, &events[i]) != nil {
				return
			}
		}
		if len(events) > 0 && s.flush() != nil {
			return
		}
		select {
		case <-me.wake:
		case <-alive.C:
			if s.alive() != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-c.over:
			return
		}
	}
}

// hello is what a page gets first.
type hello struct {
	Samples []Sample       `json:"samples"`
	Events  []Event        `json:"events"`
	Report  *status.Report `json:"report"`
}

// now is what a page gets each second.
type now struct {
	Sample *Sample        `json:"sample"`
	Report *status.Report `json:"report"`
}

// latest is what a page gets of the events: the newest, and how many were left out.
type latest struct {
	Events  []Event `json:"events"`
	LeftOut uint64  `json:"left_out"`
}

// live streams what the page shows.
func (c *Console) live(w http.ResponseWriter, r *http.Request) {
	feed := c.options.Feed
	me, err := feed.watch(Filter{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer feed.leave(me)
	s, err := openStream(w)
	if err != nil {
		return // the client has gone
	}
	report := c.report(r.Context())
	if report == nil {
		return
	}
	reported := c.news.next()
	position := feed.position()
	past, _, after := feed.after(position-min(position, ringSize), pageFirst, Filter{})
	if s.send("", "hello", hello{c.history.all(), past, report}) != nil || s.flush() != nil {
		return
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	wake := me.wake
	for {
		select {
		case <-wake:
			var next latest
			next.Events, next.LeftOut, after = feed.after(after, pageMost, Filter{})
			if len(next.Events) > 0 && (s.send("", "events", next) != nil || s.flush() != nil) {
				return
			}
			wake = nil // for a while
			pause.Reset(pageEvery)
		case <-pause.C:
			wake = me.wake
		case <-reported:
			reported = c.news.next()
			if s.send("", "now", now{c.history.last(), c.latest.Load()}) != nil || s.flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-c.over:
			return
		}
	}
}
