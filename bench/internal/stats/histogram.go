package stats

import (
	"math/bits"
	"time"
)

// A Histogram counts durations, exactly below 16 ns and else within 1 part in 16,
// and knows the longest one exactly. Its zero value is empty. It is not safe for
// use by several goroutines: each has one of its own, and they are merged.
type Histogram struct {
	Counts  []uint64      // by bucket, as many as are needed
	N       uint64        // how many durations
	Longest time.Duration // the longest of them
}

// subBits is how many bits of a duration tell its bucket, below the highest one.
const subBits = 4

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 1<<subBits {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - subBits
	return (shift+1)<<subBits + int(n>>shift) - 1<<subBits
}

// middleOf is the duration in the middle of a bucket.
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

// Merge adds what another one counted.
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

// Quantile is the q-quantile, such as 0.99, and 0 of none.
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
