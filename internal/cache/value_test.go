package cache

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func contents() map[string]Content {
	random := make([]byte, 5000)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(random)
	return map[string]Content{
		"absent":         {Absent: true},
		"empty":          {Body: []byte{}},
		"short":          {Body: []byte(`{"id":1}`)},
		"just too short": {Body: bytes.Repeat([]byte("x"), compressFrom-1)},
		"long enough":    {Body: bytes.Repeat([]byte("x"), compressFrom)},
		"text":           {Body: []byte(strings.Repeat(`{"id":1,"title":"a title","file":""},`, 3000))},
		"random":         {Body: random},
		"large":          {Body: bytes.Repeat(random, 1000)},
	}
}

func TestValuesRoundTrip(t *testing.T) {
	t.Parallel()
	for _, coding := range codingNames {
		number, err := codingNumber(coding)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range contents() {
			t.Run(coding+"/"+name, func(t *testing.T) {
				t.Parallel()
				decoded := newDecodedBodies(1 << 20)
				loaded := loadedValue(content, newTokens(false).next(), decoded)
				stored, err := parseValue(loaded.storable(number), decoded)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range []Value{loaded, stored} {
					for range 2 { // the second time from memory
						body, err := v.Identity()
						if err != nil || !bytes.Equal(body, content.Body) {
							t.Errorf("%d bytes, %v; want %d", len(body), err, len(content.Body))
						}
					}
					if v.Length() != len(content.Body) || v.Absent() != content.Absent {
						t.Errorf("%d bytes, absent %v", v.Length(), v.Absent())
					}
					if len(v.Tag()) != 32 || v.Tag() != loaded.Tag() {
						t.Errorf("the tag is %q", v.Tag())
					}
				}
				compressed := coding != CodingNone && slices.Contains([]string{"long enough", "text", "large"}, name)
				if name == "large" && (coding == CodingZlib || coding == CodingGzip || coding == CodingZstd) {
					compressed = len(stored.Encoded()) < len(content.Body) // as the window allows
				}
				want, wantContent := "", ""
				if compressed {
					want, wantContent = coding, map[string]string{CodingZlib: "deflate", CodingZstd: "zstd", CodingGzip: "gzip"}[coding]
				}
				if stored.Coding() != want || stored.ContentCoding() != wantContent {
					t.Errorf("the coding is %q, %q, want %q", stored.Coding(), stored.ContentCoding(), want)
				}
				if loaded.Coding() != "" {
					t.Errorf("the loaded coding is %q", loaded.Coding())
				}
			})
		}
	}
}

func TestDifferentContentHasDifferentTags(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, content := range contents() {
		if name == "absent" {
			continue // told apart by Absent
		}
		tag := loadedValue(content, fillID{}, nil).Tag()
		if other, ok := seen[tag]; ok {
			t.Errorf("%s and %s have the same tag", name, other)
		}
		seen[tag] = name
	}
}

func TestDamagedBodiesAreErrors(t *testing.T) {
	t.Parallel()
	body := []byte(strings.Repeat("some text that can be compressed ", 200))
	for _, coding := range []byte{zlibbed, zstdded, gzipped} {
		got, encoded := encode(coding, body)
		if got != coding {
			t.Fatal("not compressed")
		}
		damage := map[string]func() ([]byte, int){
			"cut":         func() ([]byte, int) { return encoded[:len(encoded)/2], len(body) },
			"a checksum":  func() ([]byte, int) { return encoded[:len(encoded)-3], len(body) },
			"shorter":     func() ([]byte, int) { return encoded, len(body) + 1 },
			"longer":      func() ([]byte, int) { return encoded, len(body) - 1 },
			"much longer": func() ([]byte, int) { return encoded, 1 },
			"a bomb":      func() ([]byte, int) { return encoded, maxBody },
			"other bytes": func() ([]byte, int) { return body, len(body) },
			"a bit": func() ([]byte, int) {
				other := bytes.Clone(encoded)
				other[len(other)-2] ^= 1
				return other, len(body)
			},
		}
		for name, f := range damage {
			bytes, length := f()
			if _, err := decode(coding, bytes, length); err == nil {
				t.Errorf("%s: %s is no error", codingNames[coding], name)
			}
		}
	}
}

func TestMalformedHeads(t *testing.T) {
	t.Parallel()
	good := loadedValue(Content{Body: []byte("body")}, fillID{}, nil).storable(plain)
	if _, err := parseValue(good, nil); err != nil {
		t.Fatal(err)
	}
	rows := map[string]func(b []byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"cut":                func(b []byte) []byte { return b[:headSize-1] },
		"another kind":       func(b []byte) []byte { b[0] = 'W'; return b },
		"another version":    func(b []byte) []byte { b[atVersion] = 3; return b },
		"an unknown coding":  func(b []byte) []byte { b[atCoding] = codings; return b },
		"an unknown flag":    func(b []byte) []byte { b[atAbsent] = 2; return b },
		"absent with a body": func(b []byte) []byte { b[atAbsent] = 1; return b },
		"another length":     func(b []byte) []byte { b[atLength+3]++; return b },
		"a huge length":      func(b []byte) []byte { b[atCoding] = zlibbed; b[atLength] = 0xff; return b },
		"a coded nothing":    func(b []byte) []byte { b[atCoding] = zlibbed; return b[:headSize] },
		"an odd tag":         func(b []byte) []byte { b[atTag] = '"'; return b },
		"a body cut":         func(b []byte) []byte { return b[:len(b)-1] },
		"no meta":            func(b []byte) []byte { b[atVersion] = metaVersion; return b[:headSize+2] },
		"a meta of nothing":  func(b []byte) []byte { b[atVersion] = metaVersion; clear(b[headSize:]); return b },
		"a meta too long":    func(b []byte) []byte { b[atVersion] = metaVersion; copy(b[headSize:], "\x00\x00\x00\x05"); return b },
		"a huge meta":        func(b []byte) []byte { b[atVersion] = metaVersion; copy(b[headSize:], "\xff\xff\xff\xff"); return b },
	}
	for name, change := range rows {
		if _, err := parseValue(change(bytes.Clone(good)), nil); err == nil {
			t.Errorf("%s is a value", name)
		}
	}
}

// Bytes from Valkey may be anything.
func FuzzValue(f *testing.F) {
	for _, content := range []Content{{Absent: true}, {Body: []byte("short"), Meta: []byte("beside")}, {Body: []byte("short")}, {Body: []byte(strings.Repeat("long ", 1000))}} {
		for coding := range codings {
			f.Add(loadedValue(content, fillID{}, nil).storable(coding))
		}
	}
	f.Add([]byte("L0123456789abcdef0123456789abcdef"))
	f.Add([]byte("L1700000000000:0123456789abcdef0123456789abcdef"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		isLease(string(stored), Address{})
		isLease(string(stored), Address{isField: true})
		parseBeat(string(stored))
		v, err := parseValue(stored, newDecodedBodies(1<<20))
		if err != nil {
			return
		}
		if len(v.Tag()) != 32 || v.Length() > maxBody || v.Length() != int(binary.BigEndian.Uint32(stored[atLength:])) {
			t.Errorf("tag %q, %d bytes", v.Tag(), v.Length())
		}
		if v.Absent() && v.Length() != 0 {
			t.Error("absent, with a body")
		}
		if v.Length() > 1<<20 {
			return // not worth its time here
		}
		if body, err := v.Identity(); err == nil && len(body) != v.Length() {
			t.Errorf("%d bytes instead of %d", len(body), v.Length())
		}
		v.Coding()
		v.ContentCoding()
	})
}

func TestDecodedBodiesAreBounded(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	d := newDecodedBodies(limit)
	ids := newTokens(false)
	value := func() Value {
		stored := loadedValue(Content{Body: []byte(strings.Repeat("text ", 1000))}, ids.next(), d).storable(zlibbed)
		v, err := parseValue(stored, d)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	hot := value()
	body, err := hot.Identity()
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, err := value().Identity(); err != nil {
			t.Fatal(err)
		}
		again, err := hot.Identity()
		if err != nil || &again[0] != &body[0] {
			t.Fatal("what is asked for all the time was displaced")
		}
		if d.bytes > limit || len(d.byID) != len(d.order) {
			t.Fatalf("%d bytes in %d bodies, %d in order", d.bytes, len(d.byID), len(d.order))
		}
	}
	if len(d.byID) < 10 {
		t.Errorf("only %d bodies are kept", len(d.byID))
	}
}
