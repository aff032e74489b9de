package program

import (
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
)

// Cache is the group of options about what is kept in Valkey.
type Cache struct {
	CachePrefix      string        `env:"CACHE_PREFIX" default:"bloodofjesus" placeholder:"PREFIX" help:"First part of every key."`
	CacheTTL         time.Duration `name:"cache-ttl" env:"CACHE_TTL" default:"300s" placeholder:"DURATION" help:"Lifetime of a value where the program names none."`
	CacheCompression string        `env:"CACHE_COMPRESSION" default:"zlib" enum:"zlib,zstd,gzip,none" placeholder:"CODING" help:"Coding of stored values of 1 KiB and more: zlib, zstd, gzip or none."`
	MaxStaleness     time.Duration `env:"MAX_STALENESS" default:"5s" placeholder:"DURATION" help:"No answer from the cache is older than this; at least 1s."`
}

// minStaleness leaves room for a few heartbeats and the reads that follow them.
const minStaleness = time.Second

// Check reports values that the cache can't work with.
func (o *Cache) Check(p *Problems) {
	switch {
	case o.CachePrefix == "":
		p.Add("CACHE_PREFIX", "must not be empty")
	case strings.ContainsFunc(o.CachePrefix, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		p.Add("CACHE_PREFIX", "%q holds a space or a control character", o.CachePrefix)
	}
	if o.CacheTTL < time.Second {
		p.Add("CACHE_TTL", "must be at least 1s, not %s", o.CacheTTL)
	}
	if o.MaxStaleness < minStaleness {
		p.Add("MAX_STALENESS", "must be at least %s, not %s: the heartbeat needs that long to show that the cache is true", minStaleness, o.MaxStaleness)
	}
}

// Options puts the two groups together for package cache. The certificates are read again here; a file that changed since
// the check may fail now.
func (o *Cache) Options(v *Valkey, logger *zap.Logger) (cache.Options, error) {
	tlsConfig, err := v.tlsConfig()
	if err != nil {
		return cache.Options{}, fmt.Errorf("reading VALKEY_CA: %w", err)
	}
	return cache.Options{
		Addrs:          v.addrs(),
		SentinelMaster: v.ValkeySentinel,

		Host:         v.ValkeyHost,
		Port:         int(v.ValkeyPort),
		Username:     v.ValkeyUsername,
		Password:     v.ValkeyPassword,
		TLS:          tlsConfig,
		Prefix:       o.CachePrefix,
		DefaultTTL:   o.CacheTTL,
		Compression:  o.CacheCompression,
		MaxStaleness: o.MaxStaleness,
		Logger:       logger.Named("cache"),
	}, nil
}
