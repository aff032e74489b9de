package api

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseListQuery(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		raw   string
		want  listQuery
		field string
		wrong []string // parameters
	}{
		{name: "nothing", raw: "", field: "all"},
		{name: "unknown parameters are ignored", raw: "utm_source=mail&x", field: "all"},
		{name: "no value is not given", raw: "type=&limit=&after", field: "all"},
		{name: "type", raw: "type=video", want: listQuery{materialType: "video"}, field: "type=video"},
		{name: "type is escaped", raw: "type=a%26limit%3D3", want: listQuery{materialType: "a&limit=3"}, field: "type=a%26limit%3D3"},
		{name: "order does not matter", raw: "after=7&limit=2&type=video", want: listQuery{materialType: "video", limit: 2, after: 7, hasAfter: true}, field: "type=video&limit=2&after=7"},
		{name: "smallest limit", raw: "limit=1", want: listQuery{limit: 1}, field: "limit=1"},
		{name: "largest limit", raw: "limit=500", want: listQuery{limit: 500}, field: "limit=500"},
		{name: "numbers have one form", raw: "limit=007&after=-0", want: listQuery{limit: 7, hasAfter: true}, field: "limit=7&after=0"},
		{name: "after is negative", raw: "after=-9223372036854775808", want: listQuery{after: -1 << 63, hasAfter: true}, field: "after=-9223372036854775808"},
		{name: "limit of zero", raw: "limit=0", wrong: []string{"limit"}},
		{name: "limit too large", raw: "limit=501", wrong: []string{"limit"}},
		{name: "limit is no number", raw: "limit=ten", wrong: []string{"limit"}},
		{name: "after too large", raw: "after=9223372036854775808", wrong: []string{"after"}},
		{name: "type too long", raw: "type=" + strings.Repeat("x", maxTypeLength+1), wrong: []string{"type"}},
		{name: "type with a zero byte", raw: "type=a%00b", wrong: []string{"type"}},
		{name: "type is not UTF-8", raw: "type=%ff", wrong: []string{"type"}},
		{name: "given twice", raw: "limit=1&limit=2", wrong: []string{"limit"}},
		{name: "all are named", raw: "limit=x&after=y&type=%01", wrong: []string{"type", "limit", "after"}},
		{name: "not URL-encoded", raw: "type=%zz", wrong: []string{""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, wrong := parseListQuery(tt.raw)
			var names []string
			for _, w := range wrong {
				names = append(names, w.Parameter)
				if w.Detail == "" {
					t.Errorf("nothing is said about %q", w.Parameter)
				}
			}
			if diff := cmp.Diff(tt.wrong, names); diff != "" {
				t.Fatalf("wrong parameters (-want +got):\n%s", diff)
			}
			if tt.wrong != nil {
				return
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if field := got.field(); field != tt.field {
				t.Errorf("field %q, want %q", field, tt.field)
			}
		})
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "type=video&limit=3&after=9", "limit=0", "type=%00", "after=-1&after=1", "a;b", "type=%ff&limit=+5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, wrong := parseListQuery(raw)
		if len(wrong) > 0 {
			return
		}
		if q.limit < 0 || q.limit > maxLimit || len(q.materialType) > maxTypeLength {
			t.Fatalf("%q is beyond the bounds: %+v", raw, q)
		}
		// The normal form says all of the query, so that two different queries never share a field.
		again, wrong := parseListQuery(q.encode())
		if len(wrong) > 0 || again != q {
			t.Fatalf("%q is %+v, and in normal form %q is %+v (%v)", raw, q, q.encode(), again, wrong)
		}
		if _, err := url.ParseQuery(q.encode()); err != nil {
			t.Fatalf("the normal form of %q is not URL-encoded: %v", raw, err)
		}
	})
}
