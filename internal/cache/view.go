package cache

import (
	"net/http"
	"strconv"
	"unsafe"
)

// A View is a Value as one client is shown it over HTTP: in the coding that it is kept in where the client takes that, else
// in plain bytes. Make it by Value.View.
type View struct {
	value  Value
	coding []string // the value of Content-Encoding; nil for plain bytes
	lines  *viewLines
}

// viewLines are the values of those headers that belong to one value, and the room for their text: one allocation for all of it.
type viewLines struct {
	tag, length [1]string
	text        [2 + headSize - atTag + 1 + maxCodingName + maxLengthDigits]byte
}

const (
	maxCodingName   = 7 // "deflate"
	maxLengthDigits = 20
)

// Header values that answers share. They are never changed.
var (
	noCache     = []string{"no-cache"}
	varyCoding  = []string{"Accept-Encoding"}
	codingLines = [codings][]string{zlibbed: {"deflate"}, zstdded: {"zstd"}, gzipped: {"gzip"}}
)

// View chooses the form for a client that sends this header. The value is not Absent.
func (v Value) View(request http.Header) View {
	coding := codingLines[v.head[atCoding]]
	if coding != nil && !acceptsCoding(request["Accept-Encoding"], coding[0]) {
		coding = nil
	}
	lines := new(viewLines)
	text := append(append(lines.text[:0], '"'), v.Tag()...)
	if coding != nil { // the tag tells the codings of the same bytes apart
		text = append(append(text, '-'), coding[0]...)
	}
	text = append(text, '"')
	lines.tag[0] = unsafe.String(&lines.text[0], len(text))
	return View{v, coding, lines}
}

// Validate sets ETag and Vary, and says whether the client has exactly this already: then 304 is the answer.
func (v View) Validate(answer, request http.Header) (known bool) {
	answer["Vary"] = varyCoding
	answer["Etag"] = v.lines.tag[:]
	tags := request["If-None-Match"]
	return len(tags) > 0 && MatchesTag(tags, v.lines.tag[0])
}

// Send answers 200 with the body in one write, or with what belongs to it when HEAD was asked. An error says that what is
// stored is damaged; nothing has been sent then, and the caller does well to Delete the address.
func (v View) Send(w http.ResponseWriter, r *http.Request) error {
	body := v.value.Encoded()
	if v.coding == nil {
		var err error
		if body, err = v.value.Identity(); err != nil {
			return err
		}
	}
	h := w.Header()
	if v.coding != nil {
		h["Content-Encoding"] = v.coding
	}
	h["Content-Length"] = v.lines.size(len(body))
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK) // now, so that writers around this one have their say
		return nil
	}
	_, _ = w.Write(body) // a client that has gone needs no answer
	return nil
}

// size is the value of Content-Length. Its digits stand behind the tag.
func (l *viewLines) size(n int) []string {
	at := len(l.tag[0])
	end := len(strconv.AppendInt(l.text[:at], int64(n), 10))
	l.length[0] = unsafe.String(&l.text[at], end-at)
	return l.length[:]
}
