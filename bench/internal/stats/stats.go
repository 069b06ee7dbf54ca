// Package stats has the few statistics that the benchmarks need: the median and
// the range of repeated measurements, ratios of measurements that were taken in
// the same round, and a histogram of durations.
package stats

import (
	"math"
	"slices"
)

// A Summary is what repeated measurements come to.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summarize returns the summary of values; of none, that of NaN.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{0, math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Summary{len(sorted), Quantile(sorted, 0.5), sorted[0], sorted[len(sorted)-1]}
}

// Median is the median of values, in any order.
func Median(values []float64) float64 { return Summarize(values).Median }

// Quantile is the q-quantile of sorted values, in between two of them where it
// falls between two.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}

// Ratio summarizes a[i]/b[i]. What was measured in the same round was measured
// under the same circumstances, so the ratios differ less than their parts.
func Ratio(a, b []float64) Summary {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Summarize(ratios)
}
