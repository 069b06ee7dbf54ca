//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/chaos"
)

// workerEnv is the environment variable that makes a process a worker. Its value is a
// workerConfig as JSON.
const workerEnv = "PGLOCK_CLUSTER_WORKER"

// A workerConfig configures a worker, a process that acquires and releases locks.
type workerConfig struct {
	Name string // of its history
	Dir  string // of the histories
	DSN  string
	TTL  time.Duration // of its leases; 0: it takes advisory locks
	Seed uint64
}

// The keys that the workers use. One is held for long; usually somebody waits for it.
const (
	shortKeys = 4
	longKey   = "long"
)

// How long locks are waited for and held.
const (
	shortWait = time.Second
	longWait  = 3 * time.Second
	shortHold = 150 * time.Millisecond // on average
	longHold  = 10 * time.Minute       // until it is lost, or the workers rest
	pause     = 100 * time.Millisecond // after a failure
)

// workerMain runs a worker if this process was started as one, and reports whether it was.
func workerMain() (bool, error) {
	text := os.Getenv(workerEnv)
	if text == "" {
		return false, nil
	}
	var c workerConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return true, fmt.Errorf("%s: %w", workerEnv, err)
	}
	if err := work(c, os.Stdin, os.Stdout); err != nil {
		return true, fmt.Errorf("worker %s: %w", c.Name, err)
	}
	return true, nil
}

// A worker acquires and releases locks while it is not resting.
type worker struct {
	workerConfig
	history *chaos.Recorder
	writer  *writer
	locker  *pglock.Locker

	gate    sync.RWMutex // held shared by each turn, and exclusively during a rest
	resting atomic.Bool  // turns should end
	holding atomic.Bool  // holders of some keys should go on
	late    sync.WaitGroup
	// lateSlots has an entry for each holder that goes on to write after a loss.
	lateSlots chan struct{}
}

// work reads commands from in, and confirms each on out: go, rest (release everything), and
// hold (keep what is held of half of the keys, until the next command). It returns when in
// ends, so that it never outlives its parent.
func work(c workerConfig, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	config, err := pgxpool.ParseConfig(c.DSN + " default_query_exec_mode=exec application_name=" + c.Name)
	if err != nil {
		return err
	}
	config.MaxConns = 6
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &worker{workerConfig: c, lateSlots: make(chan struct{}, maxLate)}
	if w.history, err = chaos.NewRecorder(c.Dir, c.Name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.history.Close()) }()
	if w.writer, err = newWriter(c.Dir, c.Name, pool); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.writer.close()) }()
	var opts []pglock.LockerOption
	if c.TTL > 0 {
		opts = append(opts, pglock.Leases(c.TTL))
	}
	if w.locker, err = pglock.New(pgxlock.Pool(pool), opts...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.locker.Close()) }()

	w.gate.Lock() // until the first go
	w.resting.Store(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		cancel()
		if w.resting.Load() {
			w.gate.Unlock()
		}
	}()
	for n := range 2 {
		wg.Go(func() { w.loop(ctx, rand.New(rand.NewPCG(c.Seed, uint64(n))), w.short) })
	}
	wg.Go(func() { w.loop(ctx, rand.New(rand.NewPCG(c.Seed, 99)), w.long) })
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch word := lines.Text(); {
		case word == "hold":
			w.holding.Store(true)
		case word == "rest" && !w.resting.Load():
			w.holding.Store(false)
			w.resting.Store(true)
			w.gate.Lock()
			w.late.Wait()
		case word == "go":
			w.holding.Store(false)
			if w.resting.Load() {
				w.resting.Store(false)
				w.gate.Unlock()
			}
		}
		fmt.Fprintln(out, lines.Text())
	}
	return nil
}

// loop takes one turn after another.
func (w *worker) loop(ctx context.Context, r *rand.Rand, turn func(*rand.Rand)) {
	for ctx.Err() == nil {
		w.gate.RLock()
		if ctx.Err() == nil && !w.resting.Load() {
			turn(r)
		}
		w.gate.RUnlock()
		_ = sleep(ctx, between(r, 20*time.Millisecond, 80*time.Millisecond))
	}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

func shortKey(n int) string { return fmt.Sprintf("short-%d", n) }

func (w *worker) short(r *rand.Rand) {
	n := r.IntN(shortKeys)
	w.turn(shortKey(n), shortWait, between(r, shortHold/3, 2*shortHold-shortHold/3), n%2 == 0)
}

func (w *worker) long(*rand.Rand) { w.turn(longKey, longWait, longHold, true) }

// turn acquires a lock, holds it until it is lost or for hold, and releases it. If mayHold
// is set, it goes on to hold it on command.
func (w *worker) turn(name string, wait, hold time.Duration, mayHold bool) {
	key := w.key(name)
	op := w.history.Request("Lock", key)
	lock, err := w.locker.Lock(context.Background(), pglock.Name(key), pglock.Wait(wait))
	if err != nil {
		w.history.Failed(op, err)
		if !errors.Is(err, pglock.ErrNotAcquired) {
			time.Sleep(pause)
		}
		return
	}
	w.history.Acquired(op, key, lock.Token())
	stopWriting := w.startWriting(lock, key, op)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for began, held := time.Now(), true; held; {
		select {
		case <-lock.Done():
			w.history.Notified(op, lock.Err())
			held = false
		case <-ticker.C:
			held = !w.resting.Load() && (mayHold && w.holding.Load() || time.Since(began) < hold)
		}
	}
	w.history.Releasing(op)
	// A write that is late may be in progress: releasing does not wait for it.
	err = lock.Unlock()
	w.history.Released(op, err)
	stopWriting(errors.Is(err, pglock.ErrLost))
}

// key returns the name of a key for this kind of lock.
func (w *worker) key(name string) string {
	if w.TTL > 0 {
		return "lease-" + name
	}
	return "advisory-" + name
}
