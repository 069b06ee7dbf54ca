// Package plot draws measurements as SVG: each panel has a row for each contender, with
// a dot at the median and a line over the range. It is much smaller than a plotting
// library, and keeps text as text.
package plot

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// A Chart is an image. All its panels have the same axis.
type Chart struct {
	Title  string
	Format func(float64) string // formats a value
	Log    bool                 // the axis is logarithmic; otherwise it begins at 0, with bars
	Top    float64              // the end of a linear axis; 0 derives it from the values
	Panels []Panel
}

// A Panel is a part of an image, with its own title.
type Panel struct {
	Title string
	Goal  float64 // the position of a labeled line; 0 means none
	Rows  []Row
}

// A Row is one contender.
type Row struct {
	Label         string
	Value         float64
	Low, High     float64
	Ours, Variant bool   // Ours has the accent color, Unpaired a paler one
	Missing       string // why there is no value
}

// A theme is a set of colors.
type theme struct{ text, muted, grid, ours, variant, other, goal string }

func themeOf(dark bool) theme {
	if dark {
		return theme{"#f0f6fc", "#9198a1", "#3d444d", "#4493f8", "#79a9e0", "#9198a1", "#d29922"}
	}
	return theme{"#1f2328", "#59636e", "#d8dee4", "#0969da", "#6ba3e0", "#818b98", "#9a6700"}
}

// The dimensions of an image, in pixels.
const (
	width   = 800
	margin  = 16
	rowH    = 22
	titleH  = 34
	panelH  = 30 // the title of a panel and the space above it
	axisH   = 30
	charW   = 7.4 // approximate width of a bold letter
	valueW  = 92
	minPlot = 200
)

// SVG draws the chart for a light or a dark page.
func (c Chart) SVG(dark bool) string {
	t := themeOf(dark)
	longest := 0
	rows := 0
	for _, p := range c.Panels {
		for _, r := range p.Rows {
			longest = max(longest, utf8.RuneCountInString(r.Label))
			rows++
		}
	}
	left := min(margin+float64(longest)*charW+12, width-minPlot-valueW)
	right := float64(width - valueW)
	low, high := c.bounds()
	x := func(v float64) float64 {
		if c.Log {
			v = max(v, low) // 0 has no logarithm
			return left + (right-left)*(math.Log10(v)-math.Log10(low))/(math.Log10(high)-math.Log10(low))
		}
		return left + (right-left)*(v-low)/(high-low)
	}
	height := titleH + len(c.Panels)*panelH + rows*rowH + axisH + margin/2

	var b strings.Builder
	open(&b, c.Title, height)

	text(&b, margin, 22, "start", t.text, ` font-size="14" font-weight="600"`, c.Title)
	bottom := float64(height - axisH - margin/2)
	y := float64(titleH)
	for _, p := range c.Panels {
		text(&b, margin, y+20, "start", t.muted, ` font-weight="600"`, p.Title)
		top := y + panelH
		end := top + float64(len(p.Rows)*rowH)
		for _, v := range c.ticks(low, high) {
			line(&b, x(v), top, x(v), end, t.grid, 1, "")
		}
		if p.Goal > 0 && p.Goal >= low && p.Goal <= high {
			line(&b, x(p.Goal), top-4, x(p.Goal), end, t.goal, 1.5, ` stroke-dasharray="4 3"`)
			text(&b, width-margin, y+20, "end", t.goal, ` font-size="11"`, "goal: "+c.Format(p.Goal))
		}
		for i, r := range p.Rows {
			c.row(&b, r, t, top+(float64(i)+0.5)*rowH, left, x)
		}
		y = end
	}
	for _, v := range c.ticks(low, high) {
		text(&b, x(v), bottom+18, "middle", t.muted, ` font-size="11"`, c.Format(v))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c Chart) row(b *strings.Builder, r Row, t theme, y, left float64, x func(float64) float64) {
	color, weight := t.other, ""
	switch {
	case r.Ours:
		color, weight = t.ours, ` font-weight="600"`
	case r.Variant:
		color = t.variant
	}
	text(b, left-10, y+4, "end", t.text, weight, r.Label)
	if r.Missing != "" {
		text(b, left+6, y+4, "start", t.muted, ` font-style="italic"`, r.Missing)
		return
	}
	if c.Log {
		line(b, x(r.Low), y, x(r.High), y, color, 2, ` stroke-opacity="0.6"`)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4.5" fill="%s"/>`+"\n", x(r.Value), y, color)
	} else {
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" fill="%s"/>`+"\n", left, y-6, max(x(max(r.Value, 0))-left, 1), 12, color)
		line(b, x(max(r.Low, 0)), y, x(r.High), y, t.text, 1, "")
	}
	text(b, x(max(r.High, r.Value))+9, y+4, "start", t.text, weight, c.Format(r.Value))
}

// bounds returns the ends of the axis.
func (c Chart) bounds() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range c.Panels {
		for _, r := range p.Rows {
			if r.Missing != "" {
				continue
			}
			if r.Low > 0 || !c.Log {
				low = min(low, r.Low)
			}
			high = max(high, r.High, p.Goal)
		}
	}
	if math.IsInf(low, 0) || math.IsInf(high, 0) || high <= 0 {
		return 0.1, 1
	}
	if c.Log {
		low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
		if low == high {
			high *= 10
		}
		return low, high
	}
	if c.Top > 0 {
		return 0, c.Top
	}
	return 0, high * 1.02
}

// ticks returns the values that label the axis.
func (c Chart) ticks(low, high float64) []float64 {
	var all []float64
	if c.Log {
		for e := math.Round(math.Log10(low)); e <= math.Round(math.Log10(high)); e++ {
			all = append(all, math.Pow(10, e))
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(high/2)))
	for _, f := range []float64{1, 2, 5, 10} {
		if high/(step*f) <= 6 {
			step *= f
			break
		}
	}
	for i := 0; float64(i)*step <= high*1.001; i++ {
		all = append(all, float64(i)*step)
	}
	return all
}
