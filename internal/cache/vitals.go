package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Vitals are what one primary says of its health.
type Vitals struct {
	Node                  string        // host and port
	Product, Version      string        // "valkey" or "redis"
	RoundTrip             time.Duration // of a PING
	UsedMemory, MaxMemory int64         // bytes; MaxMemory 0 is no limit
	Policy                string        // maxmemory-policy
	Keys                  int64         // of all its databases
	Clients               int64         // connections
	Tracked               int64         // keys in the table of client-side caching
	Evicted               int64         // keys, since the server began
	Hits, Misses          int64         // reads of all programs, since the server began
}

// Vitals asks every primary for its health, which costs each of them a PING and an INFO.
func (e *Eraser) Vitals(ctx context.Context) ([]Vitals, error) {
	nodes := e.topology.present.Load().nodes
	if len(nodes) == 0 {
		return nil, fmt.Errorf("ask Valkey for its health: %w", errNoPrimary)
	}
	var all []Vitals
	for _, n := range nodes {
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

// Survey finds out which primaries there are now. It is for an Eraser that only looks: one that deletes finds out by Identify.
func (e *Eraser) Survey(ctx context.Context) error {
	if err := e.topology.refresh(ctx); err != nil {
		return fmt.Errorf("find the primaries of Valkey: %w", err)
	}
	return nil
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
	v.Product, v.Version = "valkey", info["valkey_version"]
	if v.Version == "" {
		v.Product, v.Version = "redis", info["redis_version"]
	}
	v.Policy, v.Keys = info["maxmemory_policy"], keysIn(info)
	v.UsedMemory, v.MaxMemory = number("used_memory"), number("maxmemory")
	v.Clients, v.Tracked = number("connected_clients"), number("tracking_total_keys")
	v.Evicted, v.Hits, v.Misses = number("evicted_keys"), number("keyspace_hits"), number("keyspace_misses")
	return v, info["role"] == "master", nil
}

// keysIn sums up the keys of all databases: "db0" is "keys=3,expires=1,avg_ttl=100".
func keysIn(info map[string]string) (n int64) {
	for name, value := range info {
		count, ok := strings.CutPrefix(value, "keys=")
		if !ok || !strings.HasPrefix(name, "db") {
			continue
		}
		count, _, _ = strings.Cut(count, ",")
		keys, _ := strconv.ParseInt(count, 10, 64) // 0 where it is something else
		n += keys
	}
	return n
}
