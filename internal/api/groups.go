package api

import (
	"strconv"
	"strings"
)

// The groups of an answer (RFC 9875) are the keys that it depends on, by the names that rules give them: a cache between
// here and the client may forget by them what a write through it has changed.

// materialPages is the group of what the page middleware keeps about materials.
const materialPages = "page:" + pagesOfMaterials

// listGroups is never changed.
var listGroups = []string{groups(listKey)}

func materialGroup(id int64) string { return materialKey + ":" + strconv.FormatInt(id, 10) }

// groups writes names as a list of strings (RFC 9651). None of them holds a quote.
func groups(names ...string) string { return `"` + strings.Join(names, `", "`) + `"` }
