package prioritize

import (
	"context"
	"time"
)

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

// sleep sleeps for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
