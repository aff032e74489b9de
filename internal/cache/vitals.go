package cache

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Vitals are what one primary says of its health.
type Vitals struct {
	Node                  string        // host and port
	RoundTrip             time.Duration // of a PING
	UsedMemory, MaxMemory int64         // bytes; MaxMemory 0 is no limit
	Clients               int64         // connections
	Tracked               int64         // keys in the table of client-side caching
	Evicted               int64         // keys, since the server began
	Hits, Misses          int64         // reads of all programs, since the server began
}

// Vitals asks every primary for its health, which costs each of them a PING and an INFO.
func (e *Eraser) Vitals(ctx context.Context) ([]Vitals, error) {
	var all []Vitals
	for _, n := range e.topology.present.Load().nodes {
		v, primary, err := vitals(ctx, n.writer)
		if err != nil {
			return nil, fmt.Errorf("ask Valkey at %s for its health: %w", n.address, err)
		}
		if v.Node = n.address; primary {
			all = append(all, v)
		}
	}
	return all, nil
}

func vitals(ctx context.Context, client rueidis.Client) (v Vitals, primary bool, err error) {
	began := time.Now()
	if err := client.Do(ctx, client.B().Ping().Build()).Error(); err != nil {
		return v, false, err
	}
	v.RoundTrip = time.Since(began)
	text, err := client.Do(ctx, client.B().Arbitrary("INFO").Build()).ToString()
	if err != nil {
		return v, false, err
	}
	info := infoFields(text)
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 where the server does not say
		return n
	}
	v.UsedMemory, v.MaxMemory = number("used_memory"), number("maxmemory")
	v.Clients, v.Tracked = number("connected_clients"), number("tracking_total_keys")
	v.Evicted, v.Hits, v.Misses = number("evicted_keys"), number("keyspace_hits"), number("keyspace_misses")
	return v, info["role"] == "master", nil
}
