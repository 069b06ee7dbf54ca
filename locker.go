package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// A Locker takes advisory locks for one process, in one database. It owns a few
// sessions with Postgres, opens them when they are needed, and takes any number
// of locks on them. It is safe for use by several goroutines; most programs need
// one.
//
// A lock belongs to the handle, or to the function that [Locker.Do] runs. Another
// goroutine of the same process that wants it waits like another machine's; so
// does the same goroutine: a Locker's locks cannot be taken twice.
type Locker struct {
	engine *engine.Engine
}

// New makes a Locker that gets its sessions from source: see pgxlock.Pool,
// pgxlock.ConnString and sqllock.DB. It does not connect yet: the first lock
// does. Its error names an option that makes no sense.
func New(source Source, opts ...LockerOption) (*Locker, error) {
	if source == nil {
		return nil, errors.New("pglock: new: no source of sessions")
	}
	config, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	config.Open = func(ctx context.Context) (engine.Conn, error) {
		s, err := source.Open(ctx)
		if err != nil {
			return nil, err // and no interface around a nil session
		}
		return s, nil
	}
	return &Locker{engine.New(config)}, nil
}

// Lock waits for the lock of key and returns its handle. It waits as long as ctx
// lasts, unless [Wait] or [NoWait] say otherwise, and takes the lock exclusively
// unless [Shared] is given. ctx bounds the wait alone: the lock outlives it.
//
// The error is an [*Error], and errors.Is tells which of these it is:
// [ErrNotAcquired] if Postgres said that another session holds the lock, with ctx's own
// error if ctx ended the wait; [ErrUnavailable] if nobody could say, for example because
// no session could be opened in time, also with ctx's own error; [ErrClosed];
// [ErrPooler]; [ErrStandby]; [ErrNoAdvisoryLocks]; [ErrLockTableFull]; [ErrDeadlock].
//
// After any error the caller holds nothing. What is still under way at a server that does
// not answer, Lock does not wait for longer than a second: the Locker undoes
// it when the answer comes, or closes the session.
func (l *Locker) Lock(ctx context.Context, key Key, opts ...Option) (*Lock, error) {
	const op = "lock"
	r, err := newRequest(op, canShare|canWait, opts)
	if err != nil {
		return nil, err
	}
	hold, err := l.acquire(ctx, op, key, r)
	if err != nil {
		return nil, err
	}
	return newLock(l.engine, hold, key), nil
}

// TryLock is [Locker.Lock] with [NoWait], in one round trip once there is a session: its
// error does not name the holders.
func (l *Locker) TryLock(ctx context.Context, key Key, opts ...Option) (*Lock, error) {
	const op = "try lock"
	r, err := newRequest(op, canShare, opts)
	if err != nil {
		return nil, err
	}
	r.noWait = true
	hold, err := l.engine.Acquire(ctx, key.session(), r.mode(), r.limit())
	if err != nil {
		return nil, newError(op, []Key{key}, err)
	}
	return newLock(l.engine, hold, key), nil
}

// Do takes the lock of key as [Locker.Lock] does, runs fn, and unlocks, also when
// fn panics or ends its goroutine. The ctx inside fn is cancelled the moment the
// lock is lost, with [ErrLost] as context.Cause: fn must stop then, since another
// may hold the lock. [Locker.Close] cancels it too, with [ErrClosed].
//
// Do returns fn's error, and errors.Is([ErrLost]) with it when the lock was lost
// while fn ran, or [ErrUnconfirmed] when only the unlocking went wrong. Without
// the lock, fn is not run, and Do returns why; with [SkipIfHeld] it returns nil
// if the reason is that Postgres said that another session holds the lock.
func (l *Locker) Do(ctx context.Context, key Key, fn func(context.Context) error, opts ...Option) error {
	const op = "do"
	r, err := newRequest(op, canShare|canWait|canSkip, opts)
	if err != nil {
		return err
	}
	hold, err := l.acquire(ctx, op, key, r)
	if err != nil {
		return r.orSkip(ctx, err)
	}
	return run(ctx, op, []Key{key}, hold, fn)
}

// orSkip is nil where err is no reason to fail: another holds the lock, and the
// work may be skipped. That ctx is over is no such case.
func (r request) orSkip(ctx context.Context, err error) error {
	if r.skip && errors.Is(err, ErrNotAcquired) && ctx.Err() == nil {
		return nil
	}
	return err
}

// run runs fn while h is held.
func run(ctx context.Context, op string, keys []Key, h held, fn func(context.Context) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h.Notify(func(err error) { cancel(err) })
	defer func() {
		if unlockErr := h.Release(); unlockErr != nil {
			err = errors.Join(err, newError(op, keys, unlockErr))
		}
	}()
	return fn(ctx)
}

// Close ends the Locker: it takes no new locks ([ErrClosed]), ends all waiting
// for them, cancels the ctx of the functions that [Locker.Do] runs, waits for the
// locks that are still held to be unlocked, for five seconds at the most, and
// ends its sessions. Locks that are held even then are lost, which their handles
// are told; the error says how many.
//
// It is safe to call twice and from several goroutines. It must not be called
// from within a function that Do runs.
func (l *Locker) Close() error {
	if lost := l.engine.Close(); lost > 0 {
		return fmt.Errorf("pglock: close: %d locks were still held and are %w", lost, ErrLost)
	}
	return nil
}

// Stats tells how many sessions and locks there are, and what came of all
// requests so far.
func (l *Locker) Stats() Stats { return Stats(l.engine.Stats()) }

// Stats are counts of a [Locker]: the first three of this moment, the others
// since it was made.
type Stats struct {
	Sessions int // sessions that are open or being opened
	Held     int // locks held
	Waiting  int // requests that wait for a lock

	Acquired   uint64 // locks granted
	Refused    uint64 // requests that ended without the lock
	Lost       uint64 // locks lost with their session
	Dropped    uint64 // locks whose handle was dropped without Unlock; they are still held
	HandOvers  uint64 // locks that went from one holder to the next without Postgres
	RoundTrips uint64 // statements run
}

// limit returns how long the engine may take.
func (r request) limit() engine.Wait {
	if r.noWait && r.wait == 0 {
		return engine.Wait{No: true, For: noWaitTimeout}
	}
	return engine.Wait{No: r.noWait, For: r.wait}
}

// acquire gets the lock, or an error that names its holders.
func (l *Locker) acquire(ctx context.Context, op string, key Key, r request) (*engine.Hold, error) {
	began, limit := time.Now(), r.limit()
	deadline, limited := ctx.Deadline()
	if limit.For > 0 && (!limited || began.Add(limit.For).Before(deadline)) {
		deadline, limited = began.Add(limit.For), true
	}
	// Asking for the holders is a part of the time that the call may take, and then it
	// goes on to the end.
	first := limit
	naming := limited && !r.skip && !r.noWait
	if naming {
		total := deadline.Sub(began)
		first.For, first.Part = max(total-min(total/4, namingTime), time.Nanosecond), true
	}
	hold, err := l.engine.Acquire(ctx, key.session(), r.mode(), first)
	var holders []Holder
	if errors.Is(err, ErrNotAcquired) && !r.skip && ctx.Err() == nil {
		asking, cancel := ctx, context.CancelFunc(func() {})
		if naming {
			asking, cancel = context.WithDeadline(ctx, deadline)
		}
		holders, _ = l.holders(asking, []Key{key}, r.shared) // not knowing them makes the error no worse
		cancel()
	}
	if naming && ctx.Err() == nil && (errors.Is(err, ErrNotAcquired) || errors.Is(err, ErrUnavailable)) {
		if limit.For > 0 {
			limit.For = max(time.Until(began.Add(limit.For)), time.Nanosecond)
		}
		refused := errors.Is(err, ErrNotAcquired)
		hold, err = l.engine.Acquire(ctx, key.session(), r.mode(), limit)
		if refused && errors.Is(err, ErrUnavailable) {
			err = ErrNotAcquired // Postgres did say so, if not in the last moment
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

// namingTime is how much of a wait is spent on asking for the holders, at most.
const namingTime = 200 * time.Millisecond

// noWaitTimeout bounds what does not wait for a lock: connecting, and the answer.
const noWaitTimeout = 5 * time.Second

// holdersTimeout bounds the asking for who holds a lock.
const holdersTimeout = 2 * time.Second

// Holders are the sessions that hold the lock of key: those in whose way an
// exclusive lock would be. Where nobody holds it, there are none. It reads
// pg_locks, which costs the server more than a lock does, the more the more
// locks there are. ctx bounds it, and so do two seconds.
func (l *Locker) Holders(ctx context.Context, key Key) ([]Holder, error) {
	holders, err := l.holders(ctx, []Key{key}, false)
	if err != nil {
		return nil, newError("holders of", []Key{key}, err)
	}
	return slices.DeleteFunc(holders, func(h Holder) bool { return !h.Granted }), nil
}

func (l *Locker) holders(ctx context.Context, keys []Key, shared bool) ([]Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, holdersTimeout)
	defer cancel()
	answer, err := l.engine.Query(ctx, holdersSQL, holdersArgs(keys, shared)...)
	if err != nil {
		return nil, err
	}
	return readHolders(answer)
}

func (r request) mode() engine.Mode {
	if r.shared {
		return engine.Shared
	}
	return engine.Exclusive
}

func (k Key) session() engine.Key { return engine.Key{ID: k.id, Pair: k.pair} }

// newError makes what the engine says an *Error.
func newError(op string, keys []Key, err error) *Error {
	e := &Error{Op: op, Keys: keys, Err: err}
	if kind := kindOf(err); kind != nil && !errors.Is(err, kind) {
		e.Kind = kind
	}
	return e
}
