package program

import "testing"

func TestBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"134217728": 128 << 20, "128MiB": 128 << 20, "1 GiB": 1 << 30, "4KiB": 4 << 10, "0": 0,
		"": -1, "MiB": -1, "-1": -1, "1MB": -1, "1.5GiB": -1, "9999999999GiB": -1,
	} {
		got := Bytes(-1)
		err := got.UnmarshalText([]byte(text))
		if got != want || (err == nil) != (want >= 0) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
