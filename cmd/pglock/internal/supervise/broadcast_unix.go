//go:build unix

package supervise

import (
	"slices"
	"syscall"
	"time"
)

// Some senders signal only pglock, which must pass the signal on: docker stop, the
// kubelet, kill(1). Others signal every process: systemd when it stops a unit, and CI
// servers when they stop a job. Then the command already has the signal, and so has the
// guard. This is how a broadcast tells them apart: a signal that reaches both the program
// and the guard is not passed on.

const (
	// passAfter is how long a signal from the program is held for the guard's own
	// signal: a sender signals processes one after the other.
	passAfter = 200 * time.Millisecond

	// matchWithin is how long the guard remembers its own signal. It is longer, because
	// the program may have to wait for the CPU.
	matchWithin = 2 * time.Second
)

// An arrival is a signal and the time it arrived.
type arrival struct {
	signal syscall.Signal
	at     time.Time
}

// A broadcast decides which signals from the program are passed on to the command. A
// signal that the guard receives cancels all equal ones from the program that are held,
// because the system may have merged several for the guard, for example while it was
// stopped. If none is held, it cancels the next one. The zero value is ready for use.
type broadcast struct {
	own  []arrival // signals that the guard received, but not yet the program
	held []arrival // signals from the program, to pass on unless the guard receives them too
}

// reached records a signal that the guard received.
func (b *broadcast) reached(sig syscall.Signal, now time.Time) {
	held := len(b.held)
	b.held = slices.DeleteFunc(b.held, func(a arrival) bool { return a.signal == sig })
	if len(b.held) == held {
		b.expire(now)
		b.own = append(b.own, arrival{sig, now})
	}
}

// pass records a signal from the program.
func (b *broadcast) pass(sig syscall.Signal, now time.Time) {
	b.expire(now)
	i := slices.IndexFunc(b.own, func(a arrival) bool { return a.signal == sig })
	if i < 0 {
		b.held = append(b.held, arrival{sig, now})
		return
	}
	b.own = slices.Delete(b.own, i, i+1)
}

// expire removes the guard's own signals that are too old to match.
func (b *broadcast) expire(now time.Time) {
	b.own = slices.DeleteFunc(b.own, func(a arrival) bool { return now.Sub(a.at) > matchWithin })
}

// due removes and returns the signals that were held long enough, in order.
func (b *broadcast) due(now time.Time) []syscall.Signal {
	var due []syscall.Signal
	for len(b.held) > 0 && now.Sub(b.held[0].at) >= passAfter {
		due = append(due, b.held[0].signal)
		b.held = b.held[1:]
	}
	return due
}

// next returns when the next signal is due, and false if none is held.
func (b *broadcast) next() (time.Time, bool) {
	if len(b.held) == 0 {
		return time.Time{}, false
	}
	return b.held[0].at.Add(passAfter), true
}
