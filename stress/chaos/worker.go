//go:build unix

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/goleak"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/engine"
)

// workerEnv is the environment variable that makes a process a worker. Its value is a
// workerConfig as JSON.
const workerEnv = "PGLOCK_CHAOS_WORKER"

// A workerConfig configures a worker.
type workerConfig struct {
	Name       string // for its application_name and its history
	Dir        string // the directory of the history
	DSN        string // for the Locker
	TxDSN      string // for its own transactions
	Pooled     bool   // there is a pooler in front of the server
	Seed       uint64
	Adapter    string // one of adapterNames
	Goroutines int
	Sessions   int
	Heartbeat  time.Duration
	HandOver   time.Duration
	Leases     time.Duration // the TTL of leases; 0 means advisory locks
	Broken     broken        // "" means not broken
}

// keyNames returns the keys that all workers use, by name.
func keyNames(leases bool) map[string]pglock.Key {
	keys := map[string]pglock.Key{
		"report": pglock.Name("report"), "invoice": pglock.Name("invoice"), "import": pglock.Name("import"),
		"export": pglock.Name("export"), "7": pglock.Int(7), "-7": pglock.Int(-7),
		"1/7": pglock.Pair(1, 7), "7/1": pglock.Pair(7, 1),
	}
	if leases { // they are held for longer
		for _, name := range []string{"backup", "billing", "cleanup", "digest", "mail", "quota", "search", "sync"} {
			keys[name] = pglock.Name(name)
		}
	}
	return keys
}

// WorkerMain runs a worker if this process was started as one. A program or test that
// runs rounds starts itself again for each worker, so it must call WorkerMain before
// anything else. WorkerMain reports whether the process was a worker, which must then
// exit, and returns the error of the worker.
func WorkerMain() (bool, error) {
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

// work reads the commands rest, go and close from in, and confirms each on out. It
// returns when in ends, so that it never outlives its parent, and closes what is still
// open.
func work(c workerConfig, in io.Reader, out io.Writer) (err error) {
	rec, err := newRecorder(filepath.Join(c.Dir, c.Name+".jsonl"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rec.close()) }()
	a, err := newAdapter(c)
	if err != nil {
		return err
	}
	opts := []pglock.LockerOption{pglock.Sessions(c.Sessions), pglock.Heartbeat(c.Heartbeat), engine.HandOver(c.HandOver)}
	if c.Leases != 0 {
		opts = []pglock.LockerOption{pglock.Leases(c.Leases)}
	}
	locker, err := pglock.New(a.source, opts...)
	if err != nil {
		return err
	}
	w := &worker{config: c, rec: rec, adapter: a, locker: locker, keys: keyNames(c.Leases != 0), holding: make(map[string][]*holder)}

	ctx, stop := context.WithCancel(context.Background())
	w.gate.Lock() // until the first go
	resting := true
	var wg sync.WaitGroup
	if c.Leases != 0 {
		wg.Go(func() { w.recordSleeps(ctx) })
	}
	for n := range c.Goroutines {
		wg.Go(func() { w.loop(ctx, rand.New(rand.NewPCG(c.Seed, uint64(n)))) })
	}
	shut := sync.OnceFunc(func() {
		stop()
		if resting {
			w.gate.Unlock()
		}
		wg.Wait()
		if err := locker.Close(); err != nil {
			rec.wrong(0, "closing the Locker after everything was released: %v", err)
		}
		a.close()
		if err := goleak.Find(); err != nil {
			rec.wrong(0, "leaked goroutines: %v", err)
		}
	})
	defer shut()
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch word := lines.Text(); {
		case word == "rest" && !resting:
			close(w.hurry)
			w.gate.Lock()
			resting = true
			if s := locker.Stats(); s.Held != 0 || s.Waiting != 0 {
				rec.wrong(0, "everything was released, but Stats returned %+v", s)
			}
		case word == "go" && resting:
			resting = false
			w.hurry = make(chan struct{})
			w.gate.Unlock()
		case word == "close":
			shut()
		}
		fmt.Fprintln(out, lines.Text())
	}
	return nil
}

// A worker acquires and releases locks.
type worker struct {
	config  workerConfig
	rec     *recorder
	adapter *adapter
	locker  *pglock.Locker
	keys    map[string]pglock.Key

	gate  sync.RWMutex  // held shared by each operation, and exclusively during a rest
	hurry chan struct{} // closed when a rest is wanted; guarded by gate

	mu      sync.Mutex // guards holding
	holding map[string][]*holder
}

// A holder is a goroutine that claims a lock. lost reports whether it was notified of
// the loss.
type holder struct {
	op     int64
	shared bool
	lost   func() bool
}

// loop runs one operation after another.
func (w *worker) loop(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		w.gate.RLock()
		if ctx.Err() == nil {
			w.operate(r)
		}
		w.gate.RUnlock()
		pause := 3 * time.Millisecond
		if w.config.Leases != 0 {
			pause = 60 * time.Millisecond // a round is long, and need not keep the machine busy
		}
		time.Sleep(time.Duration(r.Int64N(int64(pause))))
	}
}

// An attempt is an operation in progress.
type attempt struct {
	*worker
	op          int64
	names       []string
	keys        []pglock.Key
	shared      bool
	opts        []pglock.TxOption
	limit       time.Duration // how long the ctx of the wait lasts
	hasDeadline bool          // whether that ctx has a deadline, or is canceled without one
	work        time.Duration // how long to hold
	write       *fencedWrite  // what a holder of leases writes meanwhile, or nil
}

// operate runs one operation, chosen by r.
func (w *worker) operate(r *rand.Rand) {
	all := verbs()
	if w.config.Leases != 0 {
		all = slices.DeleteFunc(all, func(v verb) bool { return isTx(v.name) })
	}
	verb := all[r.IntN(len(all))]
	a := &attempt{
		worker: w, op: w.rec.op(), shared: w.config.Leases == 0 && r.IntN(3) == 0, work: duration(r),
		limit: 1500 * time.Millisecond, hasDeadline: r.IntN(2) == 0,
	}
	if w.config.Leases != 0 {
		a.work = leaseDuration(r, w.config.Leases)
		a.write = newFencedWrite(r, w.config.Leases)
	}
	names := slices.Sorted(maps.Keys(w.keys))
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	n := 1
	if verb.multi {
		n = 2 + r.IntN(3)
	}
	a.names = names[:n]
	for _, name := range a.names {
		a.keys = append(a.keys, w.keys[name])
	}
	if a.shared {
		a.opts = append(a.opts, pglock.Shared())
	}
	e := event{Kind: evRequest, Op: a.op, Verb: verb.name, Keys: a.names, Shared: a.shared}
	if verb.waits {
		switch r.IntN(6) {
		case 0:
			a.opts = append(a.opts, pglock.NoWait())
		case 1:
			a.opts = append(a.opts, pglock.Wait(time.Duration(1+r.IntN(500))*time.Millisecond))
		case 2, 3:
			e.Cancel = true
			a.limit = time.Duration(r.IntN(50_000)) * time.Microsecond
		}
	}
	e.Time = now()
	w.rec.write(e)
	verb.run(a)
}

// duration returns how long to hold a lock: usually very briefly, sometimes for long.
func duration(r *rand.Rand) time.Duration {
	switch n := r.IntN(100); {
	case n < 70:
		return time.Duration(r.IntN(3000)) * time.Microsecond
	case n < 96:
		return time.Duration(5+r.IntN(25)) * time.Millisecond
	default:
		return time.Duration(100+r.IntN(300)) * time.Millisecond
	}
}

// leaseDuration returns how long to hold a lease: often for so long that it must be renewed.
func leaseDuration(r *rand.Rand, ttl time.Duration) time.Duration {
	if r.IntN(10) == 0 {
		return between(r, 0, ttl/2)
	}
	return 3 * duration(r)
}

// waiting returns the ctx for the wait. stop prevents its cancellation, which would
// release a held lock, and reports whether it did so in time.
func (a *attempt) waiting() (ctx context.Context, stop func() bool) {
	ctx, cancel := context.WithCancel(context.Background())
	return ctx, time.AfterFunc(a.limit, cancel).Stop
}

// recordFailure records that the locks were not acquired.
func (a *attempt) recordFailure(o outcome, err error) {
	a.rec.write(event{Time: now(), Kind: evFailed, Op: a.op, Outcome: o, Text: err.Error()})
	if o != outHeld && o != outCanceled {
		time.Sleep(20 * time.Millisecond) // as a real program would
	}
}

// hold records that the locks were acquired, and holds them for a while, or until done
// is closed because they are lost; then why returns the error. A transaction is not
// notified. lock is the handle, or nil if there is none.
func (a *attempt) hold(lock *pglock.Lock, done <-chan struct{}, why func() error) {
	e := event{Time: now(), Kind: evAcquired, Op: a.op}
	if lock != nil && len(a.keys) == 1 { // otherwise the locks may be on several sessions
		e.PID = lock.PID()
	}
	if lock != nil && a.config.Leases != 0 {
		e.Token, e.Key = lock.Token(), a.nameOf(lock.Keys()[0])
	}
	a.rec.write(e)
	h := &holder{a.op, a.shared, func() bool { return why() != nil }}
	if done != nil {
		a.enter(h)
	}
	written := a.write.start(a, lock)
	work := a.work
	if a.config.Broken == ignoring {
		done, work = nil, work+max(ignoringFor, 2*a.config.Leases)
	}
	timer := time.NewTimer(work)
	defer timer.Stop()
	hurry := a.hurry
	if a.config.Leases == 0 || a.config.Broken == ignoring {
		hurry = nil
	}
	for worked, lost := timer.C, done; worked != nil || written != nil; {
		select {
		case <-worked:
			worked = nil
		case <-hurry:
			worked, hurry = nil, nil
		case <-written:
			written = nil
		case <-lost:
			worked, written = nil, nil
			a.rec.write(event{Time: now(), Kind: evNotified, Op: a.op, Text: why().Error()})
		}
	}
	if a.config.Leases != 0 && lock != nil {
		if t := now(); why() == nil {
			a.rec.write(event{Time: t, Kind: evChecked, Op: a.op})
		}
	}
	a.leave(h)
	a.rec.write(event{Time: now(), Kind: evReleasing, Op: a.op})
}

// nameOf returns the name of a key.
func (w *worker) nameOf(key pglock.Key) string {
	for name, k := range w.keys {
		if k == key {
			return name
		}
	}
	return ""
}

// recordRelease records the result of the release.
func (a *attempt) recordRelease(o outcome, err error) {
	e := event{Time: now(), Kind: evReleased, Op: a.op, Outcome: o}
	if err != nil {
		e.Text = err.Error()
	}
	a.rec.write(e)
}

// enter adds a holder. Any holder of this process that it excludes must have released
// the lock or been notified of its loss by now: within a process, there is no delay.
func (a *attempt) enter(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range a.names {
		for _, other := range a.holding[name] {
			// With several keys, one may be lost before the last is acquired: then the
			// new holder is notified, too. Check it last: if it holds now, it held when
			// the other was checked.
			if (!h.shared || !other.shared) && !other.lost() && !h.lost() {
				a.rec.wrong(a.op, "was granted %s, but #%d of the same process was not notified of its loss", name, other.op)
			}
		}
		a.holding[name] = append(a.holding[name], h)
	}
}

// leave removes a holder.
func (a *attempt) leave(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range a.names {
		a.holding[name] = slices.DeleteFunc(a.holding[name], func(other *holder) bool { return other == h })
	}
}

const (
	sleepCheck = 20 * time.Millisecond
	// leastSleep is how late the check for sleeps must be to be recorded. Holders of leases
	// have more time than that to stop.
	leastSleep = 300 * time.Millisecond
)

// recordSleeps records when the process did not run: it was stopped, or the machine is
// overloaded.
func (w *worker) recordSleeps(ctx context.Context) {
	for last := now(); sleep(ctx, sleepCheck) == nil; {
		t := now()
		if time.Duration(t-last) > leastSleep {
			w.rec.write(event{Time: last, Kind: evSlept, End: t})
		}
		last = t
	}
}
