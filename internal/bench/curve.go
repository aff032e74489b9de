package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// curve is a plot of what something costs as work grows. Both axes are logarithmic: cost in proportion to the work is a straight line
// of slope 1, cost that stays the same a level one.
type curve struct {
	file, title, x, y string
	noun              string // of what there is more and more
	lines             []line
}

// line is one row of points: what is compared has several.
type line struct {
	name   string
	unit   string
	points [][2]float64 // positive
}

// Sizes of the drawing, in pixels.
const (
	plotWidth, plotHeight = 560, 340
	plotLeft, plotRight   = 70, 20
	plotTop, plotBottom   = 40, 50
)

var lineColours = []string{"#1f5fa8", "#c0561b", "#3a7d34"}

// axis places values on a logarithmic scale of whole decades.
type axis struct {
	low, high float64 // exponents
	from, to  float64 // pixels
}

func newAxis(values []float64, from, to float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = math.Min(low, math.Floor(math.Log10(v))), math.Max(high, math.Ceil(math.Log10(v)))
	}
	if low == high {
		high++
	}
	return axis{low, high, from, to}
}

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// svg draws the curve.
func (c curve) svg() string {
	var xs, ys []float64
	for _, l := range c.lines {
		for _, p := range l.points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
		}
	}
	const right, bottom = plotWidth - plotRight, plotHeight - plotBottom
	x, y := newAxis(xs, plotLeft, right), newAxis(ys, bottom, plotTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	text := func(px, py float64, anchor, more, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", px, py, anchor, more, html.EscapeString(s))
	}
	rule := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", x1, y1, x2, y2)
	}
	text(plotWidth/2, 20, "middle", ` font-weight="bold"`, c.title)
	text(plotWidth/2, plotHeight-10, "middle", "", c.x)
	text(16, plotHeight/2, "middle", fmt.Sprintf(` transform="rotate(-90 16 %d)"`, plotHeight/2), c.y)
	for e := x.low; e <= x.high; e++ {
		v := math.Pow(10, e)
		rule(x.at(v), plotTop, x.at(v), bottom)
		text(x.at(v), bottom+18, "middle", "", tick(v))
	}
	for e := y.low; e <= y.high; e++ {
		v := math.Pow(10, e)
		rule(plotLeft, y.at(v), right, y.at(v))
		text(plotLeft-6, y.at(v)+4, "end", "", tick(v))
	}
	for i, l := range c.lines {
		colour := lineColours[i%len(lineColours)]
		var path []string
		for _, p := range l.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x.at(p[0]), y.at(p[1])))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x.at(p[0]), y.at(p[1]), colour)
			text(x.at(p[0]), y.at(p[1])-8, "middle", fmt.Sprintf(` fill="%s"`, colour), figure(p[1]))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(path, " "), colour)
		text(right, float64(plotTop+16*i+12), "end", fmt.Sprintf(` fill="%s"`, colour), l.name+", "+l.unit)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// tick writes a power of ten.
func tick(v float64) string {
	if v >= 1000 {
		return thousands(v)
	}
	return fmt.Sprintf("%g", v)
}
