package pglock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// LockAll takes the locks of all keys, or none of them. It takes them in a fixed order
// and without duplicates, whatever the order of keys, so callers of LockAll cannot
// deadlock with each other. While it waits for one lock, it holds those before it and
// none after it. Options and errors are those of [Locker.Lock]; [Wait] limits the whole
// call; the error contains the key that was not acquired. [Slots] is an error.
//
// All locks that are free are taken in one round trip; each one held by another session
// costs one more. A lock lost while LockAll waits for another is taken again.
func (l *Locker) LockAll(ctx context.Context, keys []Key, opts ...LockOption) (*Lock, error) {
	const op = "lock all"
	r, err := newRequest(op, opts)
	if err != nil {
		return nil, err
	}
	keys, holds, err := l.acquireAll(ctx, op, keys, r)
	if err != nil {
		return nil, err
	}
	h, err := l.withToken(ctx, holds, r)
	if err != nil {
		return nil, newError(op, keys, err)
	}
	return l.newLock(h, keys[0], keys...), nil
}

// DoAll is like [Locker.Do] for several locks, taken as [Locker.LockAll] does. The ctx
// passed to fn is canceled if any of them is lost.
func (l *Locker) DoAll(ctx context.Context, keys []Key, fn func(context.Context) error, opts ...DoOption) error {
	const op = "do all"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	keys, holds, err := l.acquireAll(ctx, op, keys, r)
	if err != nil {
		return r.orSkip(ctx, err)
	}
	h, err := l.withToken(ctx, holds, r)
	if err != nil {
		return newError(op, keys, err)
	}
	return l.run(ctx, op, h, fn, keys...)
}

// A multiLock is a set of locks that are acquired, held and released together.
type multiLock struct {
	engine *engine.Engine
	holds  []*engine.Hold

	once sync.Once
	done chan struct{} // closed as soon as one of them is no longer held
}

func newMultiLock(engine *engine.Engine, holds []*engine.Hold) *multiLock {
	return &multiLock{engine: engine, holds: holds, done: make(chan struct{})}
}

func (m *multiLock) Release() error {
	var errs []error
	for _, err := range m.engine.ReleaseAll(m.holds) {
		if err != nil && !slices.ContainsFunc(errs, func(other error) bool { return other.Error() == err.Error() }) {
			errs = append(errs, err)
		}
	}
	m.once.Do(func() { close(m.done) })
	return errors.Join(errs...)
}

func (m *multiLock) OnLoss(f func(error)) {
	for _, h := range m.holds {
		h.OnLoss(f)
	}
}

func (m *multiLock) Done() <-chan struct{} { return m.done }

func (m *multiLock) Err() error {
	var err error
	for _, h := range m.holds {
		if e := h.Err(); errors.Is(e, ErrLost) {
			return e
		} else if e != nil {
			err = e
		}
	}
	return err
}

func (m *multiLock) PID() int32 { return m.holds[0].PID() }

func (m *multiLock) Token() int64 { return m.holds[0].Token() }

func (m *multiLock) parts() []*engine.Hold { return m.holds }

// sortKeys returns keys in canonical order without duplicates, so that concurrent callers
// cannot deadlock. Two different names may be the same lock.
func sortKeys(keys []Key) []Key {
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b Key) int {
		if a.pair != b.pair {
			if b.pair {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.id, b.id)
	})
	return slices.CompactFunc(keys, func(a, b Key) bool { return a.id == b.id && a.pair == b.pair })
}

func (l *Locker) acquireAll(ctx context.Context, op string, keys []Key, r request) ([]Key, *multiLock, error) {
	if err := l.check(op, r); err != nil {
		return nil, nil, err
	}
	switch {
	case r.slots > 0:
		return nil, nil, fmt.Errorf("pglock: %s: Slots(%d) is for one key", op, r.slots)
	case r.every > 0:
		return nil, nil, fmt.Errorf("pglock: %s: Every(%v) is for one key", op, r.every)
	}
	keys = sortKeys(keys)
	if len(keys) == 0 {
		return nil, nil, errors.New("pglock: " + op + ": no keys")
	}
	var deadline time.Time
	if limit := r.limit().For; limit > 0 {
		deadline = time.Now().Add(limit)
	}
	held, err := l.acquireInOrder(ctx, op, keys, r, deadline)
	for err == nil && slices.ContainsFunc(held, func(h *engine.Hold) bool { return h.Err() != nil }) {
		// A session ended while LockAll waited for other locks. Start again, as the
		// caller would.
		l.engine.ReleaseAll(held)
		held, err = l.acquireInOrder(ctx, op, keys, r, deadline)
	}
	if err != nil {
		return nil, nil, err
	}
	all := newMultiLock(l.engine, held)
	for _, h := range held {
		h.OnLoss(func(err error) {
			if errors.Is(err, ErrLost) {
				all.once.Do(func() { close(all.done) })
			}
		})
	}
	return keys, all, nil
}

// acquireInOrder takes the locks of keys in their order, waiting if necessary, or none of them
// if one is not acquired. Some may already be lost again when it returns.
func (l *Locker) acquireInOrder(ctx context.Context, op string, keys []Key, r request, deadline time.Time) (held []*engine.Hold, err error) {
	defer func() {
		if err != nil {
			l.engine.ReleaseAll(held)
		}
	}()
	engineKeys := make([]engine.Key, len(keys))
	for i, key := range keys {
		engineKeys[i] = l.engineKey(key)
	}
	for len(held) < len(keys) {
		limit := r.limit()
		if !deadline.IsZero() {
			limit.For = max(time.Until(deadline), time.Nanosecond)
		}
		holds, errs := l.engine.AcquireAll(ctx, engineKeys[len(held):], r.mode(), limit)
		n := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		if n < 0 {
			return append(held, holds...), nil
		}
		// No lock after the one to wait for may be held.
		held = append(held, holds[:n]...)
		l.engine.ReleaseAll(slices.DeleteFunc(holds[n:], func(h *engine.Hold) bool { return h == nil }))
		key := keys[len(held)]
		if !errors.Is(errs[n], ErrNotAcquired) || ctx.Err() != nil {
			return held, newError(op, []Key{key}, errs[n])
		}
		one := r
		if r.wait > 0 {
			if one.wait = time.Until(deadline); one.wait <= 0 {
				return held, newError(op, []Key{key}, errs[n])
			}
		}
		hold, err := l.acquire(ctx, op, key, one)
		if err != nil {
			return held, err
		}
		held = append(held, hold)
	}
	return held, nil
}
