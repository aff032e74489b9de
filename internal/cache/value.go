package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"unsafe"
)

// What Valkey keeps under a key or in a field is either a lease (see lease.go) or a value: a head of fixed length and a
// body. The head:
//
//	0      'V'
//	1      version of this layout
//	2      coding of the body
//	3      1 when there is no such thing, else 0
//	4..19  the fill's id: no two fills ever have the same
//	20..23 length of the identity body, big endian
//	24..55 the tag, hexadecimal
//
// With metaVersion the length of a meta follows, four bytes, big endian, and the meta itself, which no coding touches.
const (
	valueKind   = 'V'
	headVersion = 1
	metaVersion = 2

	atVersion = 1
	atCoding  = 2
	atAbsent  = 3
	atFill    = 4
	atLength  = 20
	atTag     = 24
	headSize  = 56
	atMeta    = headSize + 4
)

// A Value is an answer: a body, or the fact that there is none. It shares memory with other Values of the same key, so
// nothing of it may be changed. The zero Value is not one.
type Value struct {
	head    []byte // checked: headSize bytes, or more with a meta
	body    []byte // as head's coding says
	decoded *decodedBodies
}

// A fillID is different for every fill of every process: eight bytes that name the process, and a number that rises and tells
// when the load began (fillTimeBits).
type fillID [16]byte

// loadedValue makes the Value of what a loader gave.
func loadedValue(content Content, fill fillID, decoded *decodedBodies) Value {
	if content.Absent {
		content.Body, content.Meta = nil, nil
	}
	return Value{head: newHead(content, fill), body: content.Body, decoded: decoded}
}

func newHead(content Content, fill fillID) []byte {
	head := make([]byte, headSize, atMeta+len(content.Meta))
	head[0] = valueKind
	head[atVersion] = headVersion
	head[atCoding] = plain
	if content.Absent {
		head[atAbsent] = 1
	}
	copy(head[atFill:], fill[:])
	binary.BigEndian.PutUint32(head[atLength:], uint32(len(content.Body)))
	if len(content.Meta) > 0 {
		head[atVersion] = metaVersion
		head = binary.BigEndian.AppendUint32(head, uint32(len(content.Meta)))
		head = append(head, content.Meta...)
	}
	copy(head[atTag:], tagOf(head[headSize:], content.Body))
	return head
}

// TagOf is the Tag of a value with this identity body.
func TagOf(body []byte) string { return tagOf(nil, body) }

// tagOf counts a meta in, with its length before it.
func tagOf(meta, body []byte) string {
	sum := sha256.New()
	sum.Write(meta)
	sum.Write(body)
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// storable gives the bytes to be stored for a loaded value, compressed where that helps.
func (v Value) storable(coding byte) []byte {
	coding, body := encode(coding, v.body)
	stored := make([]byte, 0, len(v.head)+len(body))
	stored = append(stored, v.head...)
	stored[atCoding] = coding
	return append(stored, body...)
}

// hexDigits has what a tag is made of. A table, because every hit looks at 32 of them.
var hexDigits = func() (t [256]bool) {
	for _, c := range "0123456789abcdef" {
		t[c] = true
	}
	return t
}()

var errMalformed = errors.New("malformed value")

// parseValue takes stored bytes, which may be anything. It does not look into the body.
func parseValue(stored []byte, decoded *decodedBodies) (Value, error) {
	if len(stored) < headSize || stored[0] != valueKind {
		return Value{}, errMalformed
	}
	end := headSize
	switch stored[atVersion] {
	case headVersion:
	case metaVersion:
		if len(stored) < atMeta {
			return Value{}, errMalformed
		}
		meta := binary.BigEndian.Uint32(stored[headSize:])
		if meta == 0 || meta > maxMeta || int(meta) > len(stored)-atMeta || stored[atAbsent] == 1 {
			return Value{}, errMalformed
		}
		end = atMeta + int(meta)
	default:
		return Value{}, errMalformed
	}
	head, body := stored[:end:end], stored[end:]
	length := binary.BigEndian.Uint32(head[atLength:])
	switch {
	case head[atCoding] >= codings,
		head[atAbsent] > 1,
		length > maxBody,
		head[atCoding] == plain && int(length) != len(body),
		head[atCoding] != plain && len(body) == 0,
		head[atAbsent] == 1 && (length != 0 || len(body) != 0):
		return Value{}, errMalformed
	}
	odd := false
	for _, c := range head[atTag:headSize] {
		odd = odd || !hexDigits[c]
	}
	if odd {
		return Value{}, errMalformed
	}
	return Value{head: head, body: body, decoded: decoded}, nil
}

// Absent says that there is nothing under this key: an answer like any other, whose body is empty.
func (v Value) Absent() bool { return v.head[atAbsent] == 1 }

// Meta is what was kept beside the body; empty when nothing was. It is shared: never change it.
func (v Value) Meta() []byte {
	if len(v.head) == headSize {
		return nil
	}
	return v.head[atMeta:]
}

// Tag is a hash of the identity body and the meta: 32 hexadecimal digits, the same whatever the coding and whoever loaded it.
func (v Value) Tag() string {
	// A view and not a copy: the head is never changed, and every hit asks for it.
	return unsafe.String(&v.head[atTag], headSize-atTag)
}

// Coding is the coding of Encoded: CodingZlib, CodingZstd or CodingGzip, and empty for the identity body.
func (v Value) Coding() string {
	if v.head[atCoding] == plain {
		return ""
	}
	return codingNames[v.head[atCoding]]
}

// ContentCoding is Coding by its name in HTTP, where zlib's is "deflate"; empty for the identity body.
func (v Value) ContentCoding() string { return contentNames[v.head[atCoding]] }

// Encoded is the body as it is kept, in Coding. It is shared: never change it.
func (v Value) Encoded() []byte { return v.body }

// Length is the length of the identity body in bytes.
func (v Value) Length() int { return int(binary.BigEndian.Uint32(v.head[atLength:])) }

// Identity is the body without coding. It is shared: never change it. The decoded form is kept in memory for the next
// who asks. An error says that the stored bytes are damaged; the caller then does well to Delete the address.
func (v Value) Identity() ([]byte, error) {
	if v.head[atCoding] == plain {
		return v.body, nil
	}
	body, err := v.decoded.body(v)
	if err != nil {
		return nil, fmt.Errorf("decode a body of %s: %w", v.Coding(), err)
	}
	return body, nil
}

func (v Value) fill() fillID { return fillID(v.head[atFill:atLength]) }
