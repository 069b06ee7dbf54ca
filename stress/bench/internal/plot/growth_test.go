package plot

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func growing() Growth {
	points := func(factor float64, xs ...float64) (all []Point) {
		for _, x := range xs {
			all = append(all, Point{X: x, Value: factor * x, Low: factor * x / 2, High: factor * x * 2})
		}
		return all
	}
	formatX := func(v float64) string { return fmt.Sprintf("%gx", v) }
	return Growth{Title: "Growth & <more>", Panels: []GrowthPanel{
		{Title: "first", X: "locks", FormatX: formatX, Format: format, Lines: []Line{
			{Label: "ours", Ours: true, Points: points(1, 10, 100, 1000)},
			{Label: "theirs", Points: points(1.1, 10, 100, 1000)},
			{Label: "another", Variant: true, Points: points(0.9, 10, 100)},
			{Label: "nothing"},
		}},
		{Title: "second", X: "waiters", FormatX: formatX, Format: format, Lines: []Line{{Label: "ours", Points: points(3, 50)}}},
	}}
}

func TestGrowthIsComplete(t *testing.T) {
	for _, dark := range []bool{true, false} {
		all := parse(t, growing().SVG(dark))
		found := texts(all)
		for _, want := range []string{"Growth & <more>", "first", "second", "locks", "waiters", "10x", "100x", "1000x", "50x", "1000!  ours", "1100!  theirs", "90!  another"} {
			if !slices.Contains(found, want) {
				t.Errorf("no text %q, only %q", want, found)
			}
		}
		height := number(t, all[0], "height")
		for _, e := range all[1:] {
			for _, at := range []string{"x", "cx", "x1", "x2"} {
				if e.attr[at] != "" && (number(t, e, at) < 0 || number(t, e, at) > width) {
					t.Errorf("%+v is outside", e)
				}
			}
			for _, at := range []string{"y", "cy", "y1", "y2"} {
				if e.attr[at] != "" && (number(t, e, at) < 0 || number(t, e, at) > height) {
					t.Errorf("%+v is outside of %v", e, height)
				}
			}
		}
	}
}

// Work and values that grow tenfold are at constant distances.
func TestGrowthPlaces(t *testing.T) {
	var x, y []float64
	for _, e := range parse(t, growing().SVG(false)) {
		if e.name == "circle" {
			x, y = append(x, number(t, e, "cx")), append(y, number(t, e, "cy"))
		}
	}
	if len(x) != 9 || math.Abs((x[2]-x[1])-(x[1]-x[0])) > 0.2 || math.Abs((y[2]-y[1])-(y[1]-y[0])) > 0.2 || x[0] >= x[1] || y[0] <= y[1] {
		t.Errorf("dots at %v, %v", x, y)
	}
}

func TestLabelsDoNotOverlap(t *testing.T) {
	at := func(ys ...float64) (all []label) {
		for _, y := range ys {
			all = append(all, label{y: y})
		}
		return all
	}
	for _, ys := range [][]float64{{10, 10, 10}, {199, 200, 198}, {0, 100, 200}, {200}, {190, 190, 190, 190}} {
		all := spread(at(ys...), 0, 200)
		for i := range all {
			if all[i].y > 200 || i > 0 && all[i].y < all[i-1].y+labelH-0.001 {
				t.Errorf("%v: %+v", ys, all)
				break
			}
		}
	}
}

func TestNoGrowthToDraw(t *testing.T) {
	for _, lines := range [][]Line{
		nil,
		{{Label: "zero", Points: []Point{{X: 10}}}},
		{{Label: "from zero", Points: []Point{{X: 10, Value: 0, High: 5}, {X: 20, Value: 3, Low: 3, High: 3}}}},
	} {
		g := Growth{Title: "t", Panels: []GrowthPanel{{Title: "p", FormatX: format, Format: format, Lines: lines}}}
		if svg := g.SVG(false); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%v: %s", lines, svg)
		} else {
			parse(t, svg)
		}
	}
}
