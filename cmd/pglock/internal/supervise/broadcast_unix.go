//go:build unix

package supervise

import (
	"slices"
	"syscall"
	"time"
)

// Some senders signal one process, pglock, and it is up to pglock to pass the signal
// on: docker stop, the kubelet, kill(1). Others signal every process there is: systemd
// stops a unit so, and CI servers a job. Then the command has the signal already, and
// the guard has it too. A broadcast tells the two apart by just that: a signal that
// reaches both the program and the guard is not passed on.

const (
	// passAfter is how long a signal from the program waits for the guard's own: a
	// sender of many signals goes from process to process.
	passAfter = 200 * time.Millisecond

	// matchWithin is how long the guard remembers a signal of its own. It is longer,
	// for the program may have to get the CPU first.
	matchWithin = 2 * time.Second
)

// An arrival is a signal and when it came.
type arrival struct {
	signal syscall.Signal
	at     time.Time
}

// A broadcast decides which signals from the program are passed on to the command.
// Each signal cancels out one other, so two that were sent count as two. The zero
// value is ready for use.
type broadcast struct {
	own  []arrival // signals that the guard got itself and the program did not pass on
	held []arrival // signals from the program, to be passed on unless the guard gets them too
}

// reached notes a signal that the guard got itself.
func (b *broadcast) reached(sig syscall.Signal, now time.Time) {
	if !take(&b.held, sig) {
		b.expire(now)
		b.own = append(b.own, arrival{sig, now})
	}
}

// pass notes a signal that the program passes on.
func (b *broadcast) pass(sig syscall.Signal, now time.Time) {
	b.expire(now)
	if !take(&b.own, sig) {
		b.held = append(b.held, arrival{sig, now})
	}
}

// expire forgets the guard's own signals that are too old to match.
func (b *broadcast) expire(now time.Time) {
	b.own = slices.DeleteFunc(b.own, func(a arrival) bool { return now.Sub(a.at) > matchWithin })
}

// due removes and returns the signals that have waited long enough, in their order.
func (b *broadcast) due(now time.Time) []syscall.Signal {
	var due []syscall.Signal
	for len(b.held) > 0 && now.Sub(b.held[0].at) >= passAfter {
		due = append(due, b.held[0].signal)
		b.held = b.held[1:]
	}
	return due
}

// next returns when due has something, and false if nothing waits.
func (b *broadcast) next() (time.Time, bool) {
	if len(b.held) == 0 {
		return time.Time{}, false
	}
	return b.held[0].at.Add(passAfter), true
}

// take removes the oldest arrival of sig, and reports whether there was one.
func take(from *[]arrival, sig syscall.Signal) bool {
	i := slices.IndexFunc(*from, func(a arrival) bool { return a.signal == sig })
	if i < 0 {
		return false
	}
	*from = slices.Delete(*from, i, i+1)
	return true
}
