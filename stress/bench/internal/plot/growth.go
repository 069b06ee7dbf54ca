package plot

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A Growth is an image of how values grow with the amount of work. Both axes of its panels
// are logarithmic, so what grows in proportion to the work is a line of slope 1.
type Growth struct {
	Title  string
	Panels []GrowthPanel
}

// A GrowthPanel is a part of the image, with its own axes.
type GrowthPanel struct {
	Title           string
	X               string               // what the horizontal axis counts
	FormatX, Format func(float64) string // format the values of the two axes
	Lines           []Line
}

// A Line is one contender.
type Line struct {
	Label         string
	Ours, Variant bool
	Points        []Point
}

// A Point is a measurement.
type Point struct{ X, Value, Low, High float64 }

// The dimensions of a panel, in pixels.
const (
	growthH    = 220 // of the plot itself
	growthLeft = 90
	labelsW    = 310
	labelH     = 15
)

// SVG draws the image for a light or a dark page.
func (g Growth) SVG(dark bool) string {
	t := themeOf(dark)
	height := titleH + len(g.Panels)*(panelH+growthH+axisH+14) + margin/2
	var b strings.Builder
	open(&b, g.Title, height)
	text(&b, margin, 22, "start", t.text, ` font-size="14" font-weight="600"`, g.Title)
	y := float64(titleH)
	for _, p := range g.Panels {
		text(&b, margin, y+20, "start", t.muted, ` font-weight="600"`, p.Title)
		p.draw(&b, t, y+panelH)
		y += panelH + growthH + axisH + 14
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw draws the panel below top.
func (p GrowthPanel) draw(b *strings.Builder, t theme, top float64) {
	var xs []float64
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range p.Lines {
		for _, point := range l.Points {
			xs = append(xs, point.X)
			if point.Low > 0 {
				low = min(low, point.Low)
			}
			high = max(high, point.High)
		}
	}
	if len(xs) == 0 || math.IsInf(low, 0) {
		return
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	axis := Chart{Log: true, Panels: []Panel{{Rows: []Row{{Low: low, High: high}}}}}
	low, high = axis.bounds()
	right, bottom := float64(width-labelsW), top+growthH
	x := func(v float64) float64 {
		if len(xs) == 1 {
			return (growthLeft + right) / 2
		}
		return growthLeft + 12 + (right-growthLeft-24)*math.Log(v/xs[0])/math.Log(xs[len(xs)-1]/xs[0])
	}
	y := func(v float64) float64 {
		return bottom - growthH*math.Log(max(v, low)/low)/math.Log(high/low)
	}

	for _, v := range axis.ticks(low, high) {
		line(b, growthLeft, y(v), right, y(v), t.grid, 1, "")
		text(b, growthLeft-8, y(v)+4, "end", t.muted, ` font-size="11"`, p.Format(v))
	}
	for _, v := range xs {
		line(b, x(v), bottom, x(v), bottom+4, t.muted, 1, "")
		text(b, x(v), bottom+18, "middle", t.muted, ` font-size="11"`, p.FormatX(v))
	}
	text(b, (growthLeft+right)/2, bottom+34, "middle", t.muted, ` font-size="11"`, p.X)

	var labels []label
	for _, l := range p.Lines {
		if len(l.Points) == 0 {
			continue
		}
		color := t.other
		switch {
		case l.Ours:
			color = t.ours
		case l.Variant:
			color = t.variant
		}
		var path strings.Builder
		for i, point := range l.Points {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], x(point.X), y(point.Value))
			line(b, x(point.X), y(point.Low), x(point.X), y(point.High), color, 2, ` stroke-opacity="0.6"`)
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(point.X), y(point.Value), color)
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), color)
		last := l.Points[len(l.Points)-1]
		labels = append(labels, label{y(last.Value), l, p.Format(last.Value)})
	}
	for _, l := range spread(labels, top, bottom) {
		weight := ""
		if l.line.Ours {
			weight = ` font-weight="600"`
		}
		text(b, right+10, l.y+4, "start", t.text, weight, l.value+"  "+l.line.Label)
	}
}

// A label stands to the right of the end of its line.
type label struct {
	y     float64
	line  Line
	value string
}

// spread moves labels apart, so that none overlaps another one.
func spread(all []label, top, bottom float64) []label {
	slices.SortStableFunc(all, func(a, b label) int { return int(math.Copysign(1, a.y-b.y)) })
	for i := range all {
		if i > 0 {
			all[i].y = max(all[i].y, all[i-1].y+labelH)
		}
	}
	limit := bottom
	for i := len(all) - 1; i >= 0 && all[i].y > limit; i-- {
		all[i].y = limit
		limit -= labelH
	}
	return all
}

// open writes the beginning of an image.
func open(b *strings.Builder, title string, height int) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12">`+"\n",
		width, height, width, height, html.EscapeString(title))
	fmt.Fprintf(b, "<title>%s</title>\n", html.EscapeString(title))
}

func text(b *strings.Builder, x, y float64, anchor, fill, extra, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s"%s>%s</text>`+"\n", x, y, anchor, fill, extra, html.EscapeString(text))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, stroke string, w float64, extra string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"%s/>`+"\n", x1, y1, x2, y2, stroke, w, extra)
}
