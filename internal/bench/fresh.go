package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// measureFresh measures from the moment that a COMMIT has returned to the arrival of the first answer over HTTP that shows it, while
// the row is being served from memory. The floor is a writer who knows the key and deletes it himself as soon as his COMMIT has
// returned.
func measureFresh(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		samples := 300
		if b.short {
			samples = 30
		}
		if err := w.sql(ctx, "insert into materials (id, title) values (1, 'first')"); err != nil {
			return err
		}
		invalidator, err := w.launch("invalidator")
		if err != nil {
			return err
		}
		api, err := w.start(ctx, "api")
		if err != nil {
			return err
		}
		if err := w.caughtUp(ctx, invalidator); err != nil {
			return err
		}
		address := strings.TrimPrefix(api.Base, "http://")
		round := func(deletes bool) func(context.Context) ([]float64, error) {
			return func(ctx context.Context) ([]float64, error) { return w.freshRound(ctx, address, samples, deletes) }
		}
		got, err := alternate(ctx, b.rounds, variant{"floor", round(true)}, variant{"Walkey", round(false)})
		if err != nil {
			return err
		}
		p99 := against("commit → fresh over HTTP, p99", "ms", got[1][1], got[0][1], figureAtMost(10, "ms"))
		rows = []row{against("commit → fresh over HTTP, p50", "ms", got[1][0], got[0][0], goal{}), p99}
		return nil
	})
	return rows, err
}

// freshRound gives p50 and p99 in milliseconds.
func (w *world) freshRound(ctx context.Context, address string, samples int, deletes bool) ([]float64, error) {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	valkey, err := dialValkey(ctx, w.valkey.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { _ = valkey.conn.Close() }()
	reader, err := newAsker(ctx, address, "/api/materials/1/")
	if err != nil {
		return nil, err
	}
	defer func() { _ = reader.conn.Close() }()
	var took []float64
	for n := range samples {
		if err := reader.until("Cache-Status", "walkey; hit; detail=local"); err != nil {
			return nil, err
		}
		title := fmt.Sprintf("title %d of %d", n, time.Now().UnixNano())
		if _, err := conn.Exec(ctx, "update materials set title = $1 where id = 1", title); err != nil {
			return nil, err
		}
		committed := time.Now()
		if deletes {
			if _, err := valkey.ask("UNLINK", detailKey); err != nil {
				return nil, err
			}
		}
		if err := reader.until("", title); err != nil {
			return nil, err
		}
		took = append(took, time.Since(committed).Seconds()*1000)
	}
	slices.Sort(took)
	return []float64{quantile(took, 0.5), quantile(took, 0.99)}, nil
}

// asker asks for one address over one connection, with little to do of its own.
type asker struct {
	conn    net.Conn
	in      *bufio.Reader
	request string
}

func newAsker(ctx context.Context, address, path string) (*asker, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &asker{conn, bufio.NewReader(conn), "GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n"}, nil
}

// until asks until a header has a value, or with an empty name until the body contains it.
func (a *asker) until(name, value string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := io.WriteString(a.conn, a.request); err != nil {
			return err
		}
		response, err := http.ReadResponse(a.in, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		_ = response.Body.Close() // read to its end
		if name == "" && strings.Contains(string(body), value) || name != "" && response.Header.Get(name) == value {
			return nil
		}
	}
	return fmt.Errorf("no answer with %s %q", name, value)
}
