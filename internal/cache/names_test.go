package cache

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestKey(t *testing.T) {
	t.Parallel()
	rows := []struct {
		want  string
		name  string
		parts []any
	}{
		{"user_profile:lang:ru:user_id:123", "user_profile", []any{map[string]any{"user_id": 123, "lang": "ru"}}},
		{"material:7", "material", []any{7}},
		{"material:7", "material", []any{int64(7)}},
		{"material:7", "material", []any{uint8(7)}},
		{"x:1:a:true:k:v:z:2.5", "x", []any{map[string]any{"z": 2.5, "k": "v"}, 1, "a", true}},
		{"x:a:2", "x", []any{map[string]any{"a": 1}, map[string]any{"a": 2}}},
		{"x", "x", nil},
		{"x:", "x", []any{""}},
	}
	for _, row := range rows {
		if got := Key(row.name, row.parts...); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

func TestTTLsVary(t *testing.T) {
	t.Parallel()
	byDefault := 300 * time.Second
	rows := []struct {
		name        string
		ttl         TTL
		least, most time.Duration
	}{
		{"Default", Default, 270 * time.Second, 330 * time.Second},
		{"Lists", Lists, 54 * time.Minute, 66 * time.Minute},
		{"Static", Static, 21*time.Hour + 36*time.Minute, 26*time.Hour + 24*time.Minute},
		{"User", User, 13*time.Minute + 30*time.Second, 16*time.Minute + 30*time.Second},
		{"Temporary", Temporary, time.Minute, 5 * time.Minute},
		{"For", For(10 * time.Second), 9 * time.Second, 11 * time.Second},
		{"For nothing", For(0), time.Millisecond, time.Millisecond},
		{"For less than nothing", For(-time.Hour), time.Millisecond, time.Millisecond},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			least, most := time.Duration(1<<62), time.Duration(0)
			for range 2000 {
				d := time.Duration(row.ttl.milliseconds(byDefault)) * time.Millisecond
				least, most = min(least, d), max(most, d)
			}
			if least < row.least || most > row.most {
				t.Errorf("%s to %s, want %s to %s", least, most, row.least, row.most)
			}
			if width := row.most - row.least; width > 0 && most-least < width/2 {
				t.Errorf("only %s to %s", least, most)
			}
		})
	}
}

func TestOutcomesAreCacheStatus(t *testing.T) {
	t.Parallel()
	var got []string
	for o := range outcomes {
		got = append(got, o.String())
	}
	want := []string{
		"walkey; hit; detail=local", "walkey; hit; detail=valkey", "walkey; fwd=miss; stored", "walkey; fwd=miss; collapsed",
		"walkey; fwd=miss; detail=fill-refused", "walkey; fwd=bypass; detail=valkey-down", "walkey; fwd=bypass; detail=stale-guard",
		"walkey; fwd=bypass; detail=consistency-token",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAllMistakesInOptionsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	o := Options{Port: 70000, Prefix: "a b", DefaultTTL: -1, Compression: "brotli", MaxStaleness: time.Millisecond, LocalBytes: 1}
	_, err := Open(o)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"host", "70000", `"a b"`, "TTL", "brotli", "1ms", "local copies"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("nothing about %s in: %v", part, err)
		}
	}
	if _, err := OpenEraser(o); err == nil {
		t.Error("no error for the eraser")
	}
}
