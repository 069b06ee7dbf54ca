package pglock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// maxSlots is the highest number of slots.
const maxSlots = 1000

// Slots lets up to n holders hold the lock of the key at the same time, for n from 1 to 1,000:
// a semaphore. All who use the key must pass the same n. The lock has n slots, and each holder
// holds one, which is a lock like any other: Done, Err, Unlock, Token and the errors keep their
// meaning, and so do [Wait], [NoWait] and [SkipIfHeld]. If no slot is free, the error is
// [ErrNotAcquired] and lists the holders of all slots.
//
// Requests that wait get free slots in the order in which they came, also those of other
// processes: the first one polls for a free slot every 20 ms, or every 250 ms with [Leases],
// and the others wait behind it without polling. A request with NoWait or SkipIfHeld does not
// stand in line, and may overtake them. With Leases, the order among processes is only
// approximate. If the process of the first one crashes, the others wait until its session ends,
// as behind a holder that crashes.
//
// A slot of an advisory lock has the key Name(name + "\x00" + i), with i from 0 to n-1 in
// decimal, which other programs can take, and [Locker.Holders] can read. The request that polls
// holds Name(name + "\x00gate"). The name is that of a [Name], and otherwise what
// [Key.LeaseName] returns. The slots of a lease are the rows of its name with the slots 0 to
// n-1, and the row of the request that polls has the slot -1; slot 0 is also what a request
// without Slots takes.
//
// Together with [Shared] or [Every], and in [Locker.LockAll], it is an error.
func Slots(n int) LockOption {
	return anyOption{fmt.Sprintf("Slots(%d)", n), func(r *request) error {
		if n < 1 || n > maxSlots {
			return fmt.Errorf("must be from 1 to %d", maxSlots)
		}
		r.slots = n
		return nil
	}}
}

const (
	// gateSlot stands for the lock that the first of the waiting requests holds.
	gateSlot = -1

	// The time between two polls for a free slot.
	slotPollInterval      = 20 * time.Millisecond
	leaseSlotPollInterval = 250 * time.Millisecond

	// blindTries is how many slots of an advisory lock are tried before a statement reads
	// which of them are free. A try costs Postgres much less than that.
	blindTries = 8
)

// slot returns the key of a slot, or of the gate, as an advisory lock.
func (k Key) slot(slot int) Key {
	name, suffix := k.name, "gate"
	if !k.named {
		name = k.LeaseName()
	}
	if slot != gateSlot {
		suffix = strconv.Itoa(slot)
	}
	return Name(name + "\x00" + suffix)
}

// slotKey returns the key of a slot, or of the gate, in the engine.
func (l *Locker) slotKey(k Key, slot int) engine.Key {
	if l.schema != "" {
		return engine.Key{Name: k.LeaseName(), Slot: int32(slot)}
	}
	return l.engineKey(k.slot(slot))
}

// slotRows queries the holders of n slots. Those of a lease may include the one of the gate.
func (l *Locker) slotRows(ctx context.Context, key Key, n int) ([]holderRow, error) {
	if l.schema != "" {
		rows, err := l.leaseRows(ctx, []Key{key})
		return slices.DeleteFunc(rows, func(row holderRow) bool { return row.Slot >= n }), err
	}
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = key.slot(i)
	}
	rows, err := l.advisoryHolders(ctx, keys)
	for i := range rows {
		rows[i].Slot = rows[i].Key
	}
	return rows, err
}

// maxSlotHolders limits how many holders of slots an error lists.
const maxSlotHolders = 16

// slotHolders queries the holders of n slots.
func (l *Locker) slotHolders(ctx context.Context, key Key, n int) ([]Holder, error) {
	rows, err := l.slotRows(ctx, key, n)
	holders := holdersOf(slices.DeleteFunc(rows, func(row holderRow) bool { return row.Slot == gateSlot }))
	return holders[:min(len(holders), maxSlotHolders)], err
}

// takeSlot takes a free slot of n.
func (l *Locker) takeSlot(ctx context.Context, key Key, n int, limit engine.Wait) (*engine.Hold, error) {
	s := &slotRequest{locker: l, key: key, n: n, limit: limit, start: rand.IntN(n)}
	if limit.For > 0 {
		s.deadline = time.Now().Add(limit.For)
	}
	var hold *engine.Hold
	var err error
	if limit.No {
		hold, err = s.try(ctx)
	} else {
		hold, err = s.wait(ctx)
	}
	refused := err != nil && (errors.Is(err, ErrNotAcquired) || s.refused && s.over(ctx) && errors.Is(err, ErrUnavailable))
	if refused {
		err = fmt.Errorf("%w: none of %d slots is free", ErrNotAcquired, n)
		if cause := s.ctxErr(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}
	if !refused || !limit.Part || ctx.Err() != nil {
		l.engine.Count(err == nil)
	}
	return hold, err
}

// A slotRequest is a request for one of several slots.
type slotRequest struct {
	locker   *Locker
	key      Key
	n        int
	limit    engine.Wait
	deadline time.Time // of limit, or zero
	start    int       // the slot that is tried first, so that requests try different ones
	refused  bool      // Postgres has reported that no slot is free
}

// ctxErr returns ctx's error, also if its deadline has only just passed.
func (s *slotRequest) ctxErr(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// over reports whether the time for the request is over.
func (s *slotRequest) over(ctx context.Context) bool {
	return s.ctxErr(ctx) != nil || !s.deadline.IsZero() && !time.Now().Before(s.deadline)
}

// acquire requests one slot, or the gate.
func (s *slotRequest) acquire(ctx context.Context, slot int, mode engine.Mode, wait bool) (*engine.Hold, error) {
	limit := engine.Wait{No: !wait, Step: true}
	if !s.deadline.IsZero() {
		limit.For = max(time.Until(s.deadline), time.Nanosecond)
	}
	if slot != gateSlot {
		limit.Terms = s.limit.Terms
	}
	hold, err := s.locker.engine.Acquire(ctx, s.locker.slotKey(s.key, slot), mode, limit)
	s.refused = s.refused || errors.Is(err, ErrNotAcquired)
	return hold, err
}

// held queries which slots are held, and whether the gate of a lease is.
func (s *slotRequest) held(ctx context.Context) (map[int]bool, error) {
	limit := time.Now().Add(holdersTimeout)
	if !s.deadline.IsZero() && s.deadline.Before(limit) {
		limit = s.deadline
	}
	ctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	rows, err := s.locker.slotRows(ctx, s.key, s.n)
	held := make(map[int]bool, len(rows))
	for _, row := range rows {
		held[row.Slot] = true
	}
	if len(held) > s.n || len(held) == s.n && !held[gateSlot] {
		s.refused = true
	}
	return held, err
}

// try takes a free slot without waiting. The error is ErrNotAcquired if there is none.
func (s *slotRequest) try(ctx context.Context) (*engine.Hold, error) {
	blind := min(s.n, blindTries)
	if s.locker.schema != "" {
		blind = 0
	}
	hold, err := s.tryEach(ctx, 0, blind, nil)
	if blind == s.n || !errors.Is(err, ErrNotAcquired) || s.over(ctx) {
		return hold, err
	}
	held, err := s.held(ctx)
	if err != nil {
		return nil, err
	}
	return s.tryEach(ctx, blind, s.n, held)
}

// tryEach tries the slots number from to to, counted from the first one, except those in held.
func (s *slotRequest) tryEach(ctx context.Context, from, to int, held map[int]bool) (*engine.Hold, error) {
	for i := from; i < to; i++ {
		slot := (s.start + i) % s.n
		if held[slot] {
			continue
		}
		hold, err := s.acquire(ctx, slot, engine.Exclusive, false)
		if !errors.Is(err, ErrNotAcquired) || s.over(ctx) {
			return hold, err
		}
	}
	return nil, ErrNotAcquired
}

// wait takes a free slot, and waits for its turn if there is none.
func (s *slotRequest) wait(ctx context.Context) (*engine.Hold, error) {
	hold, err := s.tryUnlessQueued(ctx)
	for errors.Is(err, ErrNotAcquired) && !s.over(ctx) {
		hold, err = s.queue(ctx)
	}
	return hold, err
}

// tryUnlessQueued takes a free slot if no request waits at the gate. Many requests at a time
// may do that, and the holders of slots, which come again and again, overtake nobody.
func (s *slotRequest) tryUnlessQueued(ctx context.Context) (*engine.Hold, error) {
	if s.locker.schema != "" { // leases have no shared mode
		held, err := s.held(ctx)
		switch {
		case err != nil:
			return nil, err
		case held[gateSlot]:
			return nil, ErrNotAcquired
		}
		return s.tryEach(ctx, 0, s.n, held)
	}
	gate, err := s.acquire(ctx, gateSlot, engine.Shared, false)
	if err != nil {
		return nil, err
	}
	defer releaseSoon(gate)
	return s.try(ctx)
}

// queue waits for the gate, and then for a free slot. The error is ErrNotAcquired if the time
// is over, or if the gate is lost meanwhile.
func (s *slotRequest) queue(ctx context.Context) (*engine.Hold, error) {
	gate, err := s.acquire(ctx, gateSlot, engine.Exclusive, true)
	if err != nil {
		return nil, err
	}
	defer releaseSoon(gate) // nothing depends on whether it was held until now
	polling, cancel := context.WithCancel(ctx)
	defer cancel()
	gate.OnLoss(func(error) { cancel() })
	for {
		hold, err := s.try(ctx)
		if !errors.Is(err, ErrNotAcquired) || s.over(ctx) {
			return hold, err
		}
		if s.pause(polling); polling.Err() != nil || s.over(ctx) {
			return nil, ErrNotAcquired
		}
	}
}

// pause waits until it is time to poll again, or ctx is done.
func (s *slotRequest) pause(ctx context.Context) {
	pause := slotPollInterval
	if s.locker.schema != "" {
		pause = leaseSlotPollInterval
	}
	if !s.deadline.IsZero() {
		pause = min(pause, time.Until(s.deadline))
	}
	sleep(ctx, pause)
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
