package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/internal/engine"

	"github.com/pglock-go/pglock/driver"
)

// A Locker takes advisory locks for one process, in one database. It owns a few Postgres
// sessions, opens them on demand, and takes any number of locks on them. It is safe for
// concurrent use; most programs need only one.
//
// A lock belongs to its handle, or to the function run by [Locker.Do]. Another request
// for it in the same process waits as one from another machine does, even in the same
// goroutine: locks are not reentrant.
type Locker struct {
	engine *engine.Engine
	schema string // of the tables, if it takes leases
}

// New returns a Locker that opens its sessions through db: see pgxlock.Pool,
// pgxlock.ConnString and sqllock.DB. It does not connect until the first lock is
// requested. It returns an error if an option is invalid.
func New(db driver.Source, opts ...LockerOption) (*Locker, error) {
	if db == nil {
		return nil, errors.New("pglock: new: nil Source")
	}
	config, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	config.Open = func(ctx context.Context) (engine.Conn, error) {
		s, err := db.Open(ctx)
		if err != nil {
			return nil, err // not a non-nil interface around a nil session
		}
		return s, nil
	}
	l := &Locker{engine: engine.New(config)}
	if config.Lease != nil {
		l.schema = config.Lease.Schema
	}
	return l, nil
}

// Lock waits for the lock of key and returns its handle. It waits until ctx is done,
// unless [Wait] or [NoWait] is given, and the lock is exclusive unless [Shared] is given.
// ctx bounds only the wait; the lock stays held after ctx ends.
//
// The error is an [*Error] that wraps one of these: [ErrNotAcquired] if another session
// holds the lock, with ctx's error if ctx ended the wait; [ErrUnavailable] if Postgres
// did not answer, for example because no session could be opened in time, also with ctx's
// error; [ErrClosed]; [ErrPooler]; [ErrStandby]; [ErrNoAdvisoryLocks];
// [ErrLockTableFull]; [ErrDeadlock].
//
// After any error the caller holds nothing. If the server does not reply, Lock returns
// within a second of giving up. The Locker then undoes the request when the reply
// arrives, or closes the session.
func (l *Locker) Lock(ctx context.Context, key Key, opts ...LockOption) (*Lock, error) {
	const op = "lock"
	r, err := newRequest(op, opts)
	if err != nil {
		return nil, err
	}
	hold, err := l.acquire(ctx, op, key, r)
	if err != nil {
		return nil, err
	}
	h, err := l.withToken(ctx, oneLock{hold}, r)
	if err != nil {
		return nil, newError(op, []Key{key}, err)
	}
	return l.newLock(h, key), nil
}

// TryLock is like [Locker.Lock] with [NoWait], but takes one round trip once a session is
// open, and its error does not list the holders.
func (l *Locker) TryLock(ctx context.Context, key Key, opts ...TryOption) (*Lock, error) {
	const op = "try lock"
	r, err := newRequest(op, opts)
	if err != nil {
		return nil, err
	}
	if err := l.check(op, r); err != nil {
		return nil, err
	}
	r.noWait = true
	hold, err := l.engine.Acquire(ctx, l.engineKey(key), r.mode(), r.limit())
	if err != nil {
		return nil, newError(op, []Key{key}, err)
	}
	return l.newLock(oneLock{hold}, key), nil
}

// Do takes the lock of key as [Locker.Lock] does, runs fn, and unlocks, even if fn panics
// or calls runtime.Goexit. The ctx passed to fn is canceled with [ErrLost] as
// context.Cause if the lock is lost: fn must stop then, since another session may hold
// the lock. [Locker.Close] cancels it too, with [ErrClosed].
//
// Do returns fn's error. The error also matches [ErrLost] if the lock was lost while fn
// ran, or [ErrUnconfirmed] if only the unlocking failed. If the lock is not acquired, fn
// is not run and Do returns the reason; with [SkipIfHeld] it does not wait, and returns nil if
// the reason is that another session holds the lock.
func (l *Locker) Do(ctx context.Context, key Key, fn func(context.Context) error, opts ...DoOption) error {
	const op = "do"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	hold, err := l.acquire(ctx, op, key, r)
	if err != nil {
		return r.orSkip(ctx, err)
	}
	if r.every > 0 {
		fn = dueAfterError(hold, fn)
	}
	h, err := l.withToken(ctx, oneLock{hold}, r)
	if err != nil {
		return newError(op, []Key{key}, err)
	}
	return l.run(ctx, op, h, fn, key)
}

// orSkip returns nil if SkipIfHeld was given and another session holds the lock. A done
// ctx is still an error.
func (r request) orSkip(ctx context.Context, err error) error {
	if r.skip && errors.Is(err, ErrNotAcquired) && ctx.Err() == nil {
		return nil
	}
	return err
}

// run calls fn while h, the locks of keys, is held, and releases h.
func (l *Locker) run(ctx context.Context, op string, h held, fn func(context.Context) error, keys ...Key) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h.OnLoss(func(err error) { cancel(err) })
	defer func() {
		if unlockErr := h.Release(); unlockErr != nil {
			err = errors.Join(err, newError(op, keys, unlockErr))
		}
	}()
	return fn(&lockContext{Lock{engine: l.engine, held: h, key: keys[0], keys: keys, schema: l.schema}, ctx})
}

// A lockContext is the ctx of a function that runs while a lock is held.
type lockContext struct {
	lock Lock // first, as runtime.SetFinalizer demands in Unlock
	context.Context
}

// lockContextKey is the key of the lock in a lockContext.
type lockContextKey struct{}

func (c *lockContext) Value(key any) any {
	if key == (lockContextKey{}) {
		return &c.lock
	}
	return c.Context.Value(key)
}

// LockFrom returns the lock that [Locker.Do], [Locker.DoAll] or [Locker.Lead] holds while the
// function runs that got ctx, or a ctx made from it: the innermost if there are several, and
// nil if there is none. It is for [Fence] and [Lock.Token]. Do unlocks it; if the function does,
// Do returns [ErrNotHeld].
func LockFrom(ctx context.Context) *Lock {
	lock, _ := ctx.Value(lockContextKey{}).(*Lock)
	return lock
}

// releaseTimeout is how long a caller that returns without a lock waits for its release.
const releaseTimeout = time.Second

// releaseSoon releases a lock that no caller gets. If the server does not reply, the release
// goes on without the caller, and the engine ends it.
func releaseSoon(h interface{ Release() error }) {
	released := make(chan struct{})
	go func() {
		defer close(released)
		_ = h.Release()
	}()
	timer := time.NewTimer(releaseTimeout)
	defer timer.Stop()
	select {
	case <-released:
	case <-timer.C:
	}
}

// Close closes the Locker. It rejects new requests with [ErrClosed], cancels waiting
// ones, and cancels the ctx of functions run by [Locker.Do]. It waits up to five seconds
// for the held locks to be unlocked, then closes the sessions. Any lock still held is
// then lost, and its handle reports that. The error contains how many were lost.
//
// It is safe for concurrent use, and may be called more than once. It must not be called
// from a function that Do runs.
func (l *Locker) Close() error {
	if lost := l.engine.Close(); lost > 0 {
		return fmt.Errorf("pglock: close: %d locks were still held: %w", lost, ErrLost)
	}
	return nil
}

// Stats returns the current numbers of sessions and locks, and the totals of all requests
// so far.
func (l *Locker) Stats() Stats { return Stats(l.engine.Stats()) }

// Stats holds the counts of a [Locker]. The first three are current values, the others
// are totals since New.
type Stats struct {
	Sessions int // sessions open or being opened
	Held     int // locks held
	Waiting  int // requests waiting for a lock

	Acquired   uint64 // locks granted
	Refused    uint64 // requests that failed
	Lost       uint64 // locks lost with their session
	Dropped    uint64 // locks still held whose handle was dropped without Unlock
	HandOvers  uint64 // locks handed from one holder to the next without a statement
	RoundTrips uint64 // statements run
}

// limit returns how long the engine may take, and the terms of a lease.
func (r request) limit() engine.Wait {
	limit := engine.Wait{No: r.noWait, For: r.wait, Terms: engine.LeaseTerms{Every: r.every, Note: r.note}}
	if r.noWait && r.wait == 0 {
		limit.For = noWaitTimeout
	}
	return limit
}

// acquire takes the lock, or returns an error that lists its holders.
func (l *Locker) acquire(ctx context.Context, op string, key Key, r request) (*engine.Hold, error) {
	if err := l.check(op, r); err != nil {
		return nil, err
	}
	began, limit := time.Now(), r.limit()
	deadline, limited := ctx.Deadline()
	if limit.For > 0 && (!limited || began.Add(limit.For).Before(deadline)) {
		deadline, limited = began.Add(limit.For), true
	}
	// Querying the holders takes part of the time limit. If any time is left after it,
	// the request continues until the limit.
	first := limit
	listHolders := limited && !r.skip && !r.noWait
	if listHolders {
		total := deadline.Sub(began)
		first.For, first.Part = max(total-min(total/4, holdersReserve), time.Nanosecond), true
	}
	hold, err := l.take(ctx, key, r, first)
	var holders []Holder
	if errors.Is(err, ErrNotAcquired) && !r.skip && ctx.Err() == nil {
		holdersCtx, cancel := ctx, context.CancelFunc(func() {})
		if listHolders {
			holdersCtx, cancel = context.WithDeadline(ctx, deadline)
		}
		holders, _ = l.holders(holdersCtx, key, r) // an error about the lock matters more than its holders
		cancel()
	}
	if listHolders && ctx.Err() == nil && (errors.Is(err, ErrNotAcquired) || errors.Is(err, ErrUnavailable)) {
		if limit.For > 0 {
			limit.For = max(time.Until(began.Add(limit.For)), time.Nanosecond)
		}
		first := err
		hold, err = l.take(ctx, key, r, limit)
		if errors.Is(first, ErrNotAcquired) && errors.Is(err, ErrUnavailable) {
			err = first // Postgres replied so to the first request
		}
	}
	if err == nil {
		return hold, nil
	}
	if err == ErrNotAcquired && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrNotAcquired, ctx.Err())
	}
	e := newError(op, []Key{key}, err)
	e.Holders = holders
	return nil, e
}

// holdersReserve limits how much of a wait is spent on querying the holders.
const holdersReserve = 200 * time.Millisecond

// noWaitTimeout bounds connecting and the reply if the call does not wait for the lock.
const noWaitTimeout = 5 * time.Second

// holdersTimeout bounds the query for the holders of a lock.
const holdersTimeout = 2 * time.Second

// take requests the lock, or one of its slots, from the engine.
func (l *Locker) take(ctx context.Context, key Key, r request, limit engine.Wait) (*engine.Hold, error) {
	if r.slots > 0 {
		return l.takeSlot(ctx, key, r.slots, limit)
	}
	return l.engine.Acquire(ctx, l.engineKey(key), r.mode(), limit)
}

// holders queries the sessions for which the lock, or each of its slots, was not acquired.
func (l *Locker) holders(ctx context.Context, key Key, r request) ([]Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, holdersTimeout)
	defer cancel()
	switch {
	case r.slots > 0:
		return l.slotHolders(ctx, key, r.slots)
	case l.schema != "":
		rows, err := l.leaseHolders(ctx, []Key{key})
		rows = slices.DeleteFunc(rows, func(row holderRow) bool { return row.Slot != 0 })
		return holdersOf(rows), err
	}
	reply, err := l.engine.Query(ctx, holdersSQL, holdersArgs([]Key{key}, r.shared)...)
	if err != nil {
		return nil, err
	}
	return readHolders(reply)
}

func (r request) mode() engine.Mode {
	if r.shared {
		return engine.Shared
	}
	return engine.Exclusive
}

// engineKey returns the key of the advisory lock or of the lease.
func (l *Locker) engineKey(k Key) engine.Key {
	if l.schema != "" {
		return engine.Key{Name: k.LeaseName()}
	}
	return engine.Key{ID: k.id, Pair: k.pair}
}

// check returns an error if the Locker does not support an option of the call.
func (l *Locker) check(op string, r request) error {
	switch {
	case l.schema != "" && r.shared:
		return fmt.Errorf("pglock: %s: Shared() is not possible with Leases(): there are no shared leases", op)
	case l.schema == "" && r.leaseOnly != "":
		return fmt.Errorf("pglock: %s: %s is only for leases: give New the option Leases()", op, r.leaseOnly)
	}
	return nil
}

// newError wraps an error from the engine in an *Error.
func newError(op string, keys []Key, err error) *Error {
	e := &Error{Op: op, Keys: keys, Err: err}
	if kind := kindOf(err); kind != nil && !errors.Is(err, kind) {
		e.Kind = kind
	}
	if due := new(engine.NotDueError); errors.As(err, &due) {
		e.Due = due.Due
	}
	return e
}
