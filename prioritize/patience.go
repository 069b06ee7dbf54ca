package prioritize

import "time"

// next is how long to pause after a try that failed, the try'th of all, elapsed
// after the beginning; false is to give up. random is at least 0 and less than 1.
func (c *config) next(try int, elapsed time.Duration, random float64) (pause time.Duration, ok bool) {
	if c.tries > 0 && try >= c.tries {
		return 0, false
	}
	pause = backoff(try-1, c.minBackoff, c.maxBackoff, random)
	if c.budget > 0 {
		left := c.budget - elapsed
		if left <= 0 {
			return 0, false
		}
		pause = min(pause, left)
	}
	return pause, true
}

// backoff is the n'th pause, counted from 0: the first one doubled n times, at
// most the longest, less a random part of up to a half.
func backoff(n int, first, longest time.Duration, random float64) time.Duration {
	d := first
	for ; n > 0 && d < longest; n-- {
		d *= 2
		if d <= 0 { // more than a Duration holds
			d = longest
		}
	}
	d = min(d, longest)
	return d - time.Duration(random*float64(d/2))
}
