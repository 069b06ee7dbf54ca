package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// formatValue formats a value for people, with at most three significant digits.
func formatValue(v float64, unit string) string {
	if math.IsNaN(v) || v == unknown {
		return "unknown"
	}
	switch unit {
	case "/s":
		return formatNumber(v)
	case "s":
		return formatDuration(v)
	case "B":
		switch {
		case math.Abs(v) < 1e4:
			return formatNumber(v) + " B"
		case math.Abs(v) < 1e7:
			return formatNumber(v/1e3) + " kB"
		}
		return formatNumber(v/1e6) + " MB"
	case "ratio":
		return strconv.FormatFloat(v, 'f', 2, 64)
	case "count":
		return thousands(int(math.Round(v)))
	case "%":
		return threeDigits(v) + " %"
	}
	return formatNumber(v) + unit
}

func formatNumber(v float64) string {
	if math.Abs(v) < 999.5 {
		return threeDigits(v)
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	return thousands(int(math.Round(math.Round(v/magnitude) * magnitude)))
}

// threeDigits formats a number below 1,000.
func threeDigits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95 || v == math.Trunc(v) && a >= 1:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.0005:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return "0"
}

func formatDuration(seconds float64) string {
	if seconds == 0 {
		return "0"
	}
	sign := ""
	if seconds < 0 {
		sign, seconds = "−", -seconds
	}
	for _, u := range []struct {
		name string
		size float64
	}{{"s", 1}, {"ms", 1e-3}, {"µs", 1e-6}} {
		if seconds >= 0.9995*u.size {
			return sign + threeDigits(seconds/u.size) + " " + u.name
		}
	}
	return sign + threeDigits(seconds*1e9) + " ns"
}

// thousands formats an integer with commas.
func thousands(n int) string {
	if n < 0 {
		return "−" + thousands(-n)
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// formatSummary formats the median, and the range if there is one.
func formatSummary(s stats.Summary, unit string) string {
	median := formatValue(s.Median, unit)
	low, high := formatValue(s.Min, unit), formatValue(s.Max, unit)
	if s.N < 2 || low == high {
		return median
	}
	// Name the unit once.
	if a, b, ok := strings.Cut(low, " "); ok && strings.HasSuffix(high, " "+b) {
		low = a
	}
	return fmt.Sprintf("%s (%s–%s)", median, low, high)
}

// formatTimes formats a ratio, such as 4.8×.
func formatTimes(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return ""
	case v >= 100:
		return formatNumber(v) + "×"
	case v >= 9.95:
		return strconv.FormatFloat(v, 'f', 0, 64) + "×"
	case v >= 1.95:
		return strconv.FormatFloat(v, 'f', 1, 64) + "×"
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + "×"
}

func formatTook(d time.Duration) string { return d.Round(time.Second).String() }
