package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Key is an advisory lock's number. Pair says that it is two 32-bit numbers,
// the first one in the upper half.
type Key struct {
	ID   int64
	Pair bool
}

// Mode is how a lock is held.
type Mode uint8

const (
	Exclusive Mode = iota
	Shared
)

// A Conn is what the engine needs of a session. The root package's Session says
// what each method promises.
type Conn interface {
	AskSimple(ctx context.Context, sql string) (string, error)
	Exec(ctx context.Context, sql string, args ...any) error
	Ask(ctx context.Context, sql string, args ...string) (string, error)
	Watch(ctx context.Context) error
	PID() uint32
	Close() error
}

// Config is what an Engine is made of. Every field must be set.
type Config struct {
	Open        func(context.Context) (Conn, error)
	Sessions    int           // the most sessions at a time
	Slice       time.Duration // the first wait in one statement
	HandOver    time.Duration // how long a lock goes from hand to hand within the process
	Heartbeat   time.Duration // within which a silent loss is noticed
	AllowPooler bool
	Log         *slog.Logger
}

// How long things may take that nobody needs to choose.
const (
	// openTimeout bounds the opening of a session; if there is another one, which can
	// do its work, moreTimeout does.
	openTimeout = 15 * time.Second
	moreTimeout = 5 * time.Second
	// fullPause is how long no further session is opened after one was not to be had.
	fullPause = 2 * time.Second
	// closeTimeout is how long Close waits for what is held to be unlocked.
	closeTimeout = 5 * time.Second
	// freshTime is for how long an answer of a session proves that it is there, so that
	// locks that go from hand to hand within the process need not be confirmed each time.
	freshTime = 2 * time.Millisecond
	// resetTimeout bounds the taking back of settings on a pooler's session.
	resetTimeout = 3 * time.Second
	// hot is how long a session waits for more work before it listens for its
	// loss, which costs more to be called back from.
	hot = 10 * time.Millisecond
	// idleTimeout is how long a session is kept that holds nothing.
	idleTimeout = time.Minute
	// pollInterval is between two tries when no session is free to wait.
	pollInterval = 20 * time.Millisecond
	// maxWait is the longest that one statement waits for a lock.
	maxWait = 15 * time.Minute
	// lookInterval is between two looks whether others wait for a statement of ours that
	// waits: shorter than Postgres' deadlock_timeout, 1 s by default. A look that takes
	// long is followed by a pause of lookPause times as long.
	lookInterval = 300 * time.Millisecond
	lookPause    = 20
	// retries is how often a request is taken to another session after the
	// one that it was on was lost.
	retries = 2
)

// An Engine takes advisory locks for one process.
type Engine struct {
	config Config
	ctx    context.Context // ends when the sessions must
	cancel context.CancelFunc
	wg     sync.WaitGroup // the goroutines of the sessions

	roundTrips atomic.Uint64
	channels   sync.Pool // for Holds to be told by, empty

	mu      sync.Mutex // guards everything below, and the insides of conns, entries and Holds
	conns   []*conn    // in the order of their opening, none that is lost
	entries map[Key]*entry
	unused  []*entry      // to be used again
	pollers []*entry      // that wait for a session to wait on
	full    time.Time     // until when no further session is opened
	looking bool          // a look is under way or due
	rung    []*conn       // that have something new in their queues
	woken   queue         // Holds that have an answer, to be told once mu is given up
	closed  bool          // no new locks
	held    int           // Holds that are granted
	proved  string        // the server that proved to have advisory locks
	drained chan struct{} // made by Close, closed when there is no entry any more
	stats   Stats
}

// Stats are counts since the Engine was made, but for the first three, which are
// of now.
type Stats struct {
	Sessions int // sessions that are open or being opened
	Held     int // locks held
	Waiting  int // requests that wait for a lock

	Acquired   uint64 // locks granted
	Refused    uint64 // requests that ended without the lock
	Lost       uint64 // locks lost with their session
	Dropped    uint64 // locks whose handle was dropped, and that are still held
	HandOvers  uint64 // locks that went from one holder to the next without Postgres
	RoundTrips uint64 // statements run
}

// New makes an Engine. It opens no session before one is needed.
func New(config Config) *Engine {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{config: config, ctx: ctx, cancel: cancel, entries: make(map[Key]*entry)}
	e.channels.New = func() any { return make(chan struct{}, 1) }
	return e
}

// Stats tells how things stand.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Sessions, s.Held, s.RoundTrips = len(e.conns), e.held, e.roundTrips.Load()
	for _, ent := range e.entries {
		s.Waiting += ent.queue.len()
	}
	return s
}

// Wait says how long a request may take. The zero value is as long as its ctx.
type Wait struct {
	No  bool          // not to wait for a lock that is held
	For time.Duration // for the whole request, connecting included, if not 0

	// Part says that the request goes on, as another one, when For is over: that it was
	// refused by then is not counted.
	Part bool
}

// Acquire gets the lock or returns why not: [ErrNotAcquired] if a server said that the
// lock is held, [ErrUnavailable] if none could say, both with ctx's error if that ended
// the wait, or what else prevents it. In that case nothing is held.
func (e *Engine) Acquire(ctx context.Context, key Key, mode Mode, wait Wait) (*Hold, error) {
	if ctx.Err() != nil {
		return nil, unanswered(ctx)
	}
	h := e.newHold(mode, wait.No)
	h.part = wait.Part
	h.bound(ctx, wait)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	e.ask(e.entry(key), h)
	e.unlockAndHelp()
	acquired, settled, err := h.await(ctx, wait)
	if settled != nil && !settle(settled) {
		e.hurry(h.ent, settled)
	}
	return acquired, err
}

// AcquireTogether is Acquire without waiting for locks that are held, for several keys
// at once, which travel together. It returns a Hold or an error for each, within limit
// if that is not 0.
func (e *Engine) AcquireTogether(ctx context.Context, keys []Key, mode Mode, limit time.Duration) ([]*Hold, []error) {
	wait := Wait{No: true, For: limit}
	holds, errs := make([]*Hold, len(keys)), make([]error, len(keys))
	fail := func(err error) ([]*Hold, []error) {
		for i := range errs {
			errs[i] = err
		}
		return holds, errs
	}
	if ctx.Err() != nil {
		return fail(unanswered(ctx))
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return fail(ErrClosed)
	}
	for i, key := range keys {
		holds[i] = e.newHold(mode, true)
		holds[i].bound(ctx, wait)
		e.ask(e.entry(key), holds[i])
	}
	e.unlockAndHelp()
	var underWay []<-chan struct{}
	for i := range holds {
		var settled chan struct{}
		holds[i], settled, errs[i] = holds[i].await(ctx, wait)
		if settled != nil {
			underWay = append(underWay, settled)
		}
	}
	if underWay != nil {
		settle(underWay...)
	}
	return holds, errs
}

// ReleaseTogether is Release for several, which travel together.
func (e *Engine) ReleaseTogether(holds []*Hold) []error {
	errs, asked := make([]error, len(holds)), make([]bool, len(holds))
	e.mu.Lock()
	for i, h := range holds {
		asked[i], errs[i] = h.begin()
	}
	e.unlockAndHelp()
	for i, h := range holds {
		if asked[i] {
			errs[i] = h.answer()
		}
	}
	return errs
}

// Query runs a statement of one text value on a session that is not waiting, and
// returns its answer. ctx bounds the waiting for it. A statement that takes longer
// than half a heartbeat costs its session.
func (e *Engine) Query(ctx context.Context, sql string, args ...string) (string, error) {
	if ctx.Err() != nil {
		return "", unanswered(ctx)
	}
	q := &query{sql: sql, args: args, ready: make(chan struct{})}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return "", ErrClosed
	}
	e.aside().push(op{kind: opQuery, query: q})
	e.unlock()
	select {
	case <-q.ready:
		return q.answer, q.err
	case <-ctx.Done():
		return "", unanswered(ctx)
	}
}

// Dropped says that the handle of a lock was dropped that is still held.
func (e *Engine) Dropped(what string) {
	e.mu.Lock()
	closed := e.closed
	e.stats.Dropped++
	e.unlock()
	if !closed {
		e.logWarn("the handle of a lock was dropped without Unlock: it is held until the Locker is closed", "lock", what)
	}
}

// Close takes no new locks, ends all waiting with [ErrClosed], tells those who
// asked to be told (see [Hold.Notify]), waits for what is held to be unlocked,
// for five seconds at the most, and ends the sessions. What is held even then is
// lost. It returns how many locks that were.
func (e *Engine) Close() (lost int) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		e.wg.Wait()
		return 0
	}
	e.closed = true
	for _, ent := range e.entries {
		for h := ent.queue.front(); h != nil; h = ent.queue.front() {
			ent.queue.remove(h)
			h.refuse(ErrClosed)
		}
		for _, h := range ent.holders {
			for _, f := range h.notify {
				f(ErrClosed)
			}
		}
		e.abandon(ent)
	}
	if len(e.entries) > 0 {
		e.drained = make(chan struct{})
		drained := e.drained
		e.unlock()
		timer := time.NewTimer(closeTimeout)
		select {
		case <-drained:
		case <-timer.C:
		}
		timer.Stop()
		e.mu.Lock()
	}
	lost = e.held
	for len(e.conns) > 0 {
		if c := e.conns[0]; c.busy && (len(c.batch) > 0 || !c.open || !c.shared) {
			c.kill() // it would not look up before it has its answer; one that is lent is reset first
		}
		e.lose(e.conns[0], ErrClosed)
	}
	e.unlock()
	e.cancel()
	e.wg.Wait()
	return lost
}

// entry finds the key's entry or makes one.
func (e *Engine) entry(key Key) *entry {
	if ent := e.entries[key]; ent != nil {
		return ent
	}
	var ent *entry
	if last := len(e.unused) - 1; last >= 0 {
		ent = e.unused[last]
		e.unused[last] = nil
		e.unused = e.unused[:last]
	} else {
		ent = new(entry)
	}
	*ent = entry{key: key}
	ent.holders = ent.first[:0]
	e.entries[key] = ent
	return ent
}

// maxUnused is how many entries are kept to be used again.
const maxUnused = 1024

// drop takes away an entry that is idle and wanted by nobody.
func (e *Engine) drop(ent *entry) {
	delete(e.entries, ent.key)
	if !ent.probing && len(e.unused) < maxUnused { // nothing that is under way points to it
		e.unused = append(e.unused, ent)
	}
	if len(e.entries) == 0 && e.drained != nil {
		close(e.drained)
		e.drained = nil
	}
}

// laden is how many locks a session takes before new ones go to another. Whenever
// a transaction ends, Postgres walks through all locks that its backend holds
// (LockReleaseAll in lock.c), which are an expense to every later statement: with
// 10,000 it is a millisecond, with 50,000 ten.
const laden = 10_000

// room reports whether a further session may be opened.
func (e *Engine) room() bool {
	return len(e.conns) < e.config.Sessions && (len(e.conns) == 0 || !time.Now().Before(e.full))
}

// serving returns a session that is not waiting for a lock, or that soon will not be;
// other than not, and nil if there is no other.
func (e *Engine) serving(not *conn) *conn {
	var opening, lightest, waiting *conn
	for _, c := range e.conns {
		switch {
		case c == not:
		case c.waiting != nil:
			if waiting == nil {
				waiting = c
			}
		case len(c.held)+len(c.queue) >= laden:
			if lightest == nil || len(c.held)+len(c.queue) < len(lightest.held)+len(lightest.queue) {
				lightest = c
			}
		case c.open:
			return c
		case opening == nil:
			opening = c
		}
	}
	switch {
	case opening != nil:
		return opening
	case lightest != nil && len(e.conns) >= e.config.Sessions/2:
		return lightest // the other half is for those who wait
	case e.room():
		return e.open()
	case lightest != nil:
		return lightest
	}
	return waiting // its queue is served between two waits
}

// idle returns an open session other than not that waits for nothing and can be asked
// at once, or nil.
func (e *Engine) idle(not *conn) *conn {
	for _, c := range e.conns {
		if c != not && c.open && c.waiting == nil {
			return c
		}
	}
	return nil
}

// waiter returns an open session that holds nothing and has nothing to do, or nil; then
// one is being opened, if there is room. It leaves one session to those who do not wait,
// if there may be more than one.
func (e *Engine) waiter() *conn {
	waiting := 0
	var idle *conn
	opening := false
	for _, c := range e.conns {
		switch {
		case c.waiting != nil:
			waiting++
		case !c.open:
			opening = true
		case len(c.held) == 0 && len(c.queue) == 0 && len(c.batch) == 0:
			idle = c
		}
	}
	most := e.config.Sessions
	if !e.room() {
		most = len(e.conns)
	}
	switch {
	case most > 1 && waiting >= most-1:
		return nil
	case idle != nil:
		return idle
	case !opening && e.room():
		e.open()
	}
	return nil
}

// opened gives a session that has just been opened something to do.
func (e *Engine) opened(c *conn) {
	if len(e.pollers) == 0 || len(c.queue) > 0 {
		return
	}
	if e.waiter() == c {
		e.waitOn(e.nextPoller(), c)
	}
}

// aside returns a session for a statement that may take long: one that holds nothing,
// so that no lock is lost if it takes too long, unless there is no room for one.
func (e *Engine) aside() *conn {
	for _, c := range e.conns {
		if c.waiting == nil && len(c.held) == 0 {
			return c
		}
	}
	if e.room() {
		return e.open()
	}
	return e.serving(nil)
}

// open begins a session. What is queued for it runs once it is there.
func (e *Engine) open() *conn {
	c := &conn{engine: e, owner: runner, busy: true, wake: make(chan struct{}, 1), forgetBackend: func() {}}
	e.conns = append(e.conns, c)
	e.wg.Add(1)
	go c.run()
	return c
}

func (e *Engine) logWarn(msg string, args ...any) {
	if e.config.Log != nil {
		e.config.Log.Warn("pglock: "+msg, args...)
	}
}
