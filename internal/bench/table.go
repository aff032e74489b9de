package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// row is one line of the table: medians over the rounds, in the unit that Walkey's has.
type row struct {
	what  string
	unit  string
	floor float64 // 0: there is none
	rival float64 // 0: there is none
	ours  float64
	ratio spread // of ours to the floor, or to the rival where there is no floor; zero when there is neither
	goal  goal
}

// goal is what the ratio, or the figure itself where there is no ratio, should be.
type goal struct {
	atLeast bool // else at most
	bound   float64
	figure  bool // the figure itself is bounded, not the ratio
	text    string
}

func ratioAtLeast(bound float64) goal {
	return goal{atLeast: true, bound: bound, text: fmt.Sprintf("≥ %g", bound)}
}

func ratioAtMost(bound float64) goal { return goal{bound: bound, text: fmt.Sprintf("≤ %g", bound)} }

func figureAtMost(bound float64, unit string) goal {
	return goal{bound: bound, figure: true, text: strings.TrimSpace(fmt.Sprintf("≤ %g %s", bound, unit))}
}

// met is "yes" or "no"; empty when nothing was aimed at.
func (r row) met() string {
	if r.goal.text == "" {
		return ""
	}
	value := r.ratio.median
	if r.goal.figure {
		value = r.ours
	}
	if r.goal.atLeast == (value >= r.goal.bound) || value == r.goal.bound {
		return "yes"
	}
	return "no"
}

// figure writes a number to three digits.
func figure(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 1000:
		return thousands(v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// thousands writes a large number with three digits that count.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	var b strings.Builder
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func (r row) cells() []string {
	ratio := "–"
	if r.ratio.median != 0 {
		ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", r.ratio.median, r.ratio.least, r.ratio.most)
	}
	orDash := func(s string) string {
		if s == "" {
			return "–"
		}
		return s
	}
	return []string{r.what, r.unit, figure(r.floor), figure(r.ours), figure(r.rival), ratio, orDash(r.goal.text), orDash(r.met())}
}

var columns = []string{"what", "unit", "floor", "Walkey", "instead", "ratio (of the rounds)", "goal", "met"}

func printTable(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	_ = w.Flush() // out is the terminal
}

func markdownTable(machine string, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| %s |\n|%s\n", machine, strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r.cells(), " | "))
	}
	return b.String()
}
