package api

import (
	"bytes"
	"strconv"
)

// A stored list has to tell by itself whether more follow and behind which id, so that the Link header is about exactly
// the rows in the body. The id is that of the last object; that more follow is marked by one space before the final
// line end, which means nothing to a reader of JSON and makes the entity tag differ with the header.
const (
	lastPage = "\n"
	morePage = " \n"
)

var objectStart = []byte(`{"id":`)

// endPage closes the body of a list.
func endPage(body []byte, more bool) []byte {
	if more {
		return append(body, morePage...)
	}
	return append(body, lastPage...)
}

// nextAfter gives the id behind which the next page starts, when there is one.
func nextAfter(body []byte) (id int64, more bool) {
	if !bytes.HasSuffix(body, []byte(morePage)) {
		return 0, false
	}
	// Quotes inside strings are escaped, so this is never part of a title.
	at := bytes.LastIndex(body, objectStart)
	if at < 0 {
		return 0, false
	}
	digits := body[at+len(objectStart):]
	end := bytes.IndexByte(digits, ',')
	if end < 0 {
		return 0, false
	}
	id, err := strconv.ParseInt(string(digits[:end]), 10, 64)
	return id, err == nil
}
