// Package load locks and unlocks from many goroutines for a while, and counts.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// A Plan describes a run. It can be sent to another process.
type Plan struct {
	Goroutines  int
	Warm        time.Duration // warm-up, not counted: connects and prepares; extended until there are as many pairs as goroutines
	Time        time.Duration // counted
	Key         int64         // the first key
	Keys        int           // how many keys all goroutines choose from; 0 means that each has its own
	Skew        float64       // exponent of Zipf's law for the choice of keys; 0 means uniform
	SharedOfTen int           // how many of ten locks are shared
	StopTimeout time.Duration // limit for the last locks after Time; 0 means 30 s
}

// contended reports whether goroutines want the same keys.
func (p Plan) contended() bool { return p.Keys > 0 }

// A Result is the result of a run.
type Result struct {
	Time  time.Duration   // length of the counted phase
	Pairs []uint64        // pairs of Lock and Unlock, for each goroutine
	Wait  stats.Histogram // duration of each Lock; Longest includes those that returned after the counted phase
	Pair  stats.Histogram // duration of each pair
}

// Rate returns the pairs per second of all goroutines.
func (r *Result) Rate() float64 {
	var n uint64
	for _, p := range r.Pairs {
		n += p
	}
	return float64(n) / r.Time.Seconds()
}

// Fairness returns the pairs of the slowest goroutine divided by those of the fastest.
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

// Merge adds the result of another process that ran at the same time.
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

// Run executes a plan.
func Run(ctx context.Context, p peer.Peer, plan Plan) (*Result, error) {
	timeout := plan.StopTimeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, plan.Warm+warmMost+plan.Time+timeout, fmt.Errorf("the last locks did not end within %v", timeout))
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
	var pairs atomic.Int64 // of all goroutines, during warm-up
	workers := make([]worker, plan.Goroutines)
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		w.plan, w.locker, w.number = plan, lockers[i], i
		wg.Go(func() {
			if w.err = w.run(ctx, &phase, &pairs); w.err != nil {
				cancel() // the others would wait in vain
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

// warmMost limits the extension of the warm-up if pairs are slow.
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

// A worker is one goroutine. Its counters are padded, so that workers do not share
// cache lines.
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
				return errors.New("load: the peer has no shared locks")
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

// chooser returns a function that returns the next key.
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
