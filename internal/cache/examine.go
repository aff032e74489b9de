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
	Product string // "valkey" or "redis"
	Version string
	Role    string // "master" or "slave"
	Cluster bool

	MaxMemory, UsedMemory int64  // bytes; MaxMemory 0 is no limit
	Policy                string // maxmemory-policy

	Tracked      int64 // keys in the table of client-side caching
	TrackedLimit int64 // tracking-table-max-keys; 0 is no limit, -1 not known

	Skew    time.Duration // Valkey's clock before ours
	SkewErr time.Duration // how wrong Skew may be

	User   string   // the ACL user; empty when it is not known
	Denied []string // commands of Walkey, and keys, that the user may not use: "UNLINK", "key other:*"
}

// Examine asks the server about itself and tries every command that Walkey needs, on keys of Walkey's own that last for
// a moment. Of keys it only looks at the given full keys and patterns, as far as a name that no program uses can tell.
func (e *Eraser) Examine(ctx context.Context, keys, patterns []string) (Server, error) {
	var s Server
	began := time.Now()
	clock, err := e.client.Do(ctx, e.client.B().Time().Build()).AsStrSlice()
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
	text, err := e.client.Do(ctx, e.client.B().Arbitrary("INFO").Build()).ToString()
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
	if config, err := e.client.Do(ctx, e.client.B().ConfigGet().Parameter("tracking-table-max-keys").Build()).AsStrMap(); err == nil {
		s.TrackedLimit, _ = strconv.ParseInt(config["tracking-table-max-keys"], 10, 64) // 0 for what is no number
	}
	if user, err := e.client.Do(ctx, e.client.B().AclWhoami().Build()).ToString(); err == nil {
		s.User = user
	}
	refused, err := e.tryCommands(ctx)
	if err != nil {
		return s, err
	}
	s.Denied = append(s.Denied, refused...)
	refused, err = e.tryKeys(ctx, keys, patterns)
	s.Denied = append(s.Denied, refused...)
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

// tryCommands uses each command once and gives those that were denied.
func (e *Eraser) tryCommands(ctx context.Context) ([]string, error) {
	own := FullKey(e.prefix, "walkey:doctor:"+rand.Text())
	hash := own + ":hash"
	const moment = "10000" // ms
	return e.try(ctx, [][]string{
		{"SET", own, "1", "PX", moment},
		{"GET", own},
		{"UNLINK", own},
		{"HSET", hash, "field", "1"},
		{"PEXPIRE", hash, moment},
		{"PTTL", hash},
		{"HGET", hash, "field"},
		{"HLEN", hash},
		{"HDEL", hash, "field"},
		{"SCAN", "0", "MATCH", own, "COUNT", "1"},
		{"EVAL", "return 1", "0"},
		{"EVALSHA", strings.Repeat("0", 40), "0"}, // unknown, which is an answer too
		{"CLIENT", "TRACKING", "OFF"},
		{"CLIENT", "CACHING", "YES"}, // an error without tracking, which is an answer too
	}, func(command []string) string {
		if command[0] == "CLIENT" {
			return command[0] + " " + command[1]
		}
		return command[0]
	})
}

// tryKeys looks whether the user may use the keys that the rules delete.
func (e *Eraser) tryKeys(ctx context.Context, keys, patterns []string) ([]string, error) {
	var commands [][]string
	for _, key := range slices.Concat(keys, patterns) {
		commands = append(commands, []string{"GET", strings.NewReplacer(`\`, "", "*", "walkey-doctor").Replace(key), key})
	}
	refused, err := e.try(ctx, commands, func(command []string) string { return "key " + command[2] })
	// A user without GET at all has been told of.
	return refused, err
}

// try runs commands and gives the names of those that the ACL denies. What a command answers else does not matter.
func (e *Eraser) try(ctx context.Context, commands [][]string, name func([]string) string) ([]string, error) {
	var refused []string
	for _, command := range commands {
		args := command
		if command[0] == "GET" {
			args = command[:2]
		}
		err := e.client.Do(ctx, e.client.B().Arbitrary(args...).Build()).Error()
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
