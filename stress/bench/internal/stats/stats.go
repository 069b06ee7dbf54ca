// Package stats computes the few statistics that the benchmarks need: the median and
// the range of repeated measurements, ratios of measurements of the same round, and a
// histogram of durations.
package stats

import (
	"math"
	"slices"
)

// A Summary summarizes repeated measurements.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summarize returns the summary of values, with NaN if there are none.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{0, math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Summary{len(sorted), Quantile(sorted, 0.5), sorted[0], sorted[len(sorted)-1]}
}

// Median returns the median of values, which may have any order.
func Median(values []float64) float64 { return Summarize(values).Median }

// Quantile returns the q-quantile of sorted values, and interpolates between two of
// them.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}

// Ratio summarizes a[i]/b[i]. Measurements of the same round had the same conditions,
// so the ratios vary less than a and b.
func Ratio(a, b []float64) Summary {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Summarize(ratios)
}
