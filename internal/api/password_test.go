package api

import (
	"encoding/base64"
	"strings"
	"testing"
)

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestPasswords(t *testing.T) {
	t.Parallel()
	own, err := hashPassword(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	again, err := hashPassword(t.Context(), "correct horse")
	if err != nil || own == again || stampOf(own) == stampOf(again) {
		t.Errorf("%s and %s, %v", own, again, err)
	}
	for _, tt := range []struct {
		name, hash, password string
		ok, outdated         bool
	}{
		{"own", own, "correct horse", true, false},
		{"own, wrong", own, "correct horsf", false, false},
		{"own, empty", own, "", false, false},
		{"Django", django, testPassword, true, true},
		{"Django, wrong", django, "password", false, true},
		{"Django's unusable", "!ZRmZ4i6lGb2VDYJQ", "", false, false},
		{"nobody", nobody, "", false, false},
		{"empty", "", "", false, false},
		{"weaker argon2id", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ok, outdated, err := verifyPassword(t.Context(), tt.password, tt.hash)
			if ok != tt.ok || ok && outdated != tt.outdated || err != nil {
				t.Errorf("%v, outdated %v, %v", ok, outdated, err)
			}
		})
	}
}

func TestHashesThatAreNotTaken(t *testing.T) {
	t.Parallel()
	key := encode64(make([]byte, 32))
	for _, hash := range []string{
		"plain", "md5$x$y", "pbkdf2_sha256$0$salt$" + key, "pbkdf2_sha256$-1$salt$" + key, "pbkdf2_sha256$99999999999$salt$" + key,
		"pbkdf2_sha256$20000001$salt$" + key, "pbkdf2_sha256$1$$" + key, "pbkdf2_sha256$1$salt$", "pbkdf2_sha256$1$salt$AAAA", "pbkdf2_sha256$1$salt",
		"$argon2id$v=16$m=19456,t=2,p=1$AAAA$" + strings.TrimRight(key, "="),
		"$argon2id$v=19$m=4294967295,t=2,p=1$AAAA$" + strings.TrimRight(key, "="),
		"$argon2id$v=19$m=19456,t=0,p=1$AAAA$" + strings.TrimRight(key, "="),
		"$argon2id$v=19$m=19456,t=2,p=256$AAAA$" + strings.TrimRight(key, "="),
		"$argon2id$v=19$m=19456,t=2$AAAA$" + strings.TrimRight(key, "="),
		"$argon2id$v=19$m=19456,t=2,p=1$AAAA$", "$argon2id$",
	} {
		if _, err := parseHash(hash); err == nil {
			t.Errorf("%q was taken", hash)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	for _, seed := range []string{nobody, django, "", "$argon2id$v=19$m=1,t=1,p=1$$", "pbkdf2_sha256$1$s$"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, hash string) {
		if v, err := parseHash(hash); err == nil && (len(v.key) < 16 || v.derive == nil) {
			t.Errorf("%q was taken with a key of %d bytes", hash, len(v.key))
		}
	})
}
