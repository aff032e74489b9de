package api

import (
	"encoding/json"
	"testing"
)

func TestNextAfter(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		materials []Material
		more      bool
		want      int64
		wantMore  bool
	}{
		{"none", nil, false, 0, false},
		{"none, and more said to follow", nil, true, 0, false},
		{"last page", []Material{{ID: 1}, {ID: 2}}, false, 0, false},
		{"more follow", []Material{{ID: 1}, {ID: 22}}, true, 22, true},
		{"negative id", []Material{{ID: -9}, {ID: -3}}, true, -3, true},
		{"a title that looks like an object", []Material{{ID: 4, Title: `{"id":99,`, File: `{"id":98,"title":""} `}}, true, 4, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body, err := listBody(tt.materials, tt.more)
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(body) {
				t.Fatalf("not JSON: %s", body)
			}
			if got, more := nextAfter(body); got != tt.want || more != tt.wantMore {
				t.Errorf("got %d, %v; want %d, %v", got, more, tt.want, tt.wantMore)
			}
		})
	}
}
