package cache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	sessionKeys   = "session:" // users' sessions, in Valkey alone
	ownKeys       = "walkey:"  // Walkey's own state
	pageKeys      = "page:"    // what Page keeps
	heartbeatName = ownKeys + "heartbeat"
	noteName      = ownKeys + "note"
	progressName  = ownKeys + "progress"
)

// FullKey is the key in Valkey: PREFIX:key.
func FullKey(prefix, key string) string {
	return prefix + ":" + key
}

// Key makes a key from a name and parts. Values follow the name in the order given; then come the entries of all
// map[string]any among the parts, sorted by name, as name:value. Parts are joined by colons and not escaped:
// Key("user_profile", map[string]any{"user_id": 123, "lang": "ru"}) is user_profile:lang:ru:user_id:123.
func Key(name string, parts ...any) string {
	var b strings.Builder
	b.WriteString(name)
	var named map[string]any
	for _, part := range parts {
		m, ok := part.(map[string]any)
		if !ok {
			writePart(&b, part)
			continue
		}
		if named == nil {
			named = make(map[string]any, len(m))
		}
		for k, v := range m {
			named[k] = v
		}
	}
	names := make([]string, 0, len(named))
	for k := range named {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		b.WriteByte(':')
		b.WriteString(k)
		writePart(&b, named[k])
	}
	return b.String()
}

func writePart(b *strings.Builder, part any) {
	b.WriteByte(':')
	switch v := part.(type) {
	case string:
		b.WriteString(v)
	case int:
		b.WriteString(strconv.Itoa(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	default:
		fmt.Fprint(b, v)
	}
}

// GlobEscape gives the pattern that matches s and nothing else.
func GlobEscape(s string) string {
	if !strings.ContainsAny(s, `*?[]^-\`) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch s[i] {
		case '*', '?', '[', ']', '^', '-', '\\':
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// spared says that no operation for many keys may delete this full key.
func spared(prefix, fullKey string) bool {
	key, ours := strings.CutPrefix(fullKey, prefix+":")
	return ours && (strings.HasPrefix(key, sessionKeys) || strings.HasPrefix(key, ownKeys))
}
