package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
	"github.com/pglock-go/pglock/stress/bench/internal/usage"
)

// The scenarios in which many goroutines each wait for another key.

func crowds(s scale) []scenario {
	var all []scenario
	for _, n := range s.Crowds {
		all = append(all, crowd(n))
	}
	return all
}

func crowd(n int) scenario {
	return scenario{
		name: fmt.Sprintf("crowd-%d", n), group: "crowd", size: n, title: fmt.Sprintf("%s keys that another process holds", thousands(n)),
		what: "A goroutine waits for each key. Then one key after the other is released, and the time until its waiter has it is measured. Before that, the processor time of the waiting process and of the server is measured, as a share of one core.",
		metrics: []Metric{
			{"first grant", "s", "less"},
			{"longest", "s", "less"},
			{"client, of a core", "%", "less"},
			{"server, of a core", "%", "less"},
		},
		ours:   "pglock",
		behind: "A Locker polls 300 keys every 20 ms, and lets seven more wait in Postgres by turns. So the processor time does not grow with the crowd, but the time until a key is polled does. The Redis libraries poll all keys, whatever that costs.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			big, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			at.Postgres = big.ConnString("postgres")
			all, err := peers(at, []string{"pglock", "pgx", "redsync", "redislock"},
				func(ctx context.Context, k peer.Kind, p peer.Peer) ([]float64, error) {
					return waitInCrowd(ctx, e, k, p, at, n)
				})
			for i := range all {
				if all[i].name == "pgx" {
					all[i].measure, all[i].missing = nil, "needs a connection for each lock, so a pool of 20 waits for 20"
				}
			}
			return all, nil, err
		},
	}
}

// A granted is the moment at which a waiter got its lock.
type granted struct {
	at  time.Time
	err error
}

// waitInCrowd measures a process in which n goroutines wait for locks of another one.
func waitInCrowd(ctx context.Context, e *env, k peer.Kind, p peer.Peer, at peer.Addresses, n int) (_ []float64, err error) {
	other, err := k.Open(ctx, at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	const key = 6_000_000
	held := make([]peer.Held, n)
	l, err := other.Locker(ctx, true)
	if err != nil {
		return nil, err
	}
	if err := inParallel(n, func(i int) (err error) { held[i], err = l.Lock(ctx, int64(key+i)); return err }); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, inParallel(n, func(i int) error {
			if held[i] == nil {
				return nil
			}
			return held[i].Unlock()
		}))
	}()

	waitCtx, cancel := context.WithCancel(ctx)
	grants := make([]chan granted, n)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if l, err = p.Locker(ctx, true); err != nil {
		return nil, err
	}
	for i := range n {
		grants[i] = make(chan granted, 1)
		wg.Go(func() {
			h, err := l.Lock(waitCtx, int64(key+i))
			at := time.Now()
			if err == nil {
				err = h.Unlock()
			}
			grants[i] <- granted{at, err}
		})
	}
	if err := allWait(ctx, p, n, 2*e.scale.Time); err != nil {
		return nil, err
	}

	client, server, err := processorTime(ctx, e, k.Server, at, 3*e.scale.Time)
	if err != nil {
		return nil, err
	}
	reps := min(2*e.scale.Reps, n)
	var times []float64
	for r := range reps {
		i := r * n / reps
		pause(ctx, time.Duration(7*r%20)*time.Millisecond) // not in step with polling
		released := time.Now()
		h := held[i]
		held[i] = nil
		if err := h.Unlock(); err != nil {
			return nil, err
		}
		select {
		case g := <-grants[i]:
			if g.err != nil {
				return nil, g.err
			}
			times = append(times, g.at.Sub(released).Seconds())
		case <-time.After(time.Minute):
			return nil, errors.New("a key was released, and its waiter did not get it within a minute")
		}
	}
	s := stats.Summarize(times)
	return []float64{s.Median, s.Max, client, server}, ctx.Err()
}

// allWait waits until n goroutines wait and no session has been opened for some time. Only
// pglock reports that; the others have that time.
func allWait(ctx context.Context, p peer.Peer, n int, settle time.Duration) error {
	counts, ok := p.(interface{ Stats() pglock.Stats })
	if !ok {
		pause(ctx, settle)
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for before := -1; ; {
		now := counts.Stats()
		if now.Waiting == n && now.Sessions == before {
			return nil
		}
		before = now.Sessions
		if pause(ctx, settle); ctx.Err() != nil {
			return fmt.Errorf("%d of %d goroutines wait: %w", now.Waiting, n, ctx.Err())
		}
	}
}

// processorTime returns the processor time of this process and of the server during d, in percent
// of one core.
func processorTime(ctx context.Context, e *env, server peer.Server, at peer.Addresses, d time.Duration) (client, ofServer float64, err error) {
	clock, err := e.host.CPUClock(ctx, server, at)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, clock.Close()) }()
	if err := clock.Start(ctx); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	before, known := usage.OwnCPU()
	pause(ctx, d)
	after, _ := usage.OwnCPU()
	took := time.Since(began)
	used, serverKnown, err := clock.Stop(ctx)
	client, ofServer = unknown, unknown
	if known {
		client = 100 * (after - before).Seconds() / took.Seconds()
	}
	if serverKnown {
		ofServer = 100 * used.Seconds() / took.Seconds()
	}
	return client, ofServer, err
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
