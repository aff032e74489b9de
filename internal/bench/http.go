package main

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"walkey/internal/freeport"
	"walkey/internal/stack"
)

const listPath = "/api/materials/"

// fillMaterials makes a list of 200 rows and about 45 KB.
const fillMaterials = `insert into materials (title, description, material_type, icon_name, file)
	select 'Material number ' || i, 'What it is about: ' || md5(i::text) || ', and again ' || md5((i * i)::text), 'article', 'book', 'files/material-' || i || '.pdf'
	from generate_series(1, 200) i`

// kind of request for the list.
type kind struct {
	name    string
	headers []string // names and values
	path    string   // of the same answer at the floor
	status  int
}

// measureHTTP measures local hits over HTTP, in requests a second of wrk.
func measureHTTP(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		rows, err = w.http(ctx)
		return err
	})
	return rows, err
}

func (w *world) http(ctx context.Context) (rows []row, err error) {
	if err := w.sql(ctx, fillMaterials); err != nil {
		return nil, err
	}
	api, err := w.serving(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := hitList(ctx, api)
	if err != nil {
		return nil, err
	}
	coded, err := hitList(ctx, api, "Accept-Encoding", "gzip, deflate")
	if err != nil {
		return nil, err
	}
	tag := plain.Header.Get("Etag")
	kinds := []kind{
		{fmt.Sprintf("plain (%d KB)", len(plain.Body)/1000), nil, "/plain", http.StatusOK},
		{fmt.Sprintf("deflate (%d KB)", len(coded.Body)/1000), []string{"Accept-Encoding", "gzip, deflate"}, "/coded", http.StatusOK},
		{"304", []string{"If-None-Match", tag}, "/same", http.StatusNotModified},
	}
	var answers []canned
	for i, k := range kinds {
		a := canned{Path: k.path, Status: k.status, Header: http.Header{}}
		full := []http.Header{plain.Header, coded.Header, plain.Header}[i]
		names := []string{"Content-Type", "Content-Encoding", "Content-Length"}
		if k.status == http.StatusNotModified {
			names = []string{"Etag"}
		} else {
			a.Body = []canned{plain, coded}[i].Body
		}
		for _, name := range names {
			if values := full[name]; values != nil {
				a.Header[name] = values
			}
		}
		alike := a
		alike.Path += "/alike"
		alike.Header = full.Clone()
		delete(alike.Header, "Date") // net/http's
		if k.status == http.StatusNotModified {
			delete(alike.Header, "Content-Type")
			delete(alike.Header, "Content-Length")
			delete(alike.Header, "X-Content-Type-Options")
		}
		answers = append(answers, a, alike)
	}
	floor, err := w.startFloorServer(ctx, answers)
	if err != nil {
		return nil, err
	}
	for _, connections := range []int{16, 256} {
		for _, k := range kinds {
			at := func(url string) func(context.Context) ([]float64, error) {
				return func(ctx context.Context) ([]float64, error) { return w.wrk(ctx, url, connections, k.headers...) }
			}
			rounds := w.b.rounds
			if k.status == http.StatusNotModified {
				rounds *= 3 // so near to its goal, and so short, that five rounds would say one thing or the other by chance
			}
			got, err := alternate(ctx, rounds,
				variant{"floor", at(floor + k.path)}, variant{"floor with the same headers", at(floor + k.path + "/alike")}, variant{"Walkey", at(api.Base + listPath)})
			if err != nil {
				return nil, err
			}
			what := fmt.Sprintf("GET %s, local hit, %s, %d connections", listPath, k.name, connections)
			rows = append(rows,
				against(what, "requests/s", got[2][0], got[0][0], ratioAtLeast(0.95)),
				against("the same (floor: with the same headers)", "requests/s", got[2][0], got[1][0], goal{}))
		}
	}
	rival, err := w.startDjango(ctx)
	if err != nil {
		return nil, err
	}
	got, err := alternate(ctx, w.b.rounds,
		variant{"Django", func(ctx context.Context) ([]float64, error) { return w.wrk(ctx, rival, 16) }},
		variant{"Walkey", func(ctx context.Context) ([]float64, error) { return w.wrk(ctx, api.Base+listPath, 16) }})
	if err != nil {
		return nil, err
	}
	r := against("the same, beside Django, gunicorn (2 workers), django-redis", "requests/s", got[1][0], got[0][0], ratioAtLeast(14))
	r.floor, r.rival = 0, r.floor
	return append(rows, r), nil
}

// serving starts an invalidator and an api and waits until the list comes from local memory.
func (w *world) serving(ctx context.Context, more ...string) (*stack.Program, error) {
	if _, err := w.start(ctx, "invalidator"); err != nil {
		return nil, err
	}
	api, err := w.start(ctx, "api", more...)
	if err != nil {
		return nil, err
	}
	_, err = hitList(ctx, api)
	return api, err
}

// hitList gives the list once it is a local hit.
func hitList(ctx context.Context, api *stack.Program, headers ...string) (got canned, err error) {
	return got, eventually(ctx, "the list is a local hit", api, func() error {
		got, err = get(ctx, api.Base+listPath, headers...)
		if err == nil && got.Header.Get("Cache-Status") != "walkey; hit; detail=local" {
			err = errors.New(got.Header.Get("Cache-Status"))
		}
		return err
	})
}

func get(ctx context.Context, url string, headers ...string) (canned, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return canned{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return canned{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", url, response.Status, body)
	}
	return canned{Header: response.Header, Body: body, Status: response.StatusCode}, err
}

// startFloorServer starts the floor and gives its base URL.
func (w *world) startFloorServer(ctx context.Context, answers []canned) (base string, err error) {
	file := filepath.Join(w.dir, "answers")
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	if err := errors.Join(gob.NewEncoder(f).Encode(answers), f.Close()); err != nil {
		return "", err
	}
	port, err := freeport.Pick()
	if err != nil {
		return "", err
	}
	addr := net.JoinHostPort(freeport.Host, strconv.Itoa(port))
	p, log, err := w.floor("floor-server", "-addr", addr, "-answers", file)
	if err != nil {
		return "", err
	}
	base = "http://" + addr
	return base, eventually(ctx, "the floor serves", &stack.Program{Process: p, Log: log}, func() error {
		_, err := get(ctx, base+answers[0].Path)
		return err
	})
}

var (
	wrkRate   = regexp.MustCompile(`(?m)^Requests/sec:\s*([\d.]+)$`)
	wrkWrong  = regexp.MustCompile(`(?m)^\s*Non-2xx or 3xx responses: \d+$`)
	wrkSocket = regexp.MustCompile(`(?m)^\s*Socket errors: .*$`)
	wrkP99    = regexp.MustCompile(`(?m)^\s*99%\s+([\d.]+)(us|ms|s)$`)
)

// wrk gives the requests a second that a server answers over so many connections, and the 99th percentile of their latency in ms.
func (w *world) wrk(ctx context.Context, url string, connections int, headers ...string) ([]float64, error) {
	// A second, which is as short as wrk can: many short rounds are fairer than few long ones.
	args := []string{"-t", "1", "-c", strconv.Itoa(connections), "-d", "1s", "--latency"}
	for i := 0; i < len(headers); i += 2 {
		args = append(args, "-H", headers[i]+": "+headers[i+1])
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, url)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("wrk: %w (`sh deploy/local/setup.sh bench` installs it)\n%s", err, out)
	}
	if wrong := wrkWrong.Find(out); wrong != nil {
		return nil, fmt.Errorf("wrk: %s", wrong)
	}
	if wrong := wrkSocket.Find(out); wrong != nil {
		return nil, fmt.Errorf("wrk: %s", wrong)
	}
	rate, p99 := wrkRate.FindSubmatch(out), wrkP99.FindSubmatch(out)
	if rate == nil || p99 == nil {
		return nil, fmt.Errorf("wrk said:\n%s", out)
	}
	perSecond, err := strconv.ParseFloat(string(rate[1]), 64)
	if err != nil {
		return nil, err
	}
	latency, err := time.ParseDuration(string(p99[1]) + string(p99[2]))
	if err != nil {
		return nil, err
	}
	return []float64{perSecond, latency.Seconds() * 1000}, nil
}
