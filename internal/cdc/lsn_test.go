package cdc

import "testing"

func TestParseLSN(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]LSN{
		"0/0":               0,
		"16/B374D848":       0x16B374D848,
		"16/b374d848":       0x16B374D848,
		"FFFFFFFF/FFFFFFFF": 1<<64 - 1,
		"0/0171FFF0":        0x171FFF0,
	} {
		got, err := ParseLSN(text)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0/0 ", " 0/0", "+1/0", "-1/0", "0x1/0", "1_0/0", "G/0", "100000000/0", "0/100000000", "0/0junk"} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("%q was taken for %s", text, got)
		}
	}
}

func FuzzParseLSN(f *testing.F) {
	f.Add("16/B374D848")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLSN(text)
		if err != nil {
			return
		}
		if again, err := ParseLSN(l.String()); err != nil || again != l {
			t.Errorf("%q is %s, which is %s, %v", text, l, again, err)
		}
	})
}
