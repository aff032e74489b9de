package cache

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// An Entry is what is stored under a key, as it was seen without changing it.
type Entry struct {
	Key    string
	Type   string        // as Valkey names it: "string", "hash" …; "none" when there is nothing
	TTL    time.Duration // negative: it stays until it is deleted
	Memory int64         // bytes that it takes in Valkey; 0 when the server does not let its user ask
	Fields int64         // of a hash
	Parts  []Part        // of a string one, of a hash one a field, though not all of very many; else none
}

// Kinds of a Part.
const (
	KindValue  = "value"  // a body
	KindAbsent = "absent" // the fact that there is no such thing
	KindLease  = "lease"  // somebody loads what will be stored there, or a value has just been withdrawn
	KindOther  = "other"  // nothing that a Cache stores: another program's, a session, Walkey's own
	KindHidden = "hidden" // the user of Valkey may not read it
)

// A Part is one stored value, or what stands in its place.
type Part struct {
	Field   string    // of a hash
	Kind    string    // one of the Kinds
	Coding  string    // of a value: CodingZlib and so on
	Size    int64     // bytes as stored
	Length  int64     // bytes of a value's body without coding
	Tag     string    // of a value
	Begun   time.Time // when the load of a value, or under a lease, began, by the clock of who loads; zero when that is not known
	Expires time.Time // of a lease in a field, by Valkey's clock
}

// headLimit is how much of a stored value is looked at: a head, or a lease with whatever time it carries.
const headLimit = 64

// peek reads type, rest of life, memory and heads in one go, so that they belong together. What is stored may be unreadable, or of
// no matter: then it is told by a negative size.
var peek = newLook(`#!lua flags=no-writes
local kind = redis.call('TYPE', KEYS[1]).ok
local memory = redis.pcall('MEMORY', 'USAGE', KEYS[1])
if type(memory) ~= 'number' then memory = 0 end
local found = {kind, redis.call('PTTL', KEYS[1]), memory, 0}
local last = ARGV[1] - 1
if kind == 'hash' then found[4] = redis.call('HLEN', KEYS[1]) end
if kind == 'string' then
  local size, head = redis.call('STRLEN', KEYS[1]), nil
  if ARGV[3] == '' then head = redis.pcall('GETRANGE', KEYS[1], 0, last) end
  if type(head) ~= 'string' then size, head = -1 - size, head and head.err or '' end
  found[5], found[6], found[7] = '', size, head
elseif kind == 'hash' and ARGV[3] == '' then
  local may = redis.pcall('HGET', KEYS[1], '')
  if type(may) == 'table' and may.err then
    found[5], found[6], found[7] = '', -1, may.err
    return found
  end
  local fields
  if found[4] <= tonumber(ARGV[2]) then fields = redis.call('HKEYS', KEYS[1]) else
    fields = {}
    local page = redis.call('HSCAN', KEYS[1], 0, 'COUNT', 100)[2]
    for i = 1, #page, 2 do fields[#fields + 1] = page[i] end
  end
  for _, field in ipairs(fields) do
    local value = redis.call('HGET', KEYS[1], field)
    found[#found + 1] = field
    found[#found + 1] = string.len(value)
    found[#found + 1] = string.sub(value, 1, last + 1)
  end
end
return found`)

// Peek looks at what is stored under a full key; under one that is [Eraser.Spared] not into it. Nothing is changed, and no copy is kept
// or tracked.
func (e *Eraser) Peek(ctx context.Context, fullKey string) (Entry, error) {
	spared := ""
	if e.Spared(fullKey) {
		spared = "1" // what a session holds is nobody's business
	}
	answer, err := peek.run(ctx, e.topology, fullKey, strconv.Itoa(headLimit), strconv.Itoa(maxFields), spared).ToArray()
	if err != nil {
		return Entry{}, fmt.Errorf("look at %q: %w", fullKey, readRight(err))
	}
	entry, err := readEntry(fullKey, answer)
	if err != nil {
		return Entry{}, fmt.Errorf("look at %q: %w", fullKey, err)
	}
	return entry, nil
}

// ErrReadRight says that the user may not look into keys, which none of the programs' work needs.
var ErrReadRight = errors.New("this takes a user of Valkey who may read keys (VALKEY_USERNAME, VALKEY_PASSWORD), such as walkey_operator of users.acl")

// readRight adds ErrReadRight to an error that is the ACL's, in or before a script.
func readRight(err error) error {
	if refusedByACL(err) {
		return fmt.Errorf("%w; %w", ErrReadRight, err)
	}
	return err
}

// refusedByACL says that the ACL has refused a call, or a command within its script.
func refusedByACL(err error) bool {
	return denied(err) || err != nil && strings.Contains(err.Error(), "ACL failure in script")
}

var errPeek = errors.New("the answer is not one of the script")

func readEntry(fullKey string, answer []rueidis.RedisMessage) (Entry, error) {
	if len(answer) < 4 || (len(answer)-4)%3 != 0 {
		return Entry{}, errPeek
	}
	var wrong []error
	text := func(m *rueidis.RedisMessage) string {
		s, err := m.ToString()
		wrong = append(wrong, err)
		return s
	}
	number := func(m *rueidis.RedisMessage) int64 {
		n, err := m.AsInt64()
		wrong = append(wrong, err)
		return n
	}
	entry := Entry{
		Key: fullKey, Type: text(&answer[0]), TTL: time.Duration(number(&answer[1])) * time.Millisecond,
		Memory: number(&answer[2]), Fields: number(&answer[3]),
	}
	for i := 4; i < len(answer); i += 3 {
		field := text(&answer[i])
		size, head := number(&answer[i+1]), text(&answer[i+2])
		if size < 0 {
			part := Part{Field: field, Kind: KindOther, Size: -1 - size}
			if head != "" {
				part.Kind = KindHidden
			}
			entry.Parts = append(entry.Parts, part)
			continue
		}
		entry.Parts = append(entry.Parts, readPart(entry.Type == "hash", field, size, head))
	}
	return entry, errors.Join(wrong...)
}

// readPart tells what a stored value of a size is that begins in this way.
func readPart(inHash bool, field string, size int64, head string) Part {
	p := Part{Field: field, Kind: KindOther, Size: size}
	if isLease(head, Address{isField: inHash}) {
		p.Kind = KindLease
		end, token, timed := strings.Cut(head[1:], ":")
		if !timed {
			token = end
		} else if ms, err := strconv.ParseInt(end, 10, 64); err == nil {
			p.Expires = time.UnixMilli(ms)
		}
		if id, err := hex.DecodeString(token); err == nil && len(id) == len(fillID{}) {
			p.Begun = fillID(id).begun()
		}
		return p
	}
	if len(head) < headSize || head[0] != valueKind || head[atVersion] != headVersion && head[atVersion] != metaVersion || head[atCoding] >= codings {
		return p
	}
	v := Value{head: []byte(head[:headSize])}
	p.Kind, p.Coding, p.Length, p.Tag, p.Begun = KindValue, codingNames[head[atCoding]], int64(v.Length()), v.Tag(), v.fill().begun()
	if v.Absent() {
		p.Kind = KindAbsent
	}
	return p
}

// fillTimeBits is how far the time stands above the count in a fillID's second half; earliest is before Walkey was.
const fillTimeBits = 20

var earliest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// begun is when the fill's load began; zero for an id that does not tell.
func (id fillID) begun() time.Time {
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(id[8:]) >> fillTimeBits))
	if at.Before(earliest) {
		return time.Time{}
	}
	return at
}
