package prioritize

import "time"

// nextPause returns how long to pause after try number try has failed, elapsed after the
// first one began, or false to give up. random is in [0, 1).
func (c *config) nextPause(try int, elapsed time.Duration, random float64) (pause time.Duration, ok bool) {
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

// backoff returns pause number n, counted from 0: first doubled n times, at most
// longest, less a random part of up to a half.
func backoff(n int, first, longest time.Duration, random float64) time.Duration {
	d := first
	for ; n > 0 && d < longest; n-- {
		d *= 2
		if d <= 0 { // overflow
			d = longest
		}
	}
	d = min(d, longest)
	return d - time.Duration(random*float64(d/2))
}
