package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Key is the number of an advisory lock. If Pair is set, it is two 32-bit numbers, the
// first in the upper half.
type Key struct {
	ID   int64
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

// A Config configures an Engine. Every field except Log must be set.
type Config struct {
	Open        func(context.Context) (Conn, error)
	Sessions    int           // the maximum number of sessions
	Slice       time.Duration // how long the first wait in Postgres lasts
	HandOver    time.Duration // how long a lock is handed over within the process
	Heartbeat   time.Duration // a silent loss is noticed within this time
	AllowPooler bool
	Log         *slog.Logger
}

// Limits and durations that nobody needs to choose.
const (
	// openTimeout bounds opening the only session. extraOpenTimeout applies if there is
	// another session, which can do the work.
	openTimeout      = 15 * time.Second
	extraOpenTimeout = 5 * time.Second
	// openPause is how long no session is opened after opening one failed.
	openPause = 2 * time.Second
	// closeTimeout is how long Close waits until held locks are unlocked.
	closeTimeout = 5 * time.Second
	// freshTime is how long a reply proves that a session is alive, so that not every
	// hand-over within the process needs a confirmation.
	freshTime = 2 * time.Millisecond
	// resetTimeout bounds resetting the settings of a pooler's session.
	resetTimeout = 3 * time.Second
	// idleSpin is how long a session waits for work before it blocks in Watch, which is
	// slower to leave.
	idleSpin = 10 * time.Millisecond
	// idleTimeout is how long a session that holds nothing is kept.
	idleTimeout = time.Minute
	// pollInterval is the time between two tries if no session is free to wait.
	pollInterval = 20 * time.Millisecond
	// maxWait limits how long one statement waits for a lock.
	maxWait = 15 * time.Minute
	// monitorInterval is the time between two checks whether other sessions wait for one of
	// our waiting statements. It is shorter than Postgres' deadlock_timeout, 1 s by
	// default. After a slow check the pause is monitorPause times as long as the check.
	monitorInterval = 300 * time.Millisecond
	monitorPause    = 20
	// maxRetries is how often a request moves to another session after its session was
	// lost.
	maxRetries = 2
)

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
	pollers      []*localLock  // that wait for a session to wait on
	noOpenUntil  time.Time     // no session is opened until then
	monitoring   bool          // a check of the long waits is running or scheduled
	toWake       []*session    // that must be woken when mu is unlocked
	ready        queue         // Holds that have a reply, to be notified when mu is unlocked
	closed       bool          // no new locks are taken
	held         int           // number of granted Holds
	provedServer string        // the server that has proved to have advisory locks
	drained      chan struct{} // made by Close, closed when no lock is left
	stats        Stats
}

// Stats are counters since the Engine was created. The first three are current values
// instead.
type Stats struct {
	Sessions int // open sessions, and those being opened
	Held     int // locks held
	Waiting  int // requests waiting for a lock

	Acquired   uint64 // locks granted
	Refused    uint64 // requests that ended without the lock
	Lost       uint64 // locks lost with their session
	Dropped    uint64 // locks still held whose handle was dropped
	HandOvers  uint64 // locks passed from one holder to the next without Postgres
	RoundTrips uint64 // statements run
}

// New returns an Engine. It opens its first session when one is needed.
func New(config Config) *Engine {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{config: config, ctx: ctx, cancel: cancel, locks: make(map[Key]*localLock)}
	e.readyChans.New = func() any { return make(chan struct{}, 1) }
	return e
}

// Stats returns the current statistics.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Sessions, s.Held, s.RoundTrips = len(e.sessions), e.held, e.roundTrips.Load()
	for _, l := range e.locks {
		s.Waiting += l.queue.len()
	}
	return s
}

// A Wait limits how long a request may take. The zero value means until its ctx is done.
type Wait struct {
	No  bool          // do not wait for a lock that is held
	For time.Duration // limits the whole request, including connecting, if not 0

	// Part means that the caller continues the request as another one when For is over,
	// so that running into For does not count as a refusal.
	Part bool
}

// Acquire acquires the lock. On error nothing is held. The error is [ErrNotAcquired] if a
// server reported that the lock is held, and [ErrUnavailable] if no server replied; both
// wrap ctx's error if ctx ended the wait. Any other error is what prevented it.
func (e *Engine) Acquire(ctx context.Context, key Key, mode Mode, wait Wait) (*Hold, error) {
	if ctx.Err() != nil {
		return nil, noReplyError(ctx)
	}
	h := e.newHold(mode, wait.No)
	h.partial = wait.Part
	h.setDeadline(ctx, wait)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	e.request(e.localLock(key), h)
	e.unlockMuAndHelp()
	acquired, settled, err := h.awaitRequest(ctx, wait)
	if settled != nil && !awaitSettled(settled) {
		e.killWait(h.lock, settled)
	}
	return acquired, err
}

// AcquireAll tries to acquire several locks in shared round trips, without waiting
// for locks that are held. It returns a Hold or an error for each key. If limit is not 0,
// it bounds the whole call.
func (e *Engine) AcquireAll(ctx context.Context, keys []Key, mode Mode, limit time.Duration) ([]*Hold, []error) {
	wait := Wait{No: true, For: limit}
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
		holds[i].setDeadline(ctx, wait)
		e.request(e.localLock(key), holds[i])
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
	errs, asked := make([]error, len(holds)), make([]bool, len(holds))
	e.mu.Lock()
	for i, h := range holds {
		asked[i], errs[i] = h.beginRelease()
	}
	e.unlockMuAndHelp()
	for i, h := range holds {
		if asked[i] {
			errs[i] = h.awaitRelease()
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
	q := &query{sql: sql, args: args, ready: make(chan struct{})}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return "", ErrClosed
	}
	e.sideSession().push(op{kind: opQuery, query: q})
	e.unlockMu()
	select {
	case <-q.ready:
		return q.reply, q.err
	case <-ctx.Done():
		return "", noReplyError(ctx)
	}
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

// Close ends the Engine. It takes no new locks, ends all waiting with [ErrClosed], calls
// the functions given to [Hold.Notify], waits up to five seconds until held locks are
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
		for h := l.queue.front(); h != nil; h = l.queue.front() {
			l.queue.remove(h)
			h.refuse(ErrClosed)
		}
		for _, h := range l.holders {
			for _, f := range h.notify {
				f(ErrClosed)
			}
		}
		e.abandon(l)
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
		e.sessionLost(e.sessions[0], ErrClosed)
	}
	e.unlockMu()
	e.cancel()
	e.wg.Wait()
	return lost
}

// localLock returns the lock of key, and creates it if necessary.
func (e *Engine) localLock(key Key) *localLock {
	if l := e.locks[key]; l != nil {
		return l
	}
	var l *localLock
	if last := len(e.unusedLocks) - 1; last >= 0 {
		l = e.unusedLocks[last]
		e.unusedLocks[last] = nil
		e.unusedLocks = e.unusedLocks[:last]
	} else {
		l = new(localLock)
	}
	*l = localLock{key: key}
	l.holders = l.first[:0]
	e.locks[key] = l
	return l
}

// maxUnusedLocks is how many unused localLocks are kept for reuse.
const maxUnusedLocks = 1024

// dropLock removes an idle lock that nobody wants.
func (e *Engine) dropLock(l *localLock) {
	delete(e.locks, l.key)
	if !l.probing && len(e.unusedLocks) < maxUnusedLocks { // no operation under way points to it
		e.unusedLocks = append(e.unusedLocks, l)
	}
	if len(e.locks) == 0 && e.drained != nil {
		close(e.drained)
		e.drained = nil
	}
}

// maxLocksPerSession limits how many locks a session holds before new ones go to another
// session. At the end of every transaction Postgres walks through all locks of the
// backend (LockReleaseAll in lock.c), so they slow down every later statement: 10,000
// locks cost a millisecond, 50,000 ten.
const maxLocksPerSession = 10_000

// canOpen reports whether another session may be opened.
func (e *Engine) canOpen() bool {
	return len(e.sessions) < e.config.Sessions && (len(e.sessions) == 0 || !time.Now().Before(e.noOpenUntil))
}

// servingSession returns a session other than except that is not waiting for a lock, or
// that will soon not be. It returns nil if there is no other session.
func (e *Engine) servingSession(except *session) *session {
	var opening, lightest, waiting *session
	for _, s := range e.sessions {
		switch {
		case s == except:
		case s.waiting != nil:
			if waiting == nil {
				waiting = s
			}
		case len(s.held)+len(s.queue) >= maxLocksPerSession:
			if lightest == nil || len(s.held)+len(s.queue) < len(lightest.held)+len(lightest.queue) {
				lightest = s
			}
		case s.open:
			return s
		case opening == nil:
			opening = s
		}
	}
	switch {
	case opening != nil:
		return opening
	case lightest != nil && len(e.sessions) >= e.config.Sessions/2:
		return lightest // the other half is for waiting
	case e.canOpen():
		return e.openSession()
	case lightest != nil:
		return lightest
	}
	return waiting // its queue is served between two waits
}

// idleSession returns an open session other than except that waits for nothing and can be
// used at once, or nil.
func (e *Engine) idleSession(except *session) *session {
	for _, s := range e.sessions {
		if s != except && s.open && s.waiting == nil {
			return s
		}
	}
	return nil
}

// waitSession returns an open session that holds nothing and has nothing to do. If there is
// none, it opens one if there is room, and returns nil. If there may be more than one
// session, it keeps one free for requests that do not wait.
func (e *Engine) waitSession() *session {
	waiting := 0
	var idle *session
	opening := false
	for _, s := range e.sessions {
		switch {
		case s.waiting != nil:
			waiting++
		case !s.open:
			opening = true
		case len(s.held) == 0 && len(s.queue) == 0 && len(s.batch) == 0:
			idle = s
		}
	}
	most := e.config.Sessions
	if !e.canOpen() {
		most = len(e.sessions)
	}
	switch {
	case most > 1 && waiting >= most-1:
		return nil
	case idle != nil:
		return idle
	case !opening && e.canOpen():
		e.openSession()
	}
	return nil
}

// sessionOpened gives work to a session that was just opened.
func (e *Engine) sessionOpened(s *session) {
	if len(e.pollers) == 0 || len(s.queue) > 0 {
		return
	}
	if e.waitSession() == s {
		e.waitOn(e.nextPoller(), s)
	}
}

// sideSession returns a session for a statement that may take long. It prefers one that
// holds nothing, so that no lock is lost if the statement takes too long.
func (e *Engine) sideSession() *session {
	for _, s := range e.sessions {
		if s.waiting == nil && len(s.held) == 0 {
			return s
		}
	}
	if e.canOpen() {
		return e.openSession()
	}
	return e.servingSession(nil)
}

// openSession starts a new session. Queued operations run when it is open.
func (e *Engine) openSession() *session {
	s := &session{engine: e, owner: runner, busy: true, wakeup: make(chan struct{}, 1), forgetBackend: func() {}}
	e.sessions = append(e.sessions, s)
	e.wg.Add(1)
	go s.run()
	return s
}

func (e *Engine) logWarn(msg string, args ...any) {
	if e.config.Log != nil {
		e.config.Log.Warn("pglock: "+msg, args...)
	}
}
