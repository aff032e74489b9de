package main

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value float64
		want  string
	}{{0, "–"}, {0.123, "0.12"}, {12.34, "12.3"}, {123.4, "123"}, {1234, "1,234"}, {1234567, "1,234,567"}} {
		if got := figure(c.value); got != c.want {
			t.Errorf("%v is written %s, want %s", c.value, got, c.want)
		}
	}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		row  row
		want string
	}{
		{"a ratio that is high enough", row{ratio: spread{median: 0.95}, goal: ratioAtLeast(0.95)}, "yes"},
		{"one that is not", row{ratio: spread{median: 0.94}, goal: ratioAtLeast(0.95)}, "no"},
		{"a ratio that is low enough", row{ratio: spread{median: 1.3}, goal: ratioAtMost(1.3)}, "yes"},
		{"one that is not", row{ratio: spread{median: 1.31}, goal: ratioAtMost(1.3)}, "no"},
		{"a figure that is low enough", row{ours: 0, ratio: spread{median: 9}, goal: figureAtMost(0, "")}, "yes"},
		{"one that is not", row{ours: 21, goal: figureAtMost(20, "MiB")}, "no"},
		{"no goal", row{ours: 21}, ""},
	} {
		if got := c.row.met(); got != c.want {
			t.Errorf("%s: met %q, want %q", c.name, got, c.want)
		}
	}
}

// Variants take turns, in another order each time, and figures are compared round by round.
func TestAlternate(t *testing.T) {
	t.Parallel()
	var order []string
	count := func(name string, figures ...float64) variant {
		n := 0
		return variant{name, func(context.Context) ([]float64, error) {
			order = append(order, name)
			n++
			return []float64{figures[n-1]}, nil
		}}
	}
	got, err := alternate(t.Context(), 3, count("a", 1, 2, 30), count("b", 1, 1, 10))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields("a b b a a b"); !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	want := row{floor: 1, ours: 2, ratio: spread{median: 2, least: 1, most: 3}}
	if diff := cmp.Diff(want, against("", "", got[0][0], got[1][0], goal{}), cmp.AllowUnexported(row{}, spread{}, goal{})); diff != "" {
		t.Error(diff)
	}
	failure := errors.New("it can't be measured")
	if _, err := alternate(t.Context(), 1, variant{"a", func(context.Context) ([]float64, error) { return nil, failure }}); !errors.Is(err, failure) {
		t.Errorf("a round that failed gives %v", err)
	}
}

func TestCurveIsXML(t *testing.T) {
	t.Parallel()
	c := curve{title: "a < b & c", x: "x", y: "y", lines: []line{{"one", "ms", [][2]float64{{1, 0.5}, {1000, 300}}}, {"two", "µs", [][2]float64{{10, 10}}}}}
	decoder := xml.NewDecoder(strings.NewReader(c.svg()))
	circles := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 3 {
		t.Errorf("%d points are drawn", circles)
	}
}

func TestReadingValkey(t *testing.T) {
	t.Parallel()
	v := valkeyConn{in: bufio.NewReader(strings.NewReader("+OK\r\n:12\r\n$3\r\na\r\n\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n%1\r\n+a\r\n:1\r\n-ERR no\r\n"))}
	for _, want := range []struct {
		text string
		push bool
	}{{"OK", false}, {"12", false}, {"a\r\n", false}, {"invalidate k", true}, {"a 1", false}} {
		text, push, err := v.read()
		if err != nil || text != want.text || push != want.push {
			t.Errorf("read %q, %v, %v; want %q, %v", text, push, err, want.text, want.push)
		}
	}
	if _, _, err := v.read(); err == nil || !strings.Contains(err.Error(), "ERR no") {
		t.Errorf("an error is read as %v", err)
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	const update = "U\x00\x00\x00\x01N\x00\x01t\x00\x00\x00\x0242"
	if id, err := newID([]byte(update)); err != nil || id != "42" {
		t.Errorf("%q, %v", id, err)
	}
	for n := range len(update) {
		if id, err := newID([]byte(update[:n])); err == nil {
			t.Errorf("the first %d bytes give %q", n, id)
		}
	}
}
