package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// The codings of stored values, as Options.Compression names them.
const (
	CodingNone = "none"
	CodingZlib = "zlib"
	CodingZstd = "zstd"
	CodingGzip = "gzip"
)

// The same in a stored value's header.
const (
	plain byte = iota
	zlibbed
	zstdded
	gzipped
	codings // how many there are
)

var (
	codingNames  = [codings]string{CodingNone, CodingZlib, CodingZstd, CodingGzip}
	contentNames = [codings]string{"", "deflate", "zstd", "gzip"}
)

const (
	compressFrom = 1 << 10  // bytes; below, the gain is not worth the client's work
	maxBody      = 64 << 20 // bytes; larger content is served and not stored
	maxMeta      = 1 << 20  // bytes; the same
)

func codingNumber(name string) (byte, error) {
	for i, n := range codingNames {
		if n == name {
			return byte(i), nil
		}
	}
	return 0, fmt.Errorf("the compression %q is none of zlib, zstd, gzip, none", name)
}

// encode compresses a body when that makes it shorter, and says in which coding the answer is.
func encode(coding byte, body []byte) (byte, []byte) {
	if coding == plain || len(body) < compressFrom {
		return plain, body
	}
	var encoded []byte
	switch coding {
	case zlibbed:
		encoded = deflate(&zlibWriters, body)
	case gzipped:
		encoded = deflate(&gzipWriters, body)
	case zstdded:
		encoded = zstdEncoder().EncodeAll(body, make([]byte, 0, len(body)/2))
	}
	if encoded == nil || len(encoded) >= len(body) {
		return plain, body
	}
	return coding, encoded
}

// resettableWriter is what zlib.Writer and gzip.Writer have in common.
type resettableWriter interface {
	io.WriteCloser
	Reset(io.Writer)
}

var (
	zlibWriters = sync.Pool{New: func() any { return resettableWriter(zlib.NewWriter(io.Discard)) }}
	gzipWriters = sync.Pool{New: func() any { return resettableWriter(gzip.NewWriter(io.Discard)) }}
)

// deflate gives nil when the body can't be compressed.
func deflate(writers *sync.Pool, body []byte) []byte {
	w := writers.Get().(resettableWriter)
	defer writers.Put(w)
	out := bytes.NewBuffer(make([]byte, 0, len(body)/2))
	w.Reset(out)
	if _, err := w.Write(body); err != nil {
		return nil
	}
	if err := w.Close(); err != nil {
		return nil
	}
	return out.Bytes()
}

// Neither coder has goroutines of its own when only whole bodies go through it. Browsers take frames with windows of up to
// 8 MiB (RFC 9659).
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithSingleSegment(false))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxBody))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
)

// deflateRatio is more than deflate can shorten anything.
const deflateRatio = 1040

var errBody = errors.New("the stored body is damaged")

// decode gives back the body of length bytes that encode was given. No input makes it take more memory than length.
func decode(coding byte, encoded []byte, length int) ([]byte, error) {
	switch coding {
	case plain:
		return encoded, nil
	case zlibbed:
		r, err := zlib.NewReader(bytes.NewReader(encoded))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		return inflate(r, len(encoded), length)
	case gzipped:
		r, err := gzip.NewReader(bytes.NewReader(encoded))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		return inflate(r, len(encoded), length)
	case zstdded:
		body, err := zstdDecoder().DecodeAll(encoded, make([]byte, 0, length))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		if len(body) != length {
			return nil, fmt.Errorf("%w: %d bytes instead of %d", errBody, len(body), length)
		}
		return body, nil
	}
	return nil, fmt.Errorf("%w: unknown coding %d", errBody, coding)
}

func inflate(r io.Reader, encoded, length int) ([]byte, error) {
	if length > (encoded+1)*deflateRatio {
		return nil, fmt.Errorf("%w: %d bytes can't become %d", errBody, encoded, length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	// The end must follow: it is there that the checksum is looked at.
	n, err := io.ReadFull(r, make([]byte, 1))
	if n != 0 {
		return nil, fmt.Errorf("%w: more than %d bytes", errBody, length)
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	return body, nil
}
