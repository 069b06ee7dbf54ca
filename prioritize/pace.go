package prioritize

import "time"

// A pace determines how soon the watcher polls again: after its interval, but sooner
// after it has acted, and less often if the server answers slowly.
//
// A single slow answer changes nothing: the faster of the last two counts. The pause
// never exceeds maxPause, so that a server that is always slow is polled in time as well.
// With a grace of 1 s, a blocker that comes while the watcher waits for an answer is
// signaled this long after its grace (TestReactionToSlowAnswers, in fake time; before
// Postgres 14, add the interval of 200 ms):
//
//	one answer of 50 ms or 500 ms    0
//	one answer of 3 s                2.2 s: when it comes the grace is over by 2 s
//	all answers take 50 ms           0.3 s
//	all answers take 500 ms          3.1 s
type pace struct {
	shortPause time.Duration // the pause if a change is expected soon, else 0
	lastPoll   time.Duration // how long the previous answer took
}

const (
	minPause    = 2 * time.Millisecond
	pauseFactor = 10 // the minimum pause, in multiples of the answer time
)

// next returns the pause after a poll that took the given time.
func (p *pace) next(interval, maxPause, took time.Duration, acted, blocked bool) time.Duration {
	typical := min(took, p.lastPoll)
	p.lastPoll = took
	switch {
	case acted:
		p.shortPause = minPause
	case !blocked || p.shortPause >= interval:
		p.shortPause = 0
	default:
		p.shortPause *= 2
	}
	if p.shortPause > 0 {
		return min(interval, max(p.shortPause, typical))
	}
	return max(interval, min(pauseFactor*typical, maxPause))
}
