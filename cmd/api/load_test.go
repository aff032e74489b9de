package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/program"
)

const (
	eachKind      = 500 // connections: 2,000 in all
	poolSize      = 4
	heapLimit     = 512 << 20
	loadPatience  = 2 * time.Minute
	slowestAnswer = 30 * time.Second
)

// Two thousand connections at once: those that never finish their header, those that never finish their body, those that do
// not read, and those that ask for something else each time. The last are answered or told to come again, the others are given up in time, and
// when all is over nothing is left.
func TestTwoThousandConnections(t *testing.T) {
	// Not parallel: goroutines and memory are counted.
	database := embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	valkey := embeddedtest.Valkey(t)
	url := database + "&pool_max_conns=" + strconv.Itoa(poolSize)
	environ := []string{
		"DATABASE_URL=" + url, "VALKEY_HOST=" + valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(valkey.Port()),
		"API_ADDR=127.0.0.1:0", "API_ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=error",
	}
	if code, _, stderr := run(t, []string{"seed", "--rows=2000"}, "DATABASE_URL="+url); code != program.ExitDone {
		t.Fatal(stderr)
	}
	before := runtime.NumGoroutine()
	environ[len(environ)-1] = "LOG_LEVEL=info"
	r := start(t, nil, environ...)
	defer r.stop()
	public, _ := r.addresses(t)
	waitFor(t, func() bool { return status(t, public+"/readyz") == http.StatusOK })
	address := strings.TrimPrefix(public, "http://")

	ctx, cancel := context.WithTimeout(t.Context(), loadPatience)
	defer cancel()
	var all sync.WaitGroup
	open := func(request string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(loadPatience))
			_, err = io.WriteString(conn, request)
		}
		return conn, err
	}
	var mu sync.Mutex
	failures := map[string]int{}
	fail := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failures[fmt.Sprint(what, ": ", err)]++
	}
	var silent []net.Conn
	for range eachKind {
		conn, err := open("GET /api/materials/ HTTP/1.1\r\nHost: x\r\n\r\n") // 300 kB that nobody reads
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	for range eachKind {
		all.Go(func() { // never ends its header
			conn, err := open("GET /api/materials/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			if err == nil {
				_, err = io.Copy(io.Discard, conn) // until the server gives up
				err = errors.Join(err, conn.Close())
			}
			if err != nil {
				fail("header", err)
			}
		})
		all.Go(func() { // never ends its body
			conn, err := open("POST /api/session/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"username\":")
			if err != nil {
				fail("body", err)
				return
			}
			defer func() { _ = conn.Close() }()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				fail("body", err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusRequestTimeout {
				fail("body", errors.New(response.Status))
			}
		})
	}
	transport := &http.Transport{MaxIdleConnsPerHost: eachKind}
	client := &http.Client{Transport: transport, Timeout: slowestAnswer}
	const rounds = 10
	var answered atomic.Int64
	for i := range eachKind {
		all.Go(func() {
			for round := range rounds {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/api/materials/?limit=1&after=%d", public, i*rounds+round), nil)
				if err != nil {
					fail("query", err)
					return
				}
				response, err := client.Do(request)
				if err != nil {
					fail("query", err)
					return
				}
				_, err = io.Copy(io.Discard, response.Body)
				err = errors.Join(err, response.Body.Close())
				switch {
				case err != nil:
					fail("query", err)
				case response.StatusCode == http.StatusOK:
					answered.Add(1)
				case response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "": // it was too busy
					fail("query", errors.New(response.Status))
				}
			}
		})
	}
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	for done := false; !done; {
		var n int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'walkey-api'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
		select {
		case <-ended:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	t.Logf("%d database connections at most, %d MiB of heap, %d goroutines", most, memory.HeapAlloc>>20, runtime.NumGoroutine())
	for what, n := range failures {
		t.Errorf("%d × %s", n, what)
	}
	if answered.Load() < eachKind {
		t.Errorf("%d of %d queries were answered, the others were told to come again", answered.Load(), eachKind*rounds)
	}
	if most > poolSize {
		t.Errorf("%d database connections", most)
	}
	if memory.HeapAlloc > heapLimit {
		t.Errorf("%d bytes of heap", memory.HeapAlloc)
	}
	if got := status(t, public+"/healthz"); got != http.StatusOK {
		t.Errorf("healthz afterwards: %d", got)
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	transport.CloseIdleConnections()
	if err := conn.Close(ctx); err != nil {
		t.Error(err)
	}
	r.stop()
	if code := <-r.code; code != program.ExitDone {
		t.Errorf("exit code %d\n%s", code, r.stderr.String())
	}
	http.DefaultClient.CloseIdleConnections()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+5 })
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		descriptors, err := os.ReadDir("/proc/self/fd")
		if err != nil || len(descriptors) > 200 {
			t.Errorf("%d files are open, %v", len(descriptors), err)
		}
	}
}
