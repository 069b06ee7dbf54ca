package pglock

import (
	"fmt"
	"time"
)

// An Option changes how a lock is taken. The same options work for advisory locks and
// table locks; a function that does not support an option returns an error and takes no
// lock.
type Option struct {
	name  string // as written in the call, for errors
	apply func(*request) error
	needs capability
}

// capability is a set of capabilities of a function, which options require.
type capability uint8

const (
	canShare  capability = 1 << iota // has a shared form
	canSkip                          // runs a function, which can be skipped
	canWait                          // may wait
	hasTables                        // locks tables
)

// request is the combined effect of the options of one call.
type request struct {
	shared bool
	skip   bool
	noWait bool
	wait   time.Duration // 0 means that only ctx limits the wait

	// For tables only.
	tableMode Mode // 0 is the default
	only      bool
}

// Shared takes the lock in shared mode: any number of sessions may hold it in this mode
// at the same time, but not while another holds it exclusively.
func Shared() Option {
	return Option{"Shared()", func(r *request) error { r.shared = true; return nil }, canShare}
}

// NoWait makes the call fail with [ErrNotAcquired] if another session holds the lock,
// without waiting for it. Connecting and the reply may still take time; a [Locker] allows
// five seconds for them, and then returns [ErrUnavailable].
func NoWait() Option {
	return Option{"NoWait()", func(r *request) error { r.noWait = true; return nil }, canWait}
}

// Wait limits the whole call to d, which must be positive. Use [NoWait] not to wait at
// all, and neither option to wait until ctx is done. After d, the error is
// [ErrNotAcquired] if another session holds the lock. In a [Locker], d includes
// connecting, and the error is [ErrUnavailable] if no server replied within d. In the
// caller's transaction, Postgres measures d, and ctx limits the communication with it.
func Wait(d time.Duration) Option {
	return Option{fmt.Sprintf("Wait(%v)", d), func(r *request) error {
		if d <= 0 {
			return fmt.Errorf("must be greater than 0: use NoWait() not to wait at all, or neither to wait until ctx is done")
		}
		r.wait = d
		return nil
	}, canWait}
}

// SkipIfHeld makes a function such as Do or Wrap skip the work and return nil if another
// session holds the lock.
func SkipIfHeld() Option {
	return Option{"SkipIfHeld()", func(r *request) error { r.skip = true; return nil }, canSkip}
}

// In takes a table lock in the given mode instead of [AccessExclusive].
func In(mode Mode) Option {
	return Option{fmt.Sprintf("In(%v)", mode), func(r *request) error {
		if !mode.Valid() {
			return fmt.Errorf("not a lock mode: the modes are %s", modeList())
		}
		if r.tableMode != 0 && r.tableMode != mode {
			return fmt.Errorf("conflicts with In(%v)", r.tableMode)
		}
		r.tableMode = mode
		return nil
	}, hasTables}
}

// Only locks the named tables without their partitions and inheritance children, as ONLY
// does in SQL. On a partitioned table it locks little, since the partitions hold the
// rows.
func Only() Option {
	return Option{"Only()", func(r *request) error { r.only = true; return nil }, hasTables}
}

// newRequest combines the options of a call to a function with the given capabilities.
func newRequest(op string, can capability, opts []Option) (request, error) {
	if len(opts) == 0 {
		return request{}, nil // the common case, without an allocation
	}
	var r request
	for _, opt := range opts {
		if opt.apply == nil {
			return r, fmt.Errorf("pglock: %s: empty Option: use Wait, NoWait or Shared", op)
		}
		if opt.needs&can == 0 {
			return r, fmt.Errorf("pglock: %s: option %s is not supported here", op, opt.name)
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
