package pglock

import (
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/pglock-go/pglock/internal/engine"
)

// A Lock is the handle of a lock that is held, or of the several that
// [Locker.LockAll] took, until Unlock. It is safe for use by several goroutines.
//
// A program that drops the handle without Unlock keeps the lock until
// [Locker.Close], or until it ends. The [Logger] hears of it, and [Stats] counts it.
type Lock struct {
	engine *engine.Engine
	held   held
	key    Key
	keys   []Key // when there are several, key being the first
}

// held is one lock or several, as the engine has them.
type held interface {
	Release() error
	Notify(func(error))
	Done() <-chan struct{}
	Err() error
	PID() int32
}

// newLock makes the handle. A finalizer notices that it was dropped; it costs less
// than runtime.AddCleanup, which allocates for every lock.
func newLock(engine *engine.Engine, h held, key Key, keys ...Key) *Lock {
	lock := &Lock{engine: engine, held: h, key: key, keys: keys}
	runtime.SetFinalizer(lock, (*Lock).drop)
	return lock
}

// drop says that nobody can unlock the lock any more. It stays locked: the program
// may well do what must be done alone, and to have it unlocked by the garbage
// collector, at some moment, would be worse than a lock that is held for too long.
func (l *Lock) drop() {
	if l.held.Err() == nil {
		l.engine.Dropped(l.key.String())
	}
}

// Unlock releases the lock. Nil means two things: the lock was held until now, which
// Postgres has confirmed (if it goes on to the next in this process, or others share it,
// two milliseconds ago at the earliest), and another can have it, or has it already: the
// next one waiting in this process, or whoever is first in line at the server. It needs no ctx:
// it takes one round trip, and no longer than the [Heartbeat].
//
// It may be called more than once, after the lock was lost, and after
// [Locker.Close]: it never unlocks what another holds. Its error, an [*Error], says what
// was not as it should be: [ErrNotHeld] if it had been unlocked before; [ErrLost] if its
// session ended before Postgres answered, so that another may have held the lock at the
// same time; [ErrUnconfirmed] if it was held until now but could not be unlocked: its
// session has been closed then, which frees the lock as soon as the server notices.
func (l *Lock) Unlock() error {
	runtime.SetFinalizer(l, nil)
	if err := l.held.Release(); err != nil {
		return newError("unlock", l.Keys(), err)
	}
	return nil
}

// Done is closed when the lock is not held any more: unlocked or lost. Err tells
// which.
func (l *Lock) Done() <-chan struct{} { return l.held.Done() }

// Err is nil while the lock is held. Then it is [ErrNotHeld] after Unlock, or
// [ErrLost] together with the reason. Of several locks it tells the first that
// was lost.
func (l *Lock) Err() error {
	if err := l.held.Err(); err != nil {
		return newError("hold", l.Keys(), err)
	}
	return nil
}

// Key is what the lock is of; of several, the first in their order.
func (l *Lock) Key() Key { return l.key }

// Keys are what the lock is of, in the order in which they were taken: sorted,
// and each once.
func (l *Lock) Keys() []Key {
	if l.keys == nil {
		return []Key{l.key}
	}
	return slices.Clone(l.keys)
}

// PID is the backend whose session holds the lock, as pg_locks and
// pg_stat_activity show it; of several locks, that of the first.
func (l *Lock) PID() int32 { return l.held.PID() }

// several are locks that are taken, held and given back together.
type several struct {
	engine *engine.Engine
	holds  []*engine.Hold

	once sync.Once
	done chan struct{} // closed when the first of them is not held any more
}

func newSeveral(engine *engine.Engine, holds []*engine.Hold) *several {
	return &several{engine: engine, holds: holds, done: make(chan struct{})}
}

func (s *several) Release() error {
	var errs []error
	for _, err := range s.engine.ReleaseAll(s.holds) {
		if err != nil && !slices.ContainsFunc(errs, func(other error) bool { return other.Error() == err.Error() }) {
			errs = append(errs, err)
		}
	}
	s.once.Do(func() { close(s.done) })
	return errors.Join(errs...)
}

func (s *several) Notify(f func(error)) {
	for _, h := range s.holds {
		h.Notify(f)
	}
}

func (s *several) Done() <-chan struct{} { return s.done }

func (s *several) Err() error {
	var err error
	for _, h := range s.holds {
		if e := h.Err(); errors.Is(e, ErrLost) {
			return e
		} else if e != nil {
			err = e
		}
	}
	return err
}

func (s *several) PID() int32 { return s.holds[0].PID() }
