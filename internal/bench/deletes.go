package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"walkey/internal/cache"
	"walkey/internal/stack"
)

// measureTransaction measures one transaction that changes a million rows: from its COMMIT until the last key is gone. Beside it
// stand the same UNLINKs by valkey-cli --pipe, and what pg_recvlogical takes for the same transaction.
func measureTransaction(ctx context.Context, b *bench) (rows []row, err error) {
	n := 1_000_000
	if b.short {
		n = 20_000
	}
	err = b.within(ctx, func(w *world) error {
		conn, err := w.fillTable(ctx, n)
		if err != nil {
			return err
		}
		keys := detailKeysTo(n)
		p, err := w.start(ctx, "invalidator")
		if err != nil {
			return err
		}
		if err := w.caughtUp(ctx, p); err != nil {
			return err
		}
		var cli, ours, peaks, received []float64
		for i := range min(b.rounds, 2) {
			if err := w.setAll(ctx, keys); err != nil {
				return err
			}
			began := time.Now()
			if err := w.pipe(ctx, keys, "UNLINK"); err != nil {
				return err
			}
			cli = append(cli, time.Since(began).Seconds())
			if err := w.setAll(ctx, keys); err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, "select pg_create_logical_replication_slot('floor', 'pgoutput')"); err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, fmt.Sprintf("update materials set title = title || %d where id <= %d", i, n)); err != nil {
				return err
			}
			began = time.Now()
			if err := w.gone(ctx, keys, p); err != nil {
				return err
			}
			ours = append(ours, time.Since(began).Seconds())
			_, peak, err := memory(p.PID())
			if err != nil {
				return err
			}
			peaks = append(peaks, peak)
			var end string
			if err := conn.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
				return err
			}
			alone, err := w.receive(ctx, end)
			if err != nil {
				return err
			}
			received = append(received, alone.Seconds())
			if _, err := conn.Exec(ctx, "select pg_drop_replication_slot('floor')"); err != nil {
				return err
			}
		}
		rows = []row{
			against(fmt.Sprintf("one transaction of %s rows: commit → last key gone (floor: valkey-cli --pipe)", thousands(float64(n))), "s", ours, cli, ratioAtMost(2)),
			against("the same (floor: pg_recvlogical receives the transaction)", "s", ours, received, goal{}),
			{what: "peak memory of it", unit: "MiB", ours: slices.Max(peaks), goal: figureAtMost(128, "MiB")},
		}
		return nil
	})
	return rows, err
}

// detailKeysTo are the keys of the rows 1 to n.
func detailKeysTo(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = detailKeys + strconv.Itoa(i+1)
	}
	return keys
}

// setAll stores a value under every key.
func (w *world) setAll(ctx context.Context, keys []string) error {
	return w.pipe(ctx, keys, "SET", "x")
}

// pipe sends one command for each key by valkey-cli --pipe.
func (w *world) pipe(ctx context.Context, keys []string, command string, value ...string) error {
	var b bytes.Buffer
	for _, key := range keys {
		fmt.Fprintf(&b, "*%d\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", 2+len(value), len(command), command, len(key), key)
		for _, v := range value {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(v), v)
		}
	}
	return w.pipeBytes(ctx, &b)
}

func (w *world) pipeBytes(ctx context.Context, commands io.Reader) error {
	c := exec.CommandContext(ctx, "valkey-cli", "-h", w.valkey.Host(), "-p", strconv.Itoa(w.valkey.Port()), "--pipe")
	c.Stdin = commands
	if out, err := c.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("errors: 0")) {
		return fmt.Errorf("valkey-cli --pipe: %w\n%s", err, out)
	}
	return nil
}

// gone waits until none of a hundred of the keys, the first and the last among them, is left.
func (w *world) gone(ctx context.Context, keys []string, p *stack.Program) error {
	valkey, err := dialValkey(ctx, w.valkey.Addr())
	if err != nil {
		return err
	}
	defer func() { _ = valkey.conn.Close() }()
	question := []string{"EXISTS", keys[len(keys)-1]}
	for i := 0; i < len(keys); i += max(1, len(keys)/99) {
		question = append(question, keys[i])
	}
	return eventually(ctx, "the last key is gone", p, func() error {
		left, err := valkey.ask(question...)
		if err == nil && left != "0" {
			err = fmt.Errorf("%s of the keys are left", left)
		}
		return err
	})
}

// measureDeletes measures a hundred thousand deletes while four clients hold a copy of each key: until all four have been told of all.
func measureDeletes(ctx context.Context, b *bench) (rows []row, err error) {
	n := 100_000
	if b.short {
		n = 5_000
	}
	const trackers = 4
	err = b.within(ctx, func(w *world) error {
		eraser, err := cache.OpenEraser(cache.Options{Host: w.valkey.Host(), Port: w.valkey.Port(), Prefix: "bloodofjesus"})
		if err != nil {
			return err
		}
		w.onClose(func() error { eraser.Close(); return nil })
		keysOf := func(prefix string) []string {
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf("%s%08d", prefix, i)
			}
			return keys
		}
		keys := keysOf(detailKeys)
		// deleteAll says when it has begun.
		round := func(keys []string, deleteAll func(context.Context) (time.Time, error)) func(context.Context) ([]float64, error) {
			return func(ctx context.Context) ([]float64, error) {
				if err := w.setAll(ctx, keys); err != nil {
					return nil, err
				}
				told := make(chan error, trackers)
				for range trackers {
					if err := w.track(ctx, keys, told); err != nil {
						return nil, err
					}
				}
				began, err := deleteAll(ctx)
				for range trackers {
					err = errors.Join(err, <-told)
				}
				return []float64{time.Since(began).Seconds() * 1000}, err
			}
		}
		got, err := alternate(ctx, b.rounds,
			variant{"valkey-cli --pipe", round(keys, func(ctx context.Context) (time.Time, error) {
				return time.Now(), w.pipe(ctx, keys, "UNLINK")
			})},
			variant{"Walkey", round(keys, func(ctx context.Context) (time.Time, error) {
				began := time.Now()
				existed, err := eraser.Delete(ctx, keys)
				if err == nil && existed != n {
					err = fmt.Errorf("%d keys existed", existed)
				}
				return began, err
			})},
			variant{"django-redis", round(keysOf("rival:1:material:"), func(ctx context.Context) (time.Time, error) {
				began, err := w.askDjango(ctx, "delete", strconv.Itoa(n))
				if err != nil {
					return time.Time{}, err
				}
				return time.UnixMicro(int64(began[0] * 1e6)), nil
			})})
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%s deletes that 4 tracking clients hold (floor: valkey-cli --pipe; instead: django-redis' delete_many)", thousands(float64(n)))
		rows = []row{against(what, "ms", got[1][0], got[0][0], ratioAtMost(1.3)).beside(got[2][0], 1)}
		return nil
	})
	return rows, err
}

// track reads every key over a tracking connection, and then tells when it was told of all of them.
func (w *world) track(ctx context.Context, keys []string, told chan<- error) error {
	valkey, err := dialValkey(ctx, w.valkey.Addr())
	if err != nil {
		return err
	}
	if err := valkey.track(); err != nil {
		return err
	}
	const lap = 1000
	for batch := range slices.Chunk(keys, lap) {
		var b bytes.Buffer
		for _, key := range batch {
			fmt.Fprintf(&b, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
		}
		if _, err := valkey.conn.Write(b.Bytes()); err != nil {
			return err
		}
		for range batch {
			if _, _, err := valkey.read(); err != nil {
				return err
			}
		}
	}
	push := fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(keys[0]), keys[0])
	go func() {
		// Nothing else comes any more, so the bytes can be counted without reading them.
		_ = valkey.conn.SetReadDeadline(time.Now().Add(patience)) // else the read fails
		_, err := io.CopyN(io.Discard, bufio.NewReaderSize(valkey.in, 256<<10), int64(len(push)*len(keys)))
		told <- errors.Join(err, valkey.conn.Close())
	}()
	return nil
}
