package plot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func format(v float64) string { return fmt.Sprintf("%g!", v) }

func example(log bool) Chart {
	return Chart{
		Title: "Pairs a second & <more>", Format: format, Log: log,
		Panels: []Panel{
			{Title: "64 goroutines", Rows: []Row{
				{Label: "ours", Value: 200, Low: 150, High: 250, Ours: true},
				{Label: "theirs", Value: 20, Low: 15, High: 25},
				{Label: "etcd", Missing: "no etcd here"},
			}},
			{Title: "1 goroutine", Goal: 100, Rows: []Row{{Label: "ours", Value: 90, Low: 90, High: 90}}},
		},
	}
}

// An element is an SVG element, with what the tests check.
type element struct {
	name string
	attr map[string]string
	text string
}

func parse(t *testing.T, svg string) []element {
	t.Helper()
	var all []element
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			all = append(all, e)
		case xml.CharData:
			all[len(all)-1].text += string(token)
		}
	}
}

func number(t *testing.T, e element, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[name], 64)
	if err != nil {
		t.Fatalf("%+v has no number %s", e, name)
	}
	return v
}

func texts(all []element) []string {
	var s []string
	for _, e := range all {
		if e.name == "text" {
			s = append(s, strings.TrimSpace(e.text))
		}
	}
	return s
}

func TestAllIsSaid(t *testing.T) {
	for _, log := range []bool{true, false} {
		for _, dark := range []bool{true, false} {
			all := parse(t, example(log).SVG(dark))
			found := texts(all)
			for _, want := range []string{"Pairs a second & <more>", "64 goroutines", "1 goroutine", "ours", "theirs", "200!", "20!", "no etcd here", "goal: 100!"} {
				if !slices.Contains(found, want) {
					t.Errorf("log %v, dark %v: no text %q, only %q", log, dark, want, found)
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
}

// A value ten times as large is a constant distance away on a logarithmic axis, and has
// a bar ten times as long on a linear one.
func TestPlaces(t *testing.T) {
	var dots, bars []float64
	for _, e := range parse(t, example(true).SVG(false)) {
		if e.name == "circle" {
			dots = append(dots, number(t, e, "cx"))
		}
	}
	for _, e := range parse(t, example(false).SVG(false)) {
		if e.name == "rect" {
			bars = append(bars, number(t, e, "width"))
		}
	}
	if len(dots) != 3 || dots[1] >= dots[2] || dots[2] >= dots[0] {
		t.Errorf("dots at %v", dots)
	}
	if len(bars) != 3 || math.Abs(bars[0]/bars[1]-10) > 0.1 {
		t.Errorf("bars of %v", bars)
	}
}

func TestThemesDiffer(t *testing.T) {
	c := example(true)
	light, dark := c.SVG(false), c.SVG(true)
	for _, e := range parse(t, light) {
		if fill := e.attr["fill"]; fill != "" && strings.Contains(dark, fill+`"`) && fill != "#9198a1" {
			t.Errorf("%s is in both", fill)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, test := range []struct {
		log       bool
		low, high float64
		want      []float64
	}{
		{true, 10, 10_000, []float64{10, 100, 1000, 10_000}},
		{false, 0, 1, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{false, 0, 51, []float64{0, 10, 20, 30, 40, 50}},
		{false, 0, 7, []float64{0, 2, 4, 6}},
	} {
		got := Chart{Log: test.log}.ticks(test.low, test.high)
		if len(got) != len(test.want) {
			t.Errorf("%+v: %v", test, got)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-test.want[i]) > 1e-9*test.high {
				t.Errorf("%+v: %v", test, got)
			}
		}
	}
}

func TestNothingToDraw(t *testing.T) {
	for _, c := range []Chart{
		{Title: "empty", Format: format, Log: true},
		{Title: "all missing", Format: format, Panels: []Panel{{Title: "p", Rows: []Row{{Label: "a", Missing: "no"}}}}},
		{Title: "zero", Format: format, Panels: []Panel{{Title: "p", Rows: []Row{{Label: "a"}}}}},
		{Title: "from zero", Format: format, Log: true, Panels: []Panel{{Title: "p", Rows: []Row{{Label: "a", Value: 5, High: 10}}}}},
		{Title: "one", Format: format, Log: true, Panels: []Panel{{Title: "p", Rows: []Row{{Label: "a", Value: 10, Low: 10, High: 10}}}}},
	} {
		if svg := c.SVG(false); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: %s", c.Title, svg)
		} else {
			parse(t, svg)
		}
	}
}
