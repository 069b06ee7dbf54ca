// Package load has many goroutines lock and unlock for a time, and counts.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pglock-go/pglock/bench/internal/peer"
	"github.com/pglock-go/pglock/bench/internal/stats"
)

// A Plan says what to do. It can be sent to another process.
type Plan struct {
	Goroutines   int
	Warm         time.Duration // not counted, so that all is connected, prepared and spread out; it lasts until there were as many pairs as goroutines, too
	Time         time.Duration // counted
	Key          int64         // the first key
	Keys         int           // how many keys all goroutines choose from; 0 is one of its own for each
	Skew         float64       // of the choice, as in Zipf's law; 0 is none
	SharedOfTen  int           // of ten locks, how many are shared
	StopPatience time.Duration // for the last locks, once the time is over; 0 is 30 s
}

// contended says whether goroutines want the same key.
func (p Plan) contended() bool { return p.Keys > 0 }

// A Result is what came of it.
type Result struct {
	Time  time.Duration   // how long was counted
	Pairs []uint64        // locks and unlocks of each goroutine
	Wait  stats.Histogram // how long each Lock took. Longest also counts those that began in time and ended later
	Pair  stats.Histogram // how long each Lock and its Unlock took
}

// Rate is how many pairs a second all goroutines did.
func (r *Result) Rate() float64 {
	var n uint64
	for _, p := range r.Pairs {
		n += p
	}
	return float64(n) / r.Time.Seconds()
}

// Fairness is how much the slowest goroutine got of what the fastest got.
func (r *Result) Fairness() float64 {
	if len(r.Pairs) == 0 {
		return 0
	}
	low, high := r.Pairs[0], r.Pairs[0]
	for _, n := range r.Pairs {
		low, high = min(low, n), max(high, n)
	}
	if high == 0 {
		return 0
	}
	return float64(low) / float64(high)
}

// Merge adds what another process did at the same time.
func (r *Result) Merge(other *Result) {
	r.Time = max(r.Time, other.Time)
	r.Pairs = append(r.Pairs, other.Pairs...)
	r.Wait.Merge(&other.Wait)
	r.Pair.Merge(&other.Pair)
}

// The phases of a run.
const (
	warming int32 = iota
	counting
	over
)

// Run does what the plan says.
func Run(ctx context.Context, p peer.Peer, plan Plan) (*Result, error) {
	patience := plan.StopPatience
	if patience == 0 {
		patience = 30 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, plan.Warm+warmMost+plan.Time+patience, fmt.Errorf("the locks did not come to an end within %v", patience))
	defer cancel()
	var lockers []peer.Locker
	for range plan.Goroutines {
		l, err := p.Locker(ctx, plan.contended())
		if err != nil {
			return nil, err
		}
		lockers = append(lockers, l)
	}

	var phase atomic.Int32
	var pairs atomic.Int64 // of all, while they warm up
	workers := make([]worker, plan.Goroutines)
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		w.plan, w.locker, w.number = plan, lockers[i], i
		wg.Go(func() {
			if w.err = w.run(ctx, &phase, &pairs); w.err != nil {
				cancel() // the others must not wait for nothing
			}
		})
	}
	warm(ctx, plan, &pairs)
	began := time.Now()
	phase.Store(counting)
	pause(ctx, plan.Time)
	phase.Store(over)
	r := &Result{Time: time.Since(began)}
	wg.Wait()

	var errs []error
	for i := range workers {
		w := &workers[i]
		if w.err != nil && !errors.Is(w.err, context.Canceled) {
			errs = append(errs, w.err)
		}
		r.Pairs = append(r.Pairs, w.pairs)
		r.Wait.Merge(&w.wait)
		r.Pair.Merge(&w.pair)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("%d of %d goroutines failed: %w", len(errs), plan.Goroutines, errs[0])
	}
	return r, ctx.Err()
}

// warmMost is how long it takes to warm up at the most, where pairs are slow.
const warmMost = 5 * time.Second

func warm(ctx context.Context, plan Plan, pairs *atomic.Int64) {
	if plan.Warm == 0 {
		return
	}
	pause(ctx, plan.Warm)
	for end := time.Now().Add(warmMost); pairs.Load() < int64(plan.Goroutines) && time.Now().Before(end) && ctx.Err() == nil; {
		pause(ctx, time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// A worker is one goroutine. Each has its counts for itself, away from the others'.
type worker struct {
	plan   Plan
	locker peer.Locker
	number int

	pairs      uint64
	wait, pair stats.Histogram
	err        error
	_          [64]byte
}

func (w *worker) run(ctx context.Context, phase *atomic.Int32, pairs *atomic.Int64) error {
	choose := w.chooser()
	for i := 0; ; i++ {
		before := phase.Load()
		if before == over {
			return nil
		}
		key := choose()
		lock := w.locker.Lock
		if (w.number+i)%10 < w.plan.SharedOfTen {
			sharer, ok := w.locker.(peer.Sharer)
			if !ok {
				return errors.New("load: a peer without shared locks")
			}
			lock = sharer.LockShared
		}
		start := time.Now()
		h, err := lock(ctx, key)
		if err != nil {
			return err
		}
		waited := time.Since(start)
		if err := h.Unlock(); err != nil {
			return err
		}
		switch after := phase.Load(); {
		case after == warming:
			pairs.Add(1)
		case after == counting:
			w.pairs++
			w.wait.Add(waited)
			w.pair.Add(time.Since(start))
		case after == over && before == counting:
			w.wait.Longest = max(w.wait.Longest, waited)
		}
	}
}

// chooser says which key is next.
func (w *worker) chooser() func() int64 {
	p := w.plan
	switch {
	case !p.contended():
		return func() int64 { return p.Key + int64(w.number) }
	case p.Keys == 1:
		return func() int64 { return p.Key }
	case p.Skew > 0:
		z := rand.NewZipf(rand.New(rand.NewPCG(1, uint64(w.number))), p.Skew, 1, uint64(p.Keys-1))
		return func() int64 { return p.Key + int64(z.Uint64()) }
	}
	r := rand.New(rand.NewPCG(1, uint64(w.number)))
	return func() int64 { return p.Key + r.Int64N(int64(p.Keys)) }
}
