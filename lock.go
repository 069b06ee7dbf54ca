package pglock

import (
	"runtime"
	"slices"

	"github.com/pglock-go/pglock/internal/engine"
)

// A Lock is a handle for a lock that is held until Unlock, or for all the locks that
// [Locker.LockAll] took. It is safe for concurrent use.
//
// If a program drops the handle without calling Unlock, the lock stays held until
// [Locker.Close] or the end of the process. The [Logger] reports that, and [Stats] counts
// it.
type Lock struct {
	engine *engine.Engine
	held   held
	key    Key
	keys   []Key  // if there are several; key is the first
	schema string // of the table, if it is a lease
}

// held is one lock or several, as the engine holds them.
type held interface {
	Release() error
	OnLoss(func(error))
	Done() <-chan struct{}
	Err() error
	PID() int32
	Token() int64
	parts() []*engine.Hold
}

// oneLock is a single lock.
type oneLock struct{ *engine.Hold }

func (h oneLock) parts() []*engine.Hold { return []*engine.Hold{h.Hold} }

// newLock returns the handle. A finalizer detects that it was dropped. runtime.AddCleanup
// would cost more, since it allocates for every lock.
func (l *Locker) newLock(h held, key Key, keys ...Key) *Lock {
	lock := &Lock{engine: l.engine, held: h, key: key, keys: keys, schema: l.schema}
	runtime.SetFinalizer(lock, (*Lock).drop)
	return lock
}

// drop reports that the lock can no longer be unlocked. It stays locked: the program may
// still be doing the work that it protects, so unlocking at an arbitrary garbage
// collection would be worse than holding the lock for too long.
func (l *Lock) drop() {
	if l.held.Err() == nil {
		l.engine.Dropped(l.key.String())
	}
}

// Unlock releases the lock. If it returns nil, the lock was held until now, as Postgres
// confirmed, and the next waiter in this process or at the server can acquire it or
// already has. If the lock passes to another waiter in this process, or is shared within
// it, the confirmation may be up to two milliseconds old. Unlock needs no ctx: it takes
// one round trip, and at most the [Heartbeat], or ten seconds for a lease.
//
// It may be called more than once, after the lock was lost, and after [Locker.Close]; it
// never releases another holder's lock. The error is an [*Error]: [ErrNotHeld] if the
// lock was already unlocked; [ErrLost] if its session ended before Postgres replied, so
// that another session may have held the lock at the same time; [ErrUnconfirmed] if the
// lock was held until now but could not be unlocked. In that case the session was closed,
// which releases the lock as soon as the server notices.
func (l *Lock) Unlock() error {
	runtime.SetFinalizer(l, nil)
	if err := l.held.Release(); err != nil {
		return newError("unlock", l.Keys(), err)
	}
	return nil
}

// Done returns a channel that is closed when the lock is unlocked or lost. Err then
// returns which.
func (l *Lock) Done() <-chan struct{} { return l.held.Done() }

// Err returns nil while the lock is held. Then it returns [ErrNotHeld] after Unlock, or
// [ErrLost] with the reason. For several locks, it reports the first one lost.
func (l *Lock) Err() error {
	if err := l.held.Err(); err != nil {
		return newError("hold", l.Keys(), err)
	}
	return nil
}

// Keys returns the key of the lock, or those of all locks that [Locker.LockAll] took, in
// the order in which they were acquired: sorted, without duplicates.
func (l *Lock) Keys() []Key {
	if l.keys == nil {
		return []Key{l.key}
	}
	return slices.Clone(l.keys)
}

// PID returns the backend's process ID of the session that holds the lock, as shown in
// pg_locks and pg_stat_activity. For several locks, it is that of the first. It is 0 for a
// lease, which no backend holds.
func (l *Lock) PID() int32 { return l.held.PID() }
