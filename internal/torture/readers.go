package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"walkey/internal/torture/ledger"
)

const (
	hitLocal = "walkey; hit; detail=local"
	// slow is what no answer may take while Postgres and the api itself are sound, on a machine that has all of this to run.
	slow = 2 * time.Second
	// maxSuspects bounds what is kept for a second look.
	maxSuspects = 2000
	// tokenShare is one in how many reads sends the token of a late write.
	tokenShare = 20
)

// client is used for all requests.
var client = &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

// address is one thing to ask for, and the ids whose states the answer tells.
type address struct {
	path string
	ids  []int
}

func addresses() []address {
	var all, odd, high []int
	var details []address
	for slot := 1; slot <= slots; slot++ {
		for _, id := range []int{slot, slot + moved} {
			all = append(all, id)
			if kind(id) == "odd" {
				odd = append(odd, id)
			}
			if id > moved {
				high = append(high, id)
			}
			details = append(details, address{fmt.Sprintf("/api/materials/%d/", id), []int{id}})
		}
	}
	return append([]address{
		{"/api/materials/", all},
		{"/api/materials/?type=odd", odd},
		{fmt.Sprintf("/api/materials/?limit=50&after=%d", moved), high},
	}, details...)
}

// states reads what an answer says of the ids that its address covers.
func (a address) states(status int, body []byte) (map[int]ledger.State, error) {
	states := make(map[int]ledger.State, len(a.ids))
	for _, id := range a.ids {
		states[id] = ledger.Absent
	}
	if status == http.StatusNotFound {
		return states, nil
	}
	mark := []byte(`"title":"`)
	for {
		_, after, found := bytes.Cut(body, mark)
		if !found {
			return states, nil
		}
		text, rest, _ := bytes.Cut(after, []byte(`"`))
		body = rest
		number, _, _ := strings.Cut(string(text), ".")
		id, err := strconv.Atoi(number)
		if _, covered := states[id]; err != nil || !covered {
			return nil, fmt.Errorf("%s answers with a row %q", a.path, text)
		}
		states[id] = string(text)
	}
}

// suspect is an answer to be judged again once the history is settled.
type suspect struct {
	api    string
	path   string
	status string // Cache-Status
	answer ledger.Answer
	floor  ledger.Floor // what the client had seen
	since  ledger.Floor // what the token stands for that it sent
}

// violation is something that must not happen.
type violation struct {
	What   string
	API    string
	Path   string
	Status string // Cache-Status, or what failed
	Age    time.Duration
	At     time.Time
	Detail string
}

func (v violation) String() string {
	age := ""
	if v.Age > 0 {
		age = " by " + v.Age.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%s %s%s: %s GET %s [%s] %s", v.At.Format("15:04:05.000"), v.What, age, v.API, v.Path, v.Status, v.Detail)
}

// reading asks the apis and judges what they say.
type reading struct {
	world     *world
	history   *ledger.History
	faulty    *faulty
	staleness time.Duration
	pace      time.Duration
	addresses []address // that are asked for

	tokens func() *written // a late write; nil when there is none

	reads, hits, failed, sent, refused atomic.Int64
	slowest                            atomic.Int64 // of those without an excuse
	hottest                            atomic.Int64 // age of the oldest suspect

	mu         sync.Mutex
	suspects   []suspect     // guarded by mu
	violations []violation   // guarded by mu
	worst      time.Duration // guarded by mu: age of the oldest answer, judged for good
	statuses   map[string]int64
}

// run reads with clients on every api until ctx ends.
func (r *reading) run(ctx context.Context, clients int, seed uint64) {
	var all sync.WaitGroup
	for i, p := range r.world.apis {
		for n := range clients {
			all.Go(func() { r.read(ctx, p, rand.New(rand.NewPCG(seed, uint64(1000*i+n)))) })
		}
	}
	all.Wait()
}

// read is one client of one api: one request after the other.
func (r *reading) read(ctx context.Context, p *part, random *rand.Rand) {
	all := r.addresses
	var life int64
	asking := &asker{addr: p.addr}
	defer asking.close()
	var views map[string]*ledger.View
	statuses := map[string]int64{}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for status, n := range statuses {
			r.statuses[status] += n
		}
	}()
	for ctx.Err() == nil {
		if now := p.life.Load(); now != life {
			life, views = now, map[string]*ledger.View{}
		}
		a := all[0]
		if random.IntN(2) == 0 { // the lists cover all; a detail has a key of its own
			a = all[random.IntN(len(all))]
		}
		var token *written
		if random.IntN(tokenShare) == 0 {
			token = r.tokens()
		}
		status, ok := r.once(ctx, p, asking, a, token, life, views)
		if ok {
			statuses[status]++
		} else if pause(ctx, 20*time.Millisecond) != nil {
			return
		}
		if r.pace > 0 {
			_ = pause(ctx, r.pace)
		}
	}
}

// once asks once; ok when it was answered.
func (r *reading) once(ctx context.Context, p *part, asking *asker, a address, token *written, life int64, views map[string]*ledger.View) (cacheStatus string, ok bool) {
	var text string
	var since ledger.Floor
	if token != nil {
		text, since = token.token, token.floor
		r.sent.Add(1)
	}
	began := time.Now()
	code, cacheStatus, body, err := asking.ask(ctx, a.path, text)
	ended := time.Now()
	if ctx.Err() != nil {
		return "", false
	}
	excused := r.faulty.excuses("postgres", began, ended) || r.faulty.excuses(p.name, began, ended)
	if err == nil && code == http.StatusServiceUnavailable && r.faulty.excuses("places", began, ended) {
		r.refused.Add(1)
		return "", false
	}
	if err != nil || code != http.StatusOK && code != http.StatusNotFound {
		r.failed.Add(1)
		if err == nil {
			err = fmt.Errorf("status %d", code)
		}
		gone := p.life.Load() != life
		if !excused && !gone || code >= 400 && code != http.StatusServiceUnavailable {
			r.violate(violation{What: "no answer", API: p.name, Path: a.path, Status: err.Error(), At: began})
		}
		return "", false
	}
	r.reads.Add(1)
	if strings.HasPrefix(cacheStatus, "walkey; hit") {
		r.hits.Add(1)
	}
	if took := ended.Sub(began); !excused {
		if took > slow {
			r.violate(violation{What: "slow", Age: took, API: p.name, Path: a.path, Status: cacheStatus, At: began})
		}
		for now := r.slowest.Load(); int64(took) > now && !r.slowest.CompareAndSwap(now, int64(took)); now = r.slowest.Load() {
		}
	}
	states, err := a.states(code, body)
	if err != nil {
		r.violate(violation{What: string(ledger.Unknown), API: p.name, Path: a.path, Status: err.Error(), At: began})
		return cacheStatus, true
	}
	answer := ledger.Answer{Began: began, Ended: ended, States: states}
	view := views[a.path]
	if view == nil {
		view = &ledger.View{}
		views[a.path] = view
	}
	r.judge(p, a, cacheStatus, answer, view, since, p.life.Load() == life)
	return cacheStatus, true
}

// judge looks at an answer, and keeps for a second look what seems wrong or is older than all before.
func (r *reading) judge(p *part, a address, status string, answer ledger.Answer, view *ledger.View, since ledger.Floor, sameLife bool) {
	age, fault := r.history.Age(answer)
	var floor ledger.Floor
	behind := r.history.Behind(since, answer)
	if sameLife {
		if view.Behind(r.history, answer) {
			behind, floor = true, view.Floor()
		}
		view.Saw(r.history, answer)
	}
	oldest := false
	for now := r.hottest.Load(); int64(age) > now; now = r.hottest.Load() {
		if r.hottest.CompareAndSwap(now, int64(age)) {
			oldest = true
			break
		}
	}
	if fault == "" && !behind && !oldest && age <= r.staleness {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if oldest || len(r.suspects) < maxSuspects {
		r.suspects = append(r.suspects, suspect{api: p.name, path: a.path, status: status, answer: answer, floor: floor, since: since})
	}
}

func (r *reading) violate(v violation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, v)
}

// sentence judges all suspects by a history in which nothing is open any more, and says how many violations there are now.
func (r *reading) sentence() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.suspects {
		v := violation{API: s.api, Path: s.path, Status: s.status, At: s.answer.Began, Detail: r.history.Explain(s.answer)}
		age, fault := r.history.Age(s.answer)
		r.worst = max(r.worst, age)
		switch {
		case fault != "":
			v.What = string(fault)
		case age > r.staleness:
			v.What, v.Age = string(ledger.Old), age
		case r.history.Behind(s.since, s.answer):
			v.What = string(ledger.Token)
		case r.history.Behind(s.floor, s.answer):
			v.What = string(ledger.Backward)
		default:
			continue
		}
		r.violations = append(r.violations, v)
	}
	r.suspects = r.suspects[:0]
	r.hottest.Store(int64(r.worst))
	return len(r.violations)
}

// compare asks every api for everything and holds it against what Postgres says, while nobody writes.
func (r *reading) compare(ctx context.Context, rows [slots + 1]row) error {
	truth := map[int]ledger.State{}
	for slot := 1; slot <= slots; slot++ {
		for id, state := range rows[slot].states(slot) {
			truth[id] = state
		}
	}
	for _, p := range r.world.apis {
		for _, a := range addresses() {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+a.path, nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return fmt.Errorf("after the faults: %s: %w", p.name, err)
			}
			body, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				return fmt.Errorf("after the faults: %s: %w", p.name, err)
			}
			states, err := a.states(response.StatusCode, body)
			if err == nil {
				for id, state := range states {
					if state != truth[id] {
						err = fmt.Errorf("%q instead of %q", state, truth[id])
					}
				}
			}
			if err != nil {
				r.violate(violation{What: string(ledger.Differs), API: p.name, Path: a.path, Status: response.Header.Get("Cache-Status") + ": " + err.Error(), At: time.Now()})
			}
		}
	}
	return nil
}
