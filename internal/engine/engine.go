package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Key is the number of an advisory lock, or the name and the slot of a lease. If Pair is
// set, the number is two 32-bit numbers, the first in the upper half.
type Key struct {
	ID   int64
	Name string
	Slot int32
	Pair bool
}

// A Mode is how a lock is held.
type Mode uint8

const (
	Exclusive Mode = iota
	Shared
)

// A Conn is one connection, as the engine needs it. The root package's Session documents
// what each method promises.
type Conn interface {
	QueryTextSimple(ctx context.Context, sql string) (string, error)
	Exec(ctx context.Context, sql string, args ...any) error
	QueryText(ctx context.Context, sql string, args ...string) (string, error)
	Watch(ctx context.Context) error
	PID() uint32
	Close() error
}

// A Config configures an Engine. Every field except Log and Lease must be set.
type Config struct {
	Open        func(context.Context) (Conn, error)
	Sessions    int           // the maximum number of sessions
	Slice       time.Duration // how long the first wait in Postgres lasts
	HandOver    time.Duration // how long a lock is handed over within the process
	Heartbeat   time.Duration // a silent loss is noticed within this time
	AllowPooler bool
	Log         *slog.Logger
	Lease       *LeaseConfig // take leases, not advisory locks
}

// An Engine takes advisory locks for one process.
type Engine struct {
	config Config
	ctx    context.Context // ends when the sessions must end
	cancel context.CancelFunc
	wg     sync.WaitGroup // counts the goroutines of the sessions

	roundTrips atomic.Uint64
	readyChans sync.Pool // unused Hold.ready channels, empty

	mu           sync.Mutex // guards everything below, and the guarded fields of sessions, localLocks and Holds
	sessions     []*session // in the order they were opened, without lost ones
	locks        map[Key]*localLock
	unusedLocks  []*localLock  // for reuse
	pollers      pollList      // locks that wait for a session to wait on, the next first
	joiners      pollList      // shared locks whose readers wait until they may join
	polling      bool          // the timer of both lists runs
	nextSample   time.Time     // no holders are queried until then
	noOpenUntil  time.Time     // no session is opened until then
	monitor      monitor       // checks the long waits
	toWake       []*session    // that must be woken when mu is unlocked
	ready        queue         // Holds that have a reply, to be notified when mu is unlocked
	closed       bool          // no new locks are taken
	held         int           // number of granted Holds
	provedServer string        // the server that has proved to have advisory locks
	drained      chan struct{} // made by Close, closed when no lock is left
	stats        Stats
}

// New returns an Engine. It opens its first session when one is needed.
func New(config Config) *Engine {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{config: config, ctx: ctx, cancel: cancel, locks: make(map[Key]*localLock)}
	e.monitor.engine = e
	e.readyChans.New = func() any { return make(chan struct{}, 1) }
	return e
}

// A Wait limits how long a request may take. The zero value means until its ctx is done.
type Wait struct {
	No  bool          // do not wait for a lock that is held
	For time.Duration // limits the whole request, including connecting, if not 0

	// Part means that the caller continues the request as another one when For is over,
	// so that running into For does not count as a refusal.
	Part bool

	// Step means that the request is a step of a larger one. It counts neither as a grant
	// nor as a refusal: its caller calls [Engine.Count].
	Step bool

	Terms LeaseTerms
}

// LeaseTerms are what a request for a lease says besides its key. The zero value says nothing.
type LeaseTerms struct {
	Every time.Duration // how long nobody may take it again, from when it is taken
	Note  string        // what the holder says about itself
}

// Acquire acquires the lock. On error nothing is held. The error is [ErrNotAcquired] if a
// server reported that the lock is held, and [ErrUnavailable] if no server replied; both
// wrap ctx's error if ctx ended the wait. Any other error is what prevented it.
func (e *Engine) Acquire(ctx context.Context, key Key, mode Mode, wait Wait) (*Hold, error) {
	if ctx.Err() != nil {
		return nil, noReplyError(ctx)
	}
	h := e.newHold(mode, wait.No)
	h.partial, h.step = wait.Part, wait.Step
	h.setTerms(wait.Terms)
	h.setDeadline(ctx, wait)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	e.localLock(key).request(h)
	e.unlockMuAndHelp()
	acquired, settled, err := h.awaitRequest(ctx, wait)
	if settled != nil && !awaitSettled(settled) {
		h.killWait(settled)
	}
	return acquired, err
}

// AcquireAll tries to acquire several locks in shared round trips, without waiting
// for locks that are held. It returns a Hold or an error for each key.
func (e *Engine) AcquireAll(ctx context.Context, keys []Key, mode Mode, wait Wait) ([]*Hold, []error) {
	wait.No = true
	holds, errs := make([]*Hold, len(keys)), make([]error, len(keys))
	fail := func(err error) ([]*Hold, []error) {
		for i := range errs {
			errs[i] = err
		}
		return holds, errs
	}
	if ctx.Err() != nil {
		return fail(noReplyError(ctx))
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return fail(ErrClosed)
	}
	for i, key := range keys {
		holds[i] = e.newHold(mode, true)
		holds[i].setTerms(wait.Terms)
		holds[i].setDeadline(ctx, wait)
		e.localLock(key).request(holds[i])
	}
	e.unlockMuAndHelp()
	var underWay []<-chan struct{}
	for i := range holds {
		var settled chan struct{}
		holds[i], settled, errs[i] = holds[i].awaitRequest(ctx, wait)
		if settled != nil {
			underWay = append(underWay, settled)
		}
	}
	if underWay != nil {
		awaitSettled(underWay...)
	}
	return holds, errs
}

// ReleaseAll releases several locks in shared round trips, and returns the error of
// each Release.
func (e *Engine) ReleaseAll(holds []*Hold) []error {
	errs, pending := make([]error, len(holds)), make([]bool, len(holds))
	e.mu.Lock()
	for i, h := range holds {
		pending[i], errs[i] = h.beginRelease()
	}
	e.unlockMuAndHelp()
	began := e.releaseBegan()
	for i, h := range holds {
		if pending[i] {
			errs[i] = h.awaitRelease(began)
		}
	}
	return errs
}

// Query runs a statement that returns one text value, on a session that is not waiting
// for a lock. ctx bounds only the wait for the result. A statement that takes longer than
// half a heartbeat costs its session.
func (e *Engine) Query(ctx context.Context, sql string, args ...string) (string, error) {
	if ctx.Err() != nil {
		return "", noReplyError(ctx)
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return "", ErrClosed
	}
	q := e.sideSession().pushQuery(sql, args)
	e.unlockMu()
	return q.await(ctx)
}

// Dropped records and logs that the handle of a held lock was dropped.
func (e *Engine) Dropped(what string) {
	e.mu.Lock()
	closed := e.closed
	e.stats.Dropped++
	e.unlockMu()
	if !closed {
		e.logWarn("a lock handle was dropped without Unlock: the lock stays held until the Locker is closed", "lock", what)
	}
}

// closeTimeout is how long Close waits until held locks are unlocked.
const closeTimeout = 5 * time.Second

// Close ends the Engine. It takes no new locks, ends all waiting with [ErrClosed], calls
// the functions given to [Hold.OnLoss], waits up to five seconds until held locks are
// unlocked, and closes the sessions. Locks that are still held then are lost. Close
// returns their number.
func (e *Engine) Close() (lost int) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		e.wg.Wait()
		return 0
	}
	e.closed = true
	for _, l := range e.locks {
		l.refuse(ErrClosed, anyHold)
		for _, h := range l.holders {
			for _, f := range h.onLoss {
				f(ErrClosed)
			}
		}
		l.abandon()
	}
	if len(e.locks) > 0 {
		e.drained = make(chan struct{})
		drained := e.drained
		e.unlockMu()
		timer := time.NewTimer(closeTimeout)
		select {
		case <-drained:
		case <-timer.C:
		}
		timer.Stop()
		e.mu.Lock()
	}
	lost = e.held
	for len(e.sessions) > 0 {
		if s := e.sessions[0]; s.busy && (len(s.batch) > 0 || !s.open || !s.shared) {
			s.kill() // it would not check for work before its reply arrives; a pooler's session is reset first
		}
		e.sessions[0].markLost(ErrClosed)
	}
	e.unlockMu()
	e.cancel()
	e.wg.Wait()
	return lost
}

// unlockMu unlocks Engine.mu, wakes the sessions with new operations, and notifies the
// Holds with a reply.
func (e *Engine) unlockMu() {
	for _, s := range e.toWake {
		s.needsWake = false
		if len(s.queue) > 0 {
			s.wake()
		}
	}
	clear(e.toWake)
	e.toWake = e.toWake[:0]
	e.unlockMuAndNotify()
}

// unlockMuAndNotify unlocks Engine.mu and notifies the Holds that have a result.
func (e *Engine) unlockMuAndNotify() {
	h := e.ready.first
	e.ready = queue{}
	e.mu.Unlock()
	for h != nil {
		next := h.next
		h.prev, h.next = nil, nil
		h.ready <- struct{}{} // has room; from here on h belongs to its caller
		h = next
	}
}

func (e *Engine) logWarn(msg string, args ...any) {
	if e.config.Log != nil {
		e.config.Log.Warn("pglock: "+msg, args...)
	}
}
