package cache

import "testing"

func TestAcceptsCoding(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		header []string
		coding string
		want   bool
	}{
		{"no header", nil, "deflate", false},
		{"empty header", []string{""}, "deflate", false},
		{"named", []string{"deflate"}, "deflate", true},
		{"named among others", []string{"gzip, deflate, br, zstd"}, "zstd", true},
		{"in a second line", []string{"gzip", "br, deflate"}, "deflate", true},
		{"not named", []string{"gzip, br"}, "deflate", false},
		{"part of another name", []string{"xdeflate, deflatex"}, "deflate", false},
		{"capitals", []string{"DEFLATE"}, "deflate", true},
		{"x-gzip is gzip", []string{"x-gzip"}, "gzip", true},
		{"anything", []string{"*"}, "zstd", true},
		{"anything else", []string{"gzip;q=1, *;q=0.5"}, "zstd", true},
		{"anything but this", []string{"zstd;q=0, *"}, "zstd", false},
		{"nothing else", []string{"gzip, *;q=0"}, "zstd", false},
		{"this although nothing else", []string{"zstd;q=0.1, *;q=0"}, "zstd", true},
		{"refused", []string{"deflate;q=0"}, "deflate", false},
		{"refused with decimals", []string{"deflate;q=0.000"}, "deflate", false},
		{"least quality", []string{"deflate;q=0.001"}, "deflate", true},
		{"blanks", []string{" gzip ;  q = 0.5 ,\tdeflate ; q=0.2"}, "deflate", true},
		{"capital Q", []string{"deflate;Q=0"}, "deflate", false},
		{"plain bytes are better", []string{"deflate;q=0.5, identity;q=0.9"}, "deflate", false},
		{"plain bytes are as good", []string{"deflate;q=0.5, identity;q=0.5"}, "deflate", true},
		{"plain bytes are refused", []string{"deflate, identity;q=0"}, "deflate", true},
		{"quality above one", []string{"deflate;q=2"}, "deflate", false},
		{"negative quality", []string{"deflate;q=-1"}, "deflate", false},
		{"quality is no number", []string{"deflate;q=NaN"}, "deflate", false},
		{"quality is missing", []string{"deflate;q="}, "deflate", false},
		{"other parameter", []string{"deflate;level=9"}, "deflate", true},
		{"separators only", []string{",;,;;,"}, "deflate", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := acceptsCoding(tt.header, tt.coding); got != tt.want {
				t.Errorf("acceptsCoding(%q, %q) = %v", tt.header, tt.coding, got)
			}
		})
	}
}

func TestMatchesTag(t *testing.T) {
	t.Parallel()
	const tag = `"abc-deflate"`
	tests := []struct {
		name   string
		header []string
		want   bool
	}{
		{"the same", []string{`"abc-deflate"`}, true},
		{"weak", []string{`W/"abc-deflate"`}, true},
		{"any", []string{`*`}, true},
		{"another", []string{`"abd-deflate"`}, false},
		{"another coding of the same", []string{`"abc"`}, false},
		{"longer", []string{`"abc-deflate-x"`}, false},
		{"in a list", []string{`"x", W/"y" , "abc-deflate"`}, true},
		{"in a list without blanks", []string{`"x","abc-deflate","y"`}, true},
		{"in a second line", []string{`"x"`, `"abc-deflate"`}, true},
		{"behind empty items", []string{`, ,"abc-deflate"`}, true},
		{"comma inside a tag", []string{`"a,b", "abc-deflate"`}, true},
		{"without quotes", []string{`abc-deflate`}, false},
		{"unfinished", []string{`"abc-deflate`}, false},
		{"small w", []string{`w/"abc-deflate"`}, false},
		{"empty", []string{``}, false},
		{"inside another's quotes", []string{`"x"abc-deflate"`}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := MatchesTag(tt.header, tag); got != tt.want {
				t.Errorf("MatchesTag(%q, %q) = %v", tt.header, tag, got)
			}
		})
	}
}
