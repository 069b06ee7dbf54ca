package engine

import "time"

// A lease is valid by the database's clock, and its holder by its own must stop earlier.
// Only durations are compared between the two, so it does not matter what time either
// clock shows. A renewal is valid for TTL from the moment when the database runs it, which
// is after it was sent. So the holder trusts it from the moment before it was sent, and
// for less than TTL: the margin is for clocks that run at different rates, and for the
// time that holders need to stop.

// margin returns how much earlier than the database the holder of a lease gives it up.
func (c *LeaseConfig) margin() time.Duration {
	return max(c.TTL/10, min(time.Second, c.TTL/3))
}

// A moment is a point in time by two clocks. Go's monotonic clock may stop while the
// machine sleeps, and the wall clock may be set.
type moment struct {
	monotonic time.Time
	wall      time.Time
}

// now returns the current moment.
func now() moment {
	t := time.Now()
	return moment{monotonic: t, wall: t.Round(0)}
}

// since returns the time that has passed since earlier, by the clock that shows more. A
// wall clock that was set forward only costs a lease.
func (m moment) since(earlier moment) time.Duration {
	return max(m.monotonic.Sub(earlier.monotonic), m.wall.Sub(earlier.wall))
}
