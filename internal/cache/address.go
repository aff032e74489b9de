package cache

import (
	"hash/maphash"
	"math/bits"
)

// An Address is one place in Valkey: a string key, or one field of a hash. Make it once for what is asked often.
type Address struct {
	key     string // full key
	field   string
	keyHash uint64 // of the key, for the local copies
	hash    uint64 // of the key and, of a field, the field
	slot    uint16 // of the key
	isField bool
}

// seed is another one in each process, so that nobody can choose keys whose hashes collide.
var seed = maphash.MakeSeed()

func keyAddress(full string) Address {
	h := maphash.String(seed, full)
	return Address{key: full, keyHash: h, hash: h, slot: slotOf(full)}
}

func fieldAddress(full, field string) Address {
	at := keyAddress(full)
	at.field, at.isField = field, true
	at.hash = bits.RotateLeft64(at.keyHash, 32) ^ maphash.String(seed, field)
	return at
}
