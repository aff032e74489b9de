package api

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// Bounds of a password, in bytes. The upper one keeps a login from being made expensive by its length.
const (
	minPassword = 8
	maxPassword = 1024
)

// What argon2id costs here: 19 MiB and two passes, OWASP's least for one lane.
const (
	argonMemory  = 19 * 1024 // KiB
	argonPasses  = 2
	argonLanes   = 1
	argonSalt    = 16
	argonKey     = 32
	maxArgonCost = 1 << 18 // KiB that a stored hash may ask for
	maxRounds    = 20_000_000
)

// hashing bounds how many hashes are worked out at the same time: each takes a core and argonMemory.
var hashing = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// hashPatience is how long a login waits for its turn.
const hashPatience = 5 * time.Second

var errHashingBusy = errors.New("too many passwords are being hashed")

// withHashing runs work when its turn comes.
func withHashing(ctx context.Context, work func()) error {
	patience := time.NewTimer(hashPatience)
	defer patience.Stop()
	select {
	case hashing <- struct{}{}:
	case <-patience.C:
		return errHashingBusy
	case <-ctx.Done():
		return fmt.Errorf("waiting to hash a password: %w", ctx.Err())
	}
	defer func() { <-hashing }()
	work()
	return nil
}

// hashPassword gives the PHC form of a password's argon2id hash.
func hashPassword(ctx context.Context, password string) (encoded string, err error) {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	err = withHashing(ctx, func() {
		key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonLanes, argonKey)
		encoded = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonLanes,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
	})
	return encoded, err
}

// verifier works a password's key out as a stored hash says.
type verifier struct {
	derive  func(password string) []byte
	key     []byte
	current bool // the hash is as hashPassword makes it now
}

var errUnknownHash = errors.New("a stored password hash of no known form")

// parseHash reads a stored hash: argon2id in PHC form, or Django's pbkdf2_sha256$rounds$salt$key. What costs too much to
// work out is not taken.
func parseHash(encoded string) (verifier, error) {
	switch {
	case strings.HasPrefix(encoded, "$argon2id$"):
		return parseArgon(encoded)
	case strings.HasPrefix(encoded, "pbkdf2_sha256$"):
		return parseDjango(encoded)
	}
	return verifier{}, errUnknownHash
}

func parseArgon(encoded string) (verifier, error) {
	parts := strings.Split(encoded, "$") // "", argon2id, v=, m=,t=,p=, salt, key
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return verifier{}, errUnknownHash
	}
	var memory, passes uint32
	var lanes uint8
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return verifier{}, errUnknownHash
	}
	for i, cost := range []struct {
		name string
		bits int
		set  func(uint64)
	}{
		{"m=", 32, func(n uint64) { memory = uint32(n) }},
		{"t=", 32, func(n uint64) { passes = uint32(n) }},
		{"p=", 8, func(n uint64) { lanes = uint8(n) }},
	} {
		digits, ok := strings.CutPrefix(costs[i], cost.name)
		n, err := strconv.ParseUint(digits, 10, cost.bits)
		if !ok || err != nil || n == 0 {
			return verifier{}, errUnknownHash
		}
		cost.set(n)
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[4])
	key, keyErr := base64.RawStdEncoding.DecodeString(parts[5])
	if saltErr != nil || keyErr != nil || len(key) < 16 || len(key) > 128 || memory > maxArgonCost || passes > 64 {
		return verifier{}, errUnknownHash
	}
	return verifier{
		derive: func(password string) []byte {
			return argon2.IDKey([]byte(password), salt, passes, memory, lanes, uint32(len(key)))
		},
		key:     key,
		current: memory == argonMemory && passes == argonPasses && lanes == argonLanes && len(key) == argonKey && len(salt) == argonSalt,
	}, nil
}

func parseDjango(encoded string) (verifier, error) {
	parts := strings.Split(encoded, "$")
	if len(parts) != 4 || parts[2] == "" {
		return verifier{}, errUnknownHash
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil || rounds < 1 || rounds > maxRounds {
		return verifier{}, errUnknownHash
	}
	key, err := base64.StdEncoding.DecodeString(parts[3])
	if err != nil || len(key) != sha256.Size {
		return verifier{}, errUnknownHash
	}
	return verifier{key: key, derive: func(password string) []byte {
		// Django uses the salt's characters as they are. Only a length beyond SHA-256's reach is an error.
		derived, _ := pbkdf2.Key(sha256.New, password, []byte(parts[2]), rounds, sha256.Size)
		return derived
	}}, nil
}

// nobody's hash is what a login by an unknown name is compared with, so that it takes as long as any other.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// verifyPassword tells whether a password belongs to a stored hash, and whether that should be made anew. A hash that
// can't be read, such as Django's for an account without a password, belongs to none; it costs what any other does.
func verifyPassword(ctx context.Context, password, encoded string) (ok, outdated bool, err error) {
	v, parseErr := parseHash(encoded)
	if parseErr != nil {
		if v, err = parseHash(nobody); err != nil {
			return false, false, err
		}
	}
	err = withHashing(ctx, func() {
		ok = subtle.ConstantTimeCompare(v.derive(password), v.key) == 1 && parseErr == nil
	})
	return ok && err == nil, !v.current, err
}

// stampOf tells two stored hashes apart without telling anything about the passwords: salted, slow hashes are hashed. A
// session holds the stamp of its login, so a new password ends it.
func stampOf(encoded string) string {
	sum := sha256.Sum256([]byte(encoded))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
