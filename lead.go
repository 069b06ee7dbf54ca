package pglock

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Lead runs fn while this process is the leader, which is the holder of the lock of key, and
// waits until it is. It returns when fn returns, which resigns: the lock is unlocked, and
// another process may lead.
//
// The ctx passed to fn is canceled with [ErrLost] as context.Cause if the lock is lost: fn must
// return then, and Lead waits until this process is the leader again, and runs fn again. It does
// so too if fn returns an error, and unlocking then shows that the lock was lost: both may come
// from one failure. Before it requests the lock again, it pauses for a second; the pause doubles
// up to 30 s if it fails again, and is a fifth longer or shorter at random.
//
// Lead returns fn's error, or an [*Error] if the lock cannot be acquired, for the same reasons
// as [Locker.Lock] does. If no server replies ([ErrUnavailable]), it requests the lock again
// after a pause, and once it has led, also if it only finds a standby ([ErrStandby]). If ctx is
// done, the error is fn's, or matches ctx's error if this process did not lead. [Locker.Close]
// cancels the ctx of fn, with [ErrClosed].
//
// The options are those of Lock. [Note] publishes the address of the leader for [Locker.Watch].
// With [Slots], several processes lead at a time, such as a leader and its spare. With [Wait] or
// [NoWait], Lead returns [ErrNotAcquired] if another process leads by then.
func (l *Locker) Lead(ctx context.Context, key Key, fn func(context.Context) error, opts ...LockOption) error {
	const op = "lead"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	pause := firstLeadPause
	for led := false; ; pause = min(2*pause, lastLeadPause) {
		var h held
		hold, err := l.acquire(ctx, op, key, r)
		if err == nil {
			if h, err = l.withToken(ctx, oneLock{hold}, r); err != nil {
				err = newError(op, []Key{key}, err)
			}
		}
		switch {
		case err == nil:
			led = true
			began := time.Now()
			lost, err := l.lead(ctx, op, key, h, fn)
			if !lost || ctx.Err() != nil {
				return err
			}
			if time.Since(began) > lastLeadPause {
				pause = firstLeadPause
			}
		case ctx.Err() != nil, !errors.Is(err, ErrUnavailable) && !(led && errors.Is(err, ErrStandby)):
			return err
		}
		if sleep(ctx, randomly(pause)); ctx.Err() != nil {
			e := newError(op, []Key{key}, ctx.Err())
			e.Kind = ErrUnavailable // nobody could say whether the lock is free
			return e
		}
	}
}

// The pause of Lead between two requests for the lock grows from the first to the last.
const (
	firstLeadPause = time.Second
	lastLeadPause  = 30 * time.Second
)

// randomly returns a duration near d, so that processes do not keep the same step.
func randomly(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}

// lead runs fn while h is held, and reports whether h was lost meanwhile.
func (l *Locker) lead(ctx context.Context, op string, key Key, h held, fn func(context.Context) error) (lost bool, err error) {
	term := &leadership{held: h}
	err = l.run(ctx, op, term, func(ctx context.Context) error {
		err := fn(ctx)
		term.lost = errors.Is(term.Err(), ErrLost)
		term.failed = err != nil
		return err
	}, key)
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.lost || term.failed && errors.Is(term.released, ErrLost), err
}

// A leadership is a lock that remembers how it ended.
type leadership struct {
	held
	lost   bool // when the function returned
	failed bool // the function returned an error

	mu       sync.Mutex // guards released: LockFrom gives the lock to everybody
	released error      // the result of the last Release
}

func (t *leadership) Release() error {
	err := t.held.Release()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.released = err
	return err
}

// watchInterval is the time between two reads of Watch.
const watchInterval = 2 * time.Second

// Watch returns the holders of the lock of key, at once and after each change, until ctx is done
// or the loop ends. No holders means that the lock is free.
//
//	for holders, err := range locker.Watch(ctx, pglock.Name("leader")) {
//		...
//	}
//
// A change is that other sessions hold the lock, or that a lease was taken again. Watch reads the
// holders every 2 s, as [Locker.Holders] does. It yields the latest ones, and may miss a holder
// that came and went in between, or while the body of the loop ran. A lock changes its holder
// before Watch knows, so use it to report or to find the leader, not to exclude others.
//
// If the holders cannot be read, it yields the error and goes on, and yields them again when they
// can be read. It ends after [ErrClosed]. The holders of slots are yielded for leases; the slots
// of an advisory lock have keys of their own, see [Slots].
func (l *Locker) Watch(ctx context.Context, key Key) iter.Seq2[[]Holder, error] {
	return func(yield func([]Holder, error) bool) {
		var last []holderIdentity // nil if it is unknown
		for ; ctx.Err() == nil; sleep(ctx, watchInterval) {
			held, err := l.Holders(ctx, key)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				last = nil
				if !yield(nil, err) || errors.Is(err, ErrClosed) {
					return
				}
			default:
				now := identify(held[key])
				if last != nil && slices.Equal(now, last) {
					break
				}
				last = now
				if !yield(held[key], nil) {
					return
				}
			}
		}
	}
}

// A holderIdentity distinguishes a holder from another one, and a lease from when it is taken
// again.
type holderIdentity struct {
	pid   int32
	since int64 // microseconds since 1970
	token int64
}

// identify returns the identities of holders in a fixed order. It never returns nil.
func identify(holders []Holder) []holderIdentity {
	ids := make([]holderIdentity, len(holders))
	for i, h := range holders {
		ids[i] = holderIdentity{h.PID, h.Since.UnixMicro(), h.Token}
	}
	slices.SortFunc(ids, func(a, b holderIdentity) int {
		return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.since, b.since), cmp.Compare(a.token, b.token))
	})
	return ids
}
