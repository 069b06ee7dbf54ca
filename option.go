package pglock

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A LockOption configures [Locker.Lock], [Locker.LockAll] and [Locker.Lead]. The options are
// [Shared], [Wait], [NoWait], [Slots], [Fenced] and [Note], which are also options of Do.
type LockOption interface {
	DoOption
	forLock()
}

// A TryOption configures [Locker.TryLock] and [TryLockTx]. The only one is [Shared], which
// is also an option of all other functions that take advisory locks.
type TryOption interface {
	TxOption
	forTry()
}

// A DoOption configures [Locker.Do] and [Locker.DoAll]. The options are [Shared], [Wait],
// [NoWait], [SkipIfHeld], [Slots], [Fenced], [Every] and [Note].
type DoOption interface {
	option
	forDo()
}

// A TxOption configures [LockTx] and [LockAllTx]. The options are [Shared], [Wait] and
// [NoWait], which are also options of DoTx and of Lock.
type TxOption interface {
	LockOption
	DoTxOption
	forTx()
}

// A DoTxOption configures [DoTx]. The options are [Shared], [Wait], [NoWait] and [SkipIfHeld],
// which are also options of Do.
type DoTxOption interface {
	DoOption
	forDoTx()
}

// A TableOption configures [LockTables]. The options are [In], [Only], [Wait] and
// [NoWait], which are also options of DoTables.
type TableOption interface {
	DoTableOption
	forTables()
}

// A DoTableOption configures [DoTables]. The options are [In], [Only], [Wait], [NoWait] and
// [SkipIfHeld].
type DoTableOption interface {
	option
	forDoTables()
}

// option is any option.
type option interface{ apply(*request) error }

// anyOption is the only implementation of options. The result types of the functions that
// make options determine which calls accept them.
type anyOption struct {
	name string // as written in the call, for errors
	set  func(*request) error
}

func (o anyOption) apply(r *request) error {
	if err := o.set(r); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	return nil
}

func (anyOption) forLock()     {}
func (anyOption) forTry()      {}
func (anyOption) forDo()       {}
func (anyOption) forTx()       {}
func (anyOption) forDoTx()     {}
func (anyOption) forTables()   {}
func (anyOption) forDoTables() {}

// request is the combined effect of the options of one call.
type request struct {
	shared bool
	skip   bool
	noWait bool
	wait   time.Duration // 0 means that only ctx limits the wait

	// For a Locker only.
	slots     int           // how many may hold the lock, or 0 without Slots
	every     time.Duration // 0 without Every
	note      string
	fenced    bool
	began     time.Time // when the call began, if fenced
	leaseOnly string    // an option that was given and that only leases have, or ""

	// For tables only.
	tableMode Mode // 0 is the default
	only      bool
}

// Shared takes the lock in shared mode: any number of sessions may hold it in this mode
// at the same time, but not while another holds it exclusively.
func Shared() TryOption {
	return anyOption{"Shared()", func(r *request) error { r.shared = true; return nil }}
}

// NoWait makes the call fail with [ErrNotAcquired] if another session holds the lock,
// without waiting for it. Connecting and the reply may still take time; a [Locker] allows
// five seconds for them, and then returns [ErrUnavailable].
func NoWait() interface {
	TxOption
	TableOption
} {
	return anyOption{"NoWait()", func(r *request) error { r.noWait = true; return nil }}
}

// Wait limits the whole call to d, which must be positive. Use [NoWait] not to wait at
// all, and neither option to wait until ctx is done. After d, the error is
// [ErrNotAcquired] if another session holds the lock. In a [Locker], d includes
// connecting, and the error is [ErrUnavailable] if no server replied within d. In the
// caller's transaction, Postgres measures d, and ctx limits the communication with it.
func Wait(d time.Duration) interface {
	TxOption
	TableOption
} {
	return anyOption{fmt.Sprintf("Wait(%v)", d), func(r *request) error {
		if d <= 0 {
			return fmt.Errorf("must be greater than 0: use NoWait() not to wait at all, or neither to wait until ctx is done")
		}
		r.wait = d
		return nil
	}}
}

// SkipIfHeld makes a function such as Do skip the work and return nil if another session
// holds the lock. It does not wait for the lock, unless [Wait] is given too.
func SkipIfHeld() interface {
	DoTxOption
	DoTableOption
} {
	return anyOption{"SkipIfHeld()", func(r *request) error { r.skip = true; return nil }}
}

// maxNote is the length of the longest note, in bytes.
const maxNote = 200

// Note publishes text with the lease while it is held, such as the address of the holder.
// [Holder].Note shows it, in the result of [Locker.Holders], in [Locker.Watch] and in errors.
// It may have up to 200 bytes of valid UTF-8, without zero bytes. Everybody who may read the
// table can read it. It is for [Leases] only; with advisory locks it is an error.
func Note(text string) LockOption {
	return anyOption{"Note()", func(r *request) error {
		switch {
		case len(text) > maxNote:
			return fmt.Errorf("has %d bytes: at most %d are possible", len(text), maxNote)
		case !utf8.ValidString(text):
			return errors.New("is not valid UTF-8")
		case strings.Contains(text, "\x00"):
			return errors.New("contains a zero byte")
		}
		r.note, r.leaseOnly = text, "Note()"
		return nil
	}}
}

// In takes a table lock in the given mode instead of [AccessExclusive].
func In(mode Mode) TableOption {
	return anyOption{fmt.Sprintf("In(%v)", mode), func(r *request) error {
		if !mode.valid() {
			return fmt.Errorf("not a lock mode: the modes are %s", modeList())
		}
		if r.tableMode != 0 && r.tableMode != mode {
			return fmt.Errorf("conflicts with In(%v)", r.tableMode)
		}
		r.tableMode = mode
		return nil
	}}
}

// Only locks the named tables without their partitions and inheritance children, as ONLY
// does in SQL. On a partitioned table it locks little, since the partitions hold the
// rows.
func Only() TableOption {
	return anyOption{"Only()", func(r *request) error { r.only = true; return nil }}
}

// newRequest combines the options of a call.
func newRequest[O option](op string, opts []O) (request, error) {
	if len(opts) == 0 {
		return request{}, nil // the common case, without an allocation
	}
	var r request
	for _, opt := range opts {
		if option(opt) == nil {
			return r, fmt.Errorf("pglock: %s: an option is nil", op)
		}
		if err := opt.apply(&r); err != nil {
			return r, fmt.Errorf("pglock: %s: %w", op, err)
		}
	}
	if r.noWait && r.wait > 0 {
		return r, fmt.Errorf("pglock: %s: NoWait() and Wait(%v) contradict each other", op, r.wait)
	}
	switch {
	case r.slots > 0 && r.shared:
		return r, fmt.Errorf("pglock: %s: Slots(%d) and Shared() contradict each other: a slot has one holder", op, r.slots)
	case r.slots > 0 && r.every > 0:
		return r, fmt.Errorf("pglock: %s: Slots(%d) and Every(%v) cannot be combined", op, r.slots, r.every)
	}
	if r.skip && r.wait == 0 {
		r.noWait = true
	}
	return r, nil
}
