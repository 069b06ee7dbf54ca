package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Summary
	}{
		{[]float64{3}, Summary{1, 3, 3, 3}},
		{[]float64{9, 1, 5}, Summary{3, 5, 1, 9}},
		{[]float64{4, 1, 2, 9}, Summary{4, 3, 1, 9}},
	} {
		before := slices.Clone(test.values)
		if got := Summarize(test.values); got != test.want {
			t.Errorf("%v: %+v, not %+v", test.values, got, test.want)
		}
		if !slices.Equal(before, test.values) {
			t.Errorf("%v became %v", before, test.values)
		}
	}
	if got := Summarize(nil); got.N != 0 || !math.IsNaN(got.Median) {
		t.Errorf("no values: %+v", got)
	}
}

func TestQuantile(t *testing.T) {
	sorted := []float64{10, 20, 30, 40, 50}
	for q, want := range map[float64]float64{0: 10, 0.25: 20, 0.5: 30, 0.9: 46, 1: 50} {
		if got := Quantile(sorted, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: %v, not %v", q, got, want)
		}
	}
}

// Ratio divides round by round, not the medians: here the machine was slow in the second
// round, which affected both.
func TestRatio(t *testing.T) {
	got := Ratio([]float64{100, 10, 90}, []float64{50, 5, 45})
	if got != (Summary{3, 2, 2, 2}) {
		t.Errorf("%+v", got)
	}
	if got := Ratio([]float64{1, 2}, []float64{0, 1}); got.N != 1 || got.Median != 2 {
		t.Errorf("a division by zero counts: %+v", got)
	}
}

func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var all []float64
	var parts [3]Histogram
	for i := range 30_000 {
		d := time.Duration(math.Exp(r.Float64() * 20)) // 1 ns to half a second
		all = append(all, float64(d))
		parts[i%3].Add(d)
	}
	var h Histogram
	for i := range parts {
		h.Merge(&parts[i])
	}
	slices.Sort(all)
	if h.N != 30_000 || float64(h.Longest) != all[len(all)-1] {
		t.Errorf("%d durations, the longest %v", h.N, h.Longest)
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		got, want := float64(h.Quantile(q)), Quantile(all, q)
		if math.Abs(got-want) > want/16+1 {
			t.Errorf("the %v quantile is %v, not %v", q, got, want)
		}
	}
	if got := h.Quantile(1); got > h.Longest {
		t.Errorf("the longest is %v, but the last quantile %v", h.Longest, got)
	}
}

func TestEveryDurationIsInItsBucket(t *testing.T) {
	last := -1
	for shift := range 62 {
		for _, d := range []int64{1<<shift - 1, 1 << shift, 1<<shift + 1<<shift/3} {
			b := bucketOf(time.Duration(d))
			if middle := int64(middleOf(b)); math.Abs(float64(middle-d)) > float64(d)/16 {
				t.Errorf("%d is in bucket %d, whose middle is %d", d, b, middle)
			}
			if d >= 1<<shift && b < last {
				t.Errorf("bucket %d of %d comes after bucket %d", b, d, last)
			}
			last = b
		}
	}
	var h Histogram
	h.Add(-time.Second) // the clock was set back
	if h.N != 1 || h.Quantile(0.5) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Error(got)
	}
}
