package main

import (
	"strings"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
	"walkey/internal/program"
)

// stored is the group of options of commands that look into Valkey.
type stored struct {
	program.Valkey `embed:""`
	program.Cache  `embed:""`
	Rules          rules `embed:""`
}

// open connects to Valkey, of which the client tells nothing: what fails is an error of the command.
func (s *stored) open() (*cache.Eraser, error) {
	options, err := s.Cache.Options(&s.Valkey, zap.NewNop())
	if err != nil {
		return nil, err
	}
	return cache.OpenEraser(options)
}

// fullKey is the key that a person means: a full one, one that rules name as it is, or one without the prefix.
func fullKey(prefix string, rules *invalidate.Rules, key string) string {
	if strings.HasPrefix(key, cache.FullKey(prefix, "")) || len(rules.Origins(key)) > 0 {
		return key
	}
	return cache.FullKey(prefix, key)
}

// life says for people how long a key lasts.
func life(ttl time.Duration) string {
	if ttl < 0 {
		return "for ever"
	}
	return ttl.Round(time.Second).String()
}
