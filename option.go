package pglock

import (
	"fmt"
	"time"
)

// An Option says how a lock is taken. There is one small set of them for
// advisory locks and for table locks; a verb for which an option means nothing
// returns an error that says so, and takes no lock.
type Option struct {
	name  string // as the caller wrote it, for errors
	apply func(*request) error
	needs verb
}

// verb is a set of what a verb can do, for options to ask for.
type verb uint8

const (
	canShare  verb = 1 << iota // has a shared form
	canSkip                    // has work of the caller's to skip
	canWait                    // may wait
	hasTables                  // locks tables
)

// request is what the options of one call add up to.
type request struct {
	shared bool
	skip   bool
	noWait bool
	wait   time.Duration // 0 is no limit but ctx

	// Of tables alone.
	tableMode Mode // 0 is the default
	only      bool
}

// Shared takes the lock in shared mode: any number may hold it shared at the
// same time, and nobody exclusively meanwhile.
func Shared() Option {
	return Option{"Shared()", func(r *request) error { r.shared = true; return nil }, canShare}
}

// NoWait gives up with [ErrNotAcquired] if another session holds the lock, without waiting
// for it. Connecting and asking may still take a while; a [Locker] gives them five
// seconds, and then returns [ErrUnavailable].
func NoWait() Option {
	return Option{"NoWait()", func(r *request) error { r.noWait = true; return nil }, canWait}
}

// Wait bounds the whole call by d, which must be positive: use [NoWait] not to wait at
// all, and neither option to wait as long as ctx lasts. When d is over, the error is
// [ErrNotAcquired] if another session holds the lock. In a [Locker], which connects by
// itself, d includes connecting, and the error is [ErrUnavailable] if no server said
// within d whether the lock is held. In a transaction of the caller's, Postgres measures
// d, and ctx bounds the talking to it.
func Wait(d time.Duration) Option {
	return Option{fmt.Sprintf("Wait(%v)", d), func(r *request) error {
		if d <= 0 {
			return fmt.Errorf("must be longer than 0: use NoWait() not to wait at all, or neither to wait as long as ctx lasts")
		}
		r.wait = d
		return nil
	}, canWait}
}

// SkipIfHeld makes not getting the lock no error: the work is skipped, and the
// verb returns nil. It is for verbs that run a function: Do, Wrap and their kin.
func SkipIfHeld() Option {
	return Option{"SkipIfHeld()", func(r *request) error { r.skip = true; return nil }, canSkip}
}

// In takes a table lock in the given mode, in place of [AccessExclusive].
func In(mode Mode) Option {
	return Option{fmt.Sprintf("In(%v)", mode), func(r *request) error {
		if !mode.Valid() {
			return fmt.Errorf("no such mode: the modes are %s", modeList())
		}
		if r.tableMode != 0 && r.tableMode != mode {
			return fmt.Errorf("a lock has one mode, and %v is given, too", r.tableMode)
		}
		r.tableMode = mode
		return nil
	}, hasTables}
}

// Only locks the named tables and not their partitions, nor the tables that
// inherit from them: ONLY in SQL. Of a partitioned table that is next to nothing.
func Only() Option {
	return Option{"Only()", func(r *request) error { r.only = true; return nil }, hasTables}
}

// newRequest adds the options up for a verb that can do what can says.
func newRequest(op string, can verb, opts []Option) (request, error) {
	if len(opts) == 0 {
		return request{}, nil // which most are, and they need not allocate
	}
	var r request
	for _, opt := range opts {
		if opt.apply == nil {
			return r, fmt.Errorf("pglock: %s: an empty Option: make one with Wait, NoWait or Shared", op)
		}
		if opt.needs&can == 0 {
			return r, fmt.Errorf("pglock: %s: the option %s means nothing here", op, opt.name)
		}
		if err := opt.apply(&r); err != nil {
			return r, fmt.Errorf("pglock: %s: %s: %w", op, opt.name, err)
		}
	}
	if r.noWait && r.wait > 0 {
		return r, fmt.Errorf("pglock: %s: NoWait() and Wait(%v) contradict each other", op, r.wait)
	}
	return r, nil
}
