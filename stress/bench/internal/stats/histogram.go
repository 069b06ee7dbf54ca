package stats

import (
	"math/bits"
	"time"
)

// A Histogram counts durations. It is exact below 16 ns and otherwise has a relative
// error of at most 1/16, except for the longest duration, which is exact. The zero value
// is empty. A Histogram must not be used by several goroutines at once: use one for each
// and merge them.
type Histogram struct {
	Counts  []uint64      // by bucket, no longer than needed
	N       uint64        // number of durations
	Longest time.Duration // the longest of them
}

// subBits is the number of bits below the highest one that select the bucket of a
// duration.
const subBits = 4

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 1<<subBits {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - subBits
	return (shift+1)<<subBits + int(n>>shift) - 1<<subBits
}

// middleOf returns the duration in the middle of a bucket.
func middleOf(bucket int) time.Duration {
	if bucket < 1<<subBits {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	low := uint64(1<<subBits+bucket&(1<<subBits-1)) << shift
	return time.Duration(low + uint64(1)<<shift/2)
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	b := bucketOf(d)
	if b >= len(h.Counts) {
		h.Counts = append(h.Counts, make([]uint64, b+1-len(h.Counts))...)
	}
	h.Counts[b]++
	h.N++
	h.Longest = max(h.Longest, d)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(other *Histogram) {
	if n := len(other.Counts) - len(h.Counts); n > 0 {
		h.Counts = append(h.Counts, make([]uint64, n)...)
	}
	for i, n := range other.Counts {
		h.Counts[i] += n
	}
	h.N += other.N
	h.Longest = max(h.Longest, other.Longest)
}

// Quantile returns the q-quantile, for example for q = 0.99, or 0 if h is empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.N == 0 {
		return 0
	}
	rank := uint64(q * float64(h.N-1))
	var seen uint64
	for b, n := range h.Counts {
		seen += n
		if seen > rank {
			return min(middleOf(b), h.Longest)
		}
	}
	return h.Longest
}
