package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A Server is what Valkey says of itself, and what it lets its user do.
type Server struct {
	Address  string // host:port
	Expected string // what the options say that it is part of: "server", "sentinel", "cluster"
	Product  string // "valkey" or "redis"
	Version  string
	Role     string // "master" or "slave"
	Cluster  bool

	MaxMemory, UsedMemory int64  // bytes; MaxMemory 0 is no limit
	Policy                string // maxmemory-policy

	Clients, MaxClients int64 // connections
	Evicted             int64 // keys, since the server began
	Hits, Misses        int64 // reads of all programs, since the server began

	Tracked      int64 // keys in the table of client-side caching
	TrackedLimit int64 // tracking-table-max-keys; 0 is no limit, -1 not known

	Skew    time.Duration // Valkey's clock before ours
	SkewErr time.Duration // how wrong Skew may be

	User   string   // the ACL user; empty when it is not known
	Denied []string // commands of the eraser, and keys, that the user may not use: "UNLINK", "key other:*"
	// DeniedWithdraw are commands, and keys to be read, that the user may not use and that only Withdraw needs.
	DeniedWithdraw []string
	// DeniedReader are commands that the user may not use and only a Cache needs, which may come as another user.
	DeniedReader []string
	// Looks is true of a user who is not meant for the programs: one who may not write Walkey's own state, and may look into keys.
	Looks bool
}

// Examine asks every primary about itself and tries every command that Walkey needs, on keys of Walkey's own that last for
// a moment. Of keys it only looks at the given full keys and patterns, as far as a name that no program uses can tell.
func (e *Eraser) Examine(ctx context.Context, keys, patterns []string) ([]Server, error) {
	if err := e.topology.refresh(ctx); err != nil {
		return nil, fmt.Errorf("ask who serves what: %w", err)
	}
	nodes := e.topology.present.Load().nodes
	servers := make([]Server, len(nodes))
	index := make(map[*node]int, len(nodes))
	for i, n := range nodes {
		index[n] = i
	}
	err := e.everywhere(nodes, func(n *node) (err error) {
		servers[index[n]], err = e.examine(ctx, n, keys, patterns)
		return err
	})
	return servers, err
}

// examine is Examine for one primary.
func (e *Eraser) examine(ctx context.Context, n *node, keys, patterns []string) (Server, error) {
	s := Server{Address: n.address, Expected: [...]string{oneServer: "server", bySentinel: "sentinel", inCluster: "cluster"}[e.topology.kind]}
	client := n.writer
	began := time.Now()
	clock, err := client.Do(ctx, client.B().Time().Build()).AsStrSlice()
	took := time.Since(began)
	switch {
	case denied(err):
		s.Denied = append(s.Denied, "TIME")
	case err != nil:
		return s, fmt.Errorf("ask Valkey for its time: %w", err)
	default:
		now, err := serverTime(clock)
		if err != nil {
			return s, err
		}
		s.Skew, s.SkewErr = now.Sub(began.Add(took/2)), took/2
	}
	text, err := client.Do(ctx, client.B().Arbitrary("INFO").Build()).ToString()
	switch {
	case denied(err):
		s.Denied = append(s.Denied, "INFO")
	case err != nil:
		return s, fmt.Errorf("ask Valkey about itself: %w", err)
	default:
		s.read(infoFields(text))
	}
	s.TrackedLimit = -1
	// CONFIG and ACL are not needed for anything else, so a user without them is fine.
	if config, err := client.Do(ctx, client.B().ConfigGet().Parameter("tracking-table-max-keys").Build()).AsStrMap(); err == nil {
		s.TrackedLimit, _ = strconv.ParseInt(config["tracking-table-max-keys"], 10, 64) // 0 for what is no number
	}
	if user, err := client.Do(ctx, client.B().AclWhoami().Build()).ToString(); err == nil {
		s.User = user
	}
	refused, err := e.tryCommands(ctx, client)
	if err != nil {
		return s, err
	}
	s.Denied = append(s.Denied, refused...)
	if s.DeniedReader, err = e.tryReadersCommands(ctx, client); err != nil {
		return s, err
	}
	if slices.Contains(s.Denied, "SET") {
		if s.Looks, err = e.looks(ctx, client); err != nil {
			return s, err
		}
	}
	refused, err = e.tryKeys(ctx, client, keys, patterns)
	s.Denied = append(s.Denied, refused...)
	if err == nil && len(s.Denied) == 0 {
		s.DeniedWithdraw, err = e.tryWithdrawing(ctx, client, slices.Concat(keys, patterns))
	}
	return s, err
}

// read takes what INFO says.
func (s *Server) read(info map[string]string) {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 where the server does not say
		return n
	}
	s.Product, s.Version = "valkey", info["valkey_version"]
	if s.Version == "" {
		s.Product, s.Version = "redis", info["redis_version"]
	}
	s.Role, s.Cluster = info["role"], info["cluster_enabled"] == "1"
	s.MaxMemory, s.UsedMemory, s.Policy = number("maxmemory"), number("used_memory"), info["maxmemory_policy"]
	s.Tracked = number("tracking_total_keys")
	s.Clients, s.MaxClients, s.Evicted = number("connected_clients"), number("maxclients"), number("evicted_keys")
	s.Hits, s.Misses = number("keyspace_hits"), number("keyspace_misses")
}

// serverTime reads the answer to TIME: seconds and microseconds.
func serverTime(answer []string) (time.Time, error) {
	if len(answer) != 2 {
		return time.Time{}, fmt.Errorf("time of Valkey has %d parts", len(answer))
	}
	seconds, err1 := strconv.ParseInt(answer[0], 10, 64)
	micros, err2 := strconv.ParseInt(answer[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return time.Time{}, fmt.Errorf("read Valkey's time: %w", err)
	}
	return time.Unix(seconds, micros*int64(time.Microsecond)), nil
}

const moment = "10000" // ms

// tryCommands uses each command of the eraser once and gives those that were denied.
func (e *Eraser) tryCommands(ctx context.Context, client rueidis.Client) ([]string, error) {
	own := FullKey(e.prefix, "walkey:doctor:"+rand.Text())
	commands := [][]string{
		{"SET", own, "1", "PX", moment},
		{"GET", own},
		{"UNLINK", own},
		{"HGETALL", own},
		{"SCAN", "0", "MATCH", own, "COUNT", "1"},
		{"EVAL", "return 1", "0"},
		{"EVALSHA", strings.Repeat("0", 40), "0"}, // unknown, which is an answer too
	}
	switch e.topology.kind {
	case inCluster:
		commands = append(commands, []string{"CLUSTER", "NODES"}, []string{"CLUSTER", "SLOTS"}, []string{"ASKING"}, []string{"ROLE"})
	case bySentinel:
		commands = append(commands, []string{"ROLE"})
	}
	return try(ctx, client, commands, commandName)
}

// commandName is a command as it is granted.
func commandName(command []string) string {
	if command[0] == "CLIENT" || command[0] == "CLUSTER" {
		return command[0] + " " + command[1]
	}
	return command[0]
}

// tryReadersCommands does the same for what only a Cache uses.
func (e *Eraser) tryReadersCommands(ctx context.Context, client rueidis.Client) ([]string, error) {
	hash := FullKey(e.prefix, "walkey:doctor:"+rand.Text()+":hash")
	return try(ctx, client, [][]string{
		{"HSET", hash, "field", "1"},
		{"PEXPIRE", hash, moment},
		{"PTTL", hash},
		{"HGET", hash, "field"},
		{"HGETALL", hash},
		{"HLEN", hash},
		{"HDEL", hash, "field"},
		{"CLIENT", "TRACKING", "OFF"},
		{"CLIENT", "CACHING", "YES"}, // an error without tracking, which is an answer too
	}, commandName)
}

// tryWithdrawing does the same for what only Withdraw uses.
func (e *Eraser) tryWithdrawing(ctx context.Context, client rueidis.Client, keys []string) ([]string, error) {
	own := FullKey(e.prefix, "walkey:doctor:"+rand.Text())
	refused, err := try(ctx, client, [][]string{
		{"SET", own, "1", "PX", moment},
		{"TYPE", own},
		{"GETRANGE", own, "0", "0"},
		// Of another type than the key, which is an answer too, and nothing is left that does not end by itself.
		{"HLEN", own},
		{"HKEYS", own},
		{"HGET", own, "field"},
		{"HSET", own, "field", "1"},
		{"UNLINK", own},
	}, commandName)
	if err != nil || slices.Contains(refused, "GETRANGE") {
		return refused, err
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, FullKey(e.prefix, "")) {
			continue // another program's
		}
		denials, err := try(ctx, client, [][]string{{"GETRANGE", probe(key), "0", "0"}}, func([]string) string { return "key " + key })
		refused = append(refused, denials...)
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// probe is a full key that a full key or pattern of the rules stands for, and that no program uses if it is a pattern.
func probe(key string) string {
	return strings.NewReplacer(`\`, "", "*", "walkey-doctor").Replace(key)
}

// looks says whether the user may do all that looking into keys takes.
func (e *Eraser) looks(ctx context.Context, client rueidis.Client) (bool, error) {
	own := FullKey(e.prefix, "walkey:doctor:"+rand.Text())
	refused, err := try(ctx, client, [][]string{
		{"SCAN", "0", "MATCH", own, "COUNT", "1"},
		{"TYPE", own},
		{"PTTL", own},
		{"MEMORY", "USAGE", own},
		{"EVAL_RO", "return 1", "0"},
	}, commandName)
	return len(refused) == 0, err
}

// tryKeys looks whether the user may write, and so delete, the keys that the rules delete. NX and XX exclude each other:
// once Valkey has allowed the command on the key, it refuses it as nonsense and has touched nothing.
func (e *Eraser) tryKeys(ctx context.Context, client rueidis.Client, keys, patterns []string) ([]string, error) {
	var refused []string
	for _, key := range slices.Concat(keys, patterns) {
		denials, err := try(ctx, client, [][]string{{"SET", probe(key), "", "NX", "XX"}}, func([]string) string { return "key " + key })
		refused = append(refused, denials...)
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// try runs commands and gives the names of those that the ACL denies. What a command answers else does not matter.
func try(ctx context.Context, client rueidis.Client, commands [][]string, name func([]string) string) ([]string, error) {
	var refused []string
	for _, command := range commands {
		err := client.Do(ctx, client.B().Arbitrary(command...).Build()).Error()
		if _, answered := rueidis.IsRedisErr(err); err != nil && !answered && !rueidis.IsRedisNil(err) {
			return refused, fmt.Errorf("try %s on Valkey: %w", name(command), err)
		}
		if denied(err) {
			refused = append(refused, name(command))
		}
	}
	return refused, nil
}

// denied tells whether the ACL has refused a command.
func denied(err error) bool {
	refusal, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(refusal.Error(), "NOPERM")
}
