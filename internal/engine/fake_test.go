package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A server is a fake Postgres. It has advisory locks like Postgres, and can be slow, fail
// or fall silent at any point. It understands only the statements of the folder sql. In a
// synctest bubble, everything it does takes fake time.
type server struct {
	instant bool // the caller runs statements that never wait, at once

	// Set before use.
	cannotWatch bool // its clients do not support Watch
	standby     bool
	pooled      bool                                     // its clients report another PID
	fault       func(b *backend, st *statement) fault    // returns what goes wrong with a statement
	refuse      func() (after time.Duration, err error)  // returns what goes wrong with opening
	granting    func(b *backend, key Key, mode Mode)     // called for each grant, with mu held
	notice      func(b *backend, cut bool) time.Duration // how long until it notices that a client is gone
	closing     time.Duration                            // how long a client takes to close

	mu       sync.Mutex
	wanted   map[Key]time.Time // when it was last held or waited for
	awaited  map[int32]bool    // backends whose end others wait for
	monitors int               // how often awaited was queried
	locks    map[Key]*lock
	backends map[int32]*backend // backends that are alive
	dead     map[int32]time.Time
	lastPID  int32
	opened   int
	wrongs   []string // misuse by clients
	trace    []string
	quiet    bool // no trace
}

func newServer() *server {
	return &server{locks: make(map[Key]*lock), backends: make(map[int32]*backend), dead: make(map[int32]time.Time), wanted: make(map[Key]time.Time), lastPID: 100}
}

// A fault is what goes wrong with one statement.
type fault struct {
	there, back time.Duration // transit times
	takes       time.Duration // how long it runs, unless it is canceled
	err         error         // the error that the server sends
	done        int           // number of the statement's parts that take effect before err
	half        bool          // a probe that fails has taken its lock
	lie         bool          // unlocks report failure
	swap        bool          // another backend replies
	reset       bool          // a ping finds the session's settings gone
	die, cut    point
}

// A point is when a session ends, or its network falls silent.
type point int

const (
	never  point = iota
	before       // before the statement runs
	after        // after it runs, before the reply
)

// A pgError is an error that the server sends.
type pgError string

func (e pgError) Error() string    { return "server says " + string(e) }
func (e pgError) SQLState() string { return string(e) }

var errSocket = errors.New("socket closed")

// A lock is a row of the lock table.
type lock struct {
	held  map[*backend][2]int // how often, by mode
	queue []*waiter
}

type waiter struct {
	b       *backend
	mode    Mode
	granted chan struct{}
}

func conflict(a, b Mode) bool { return a == Exclusive || b == Exclusive }

// A backend is both the server's side of a session and its client, a Conn.
type backend struct {
	server *server
	pid    int32
	start  string

	closed chan struct{} // the client closed its end
	broken chan struct{} // the client sees that the session has ended
	ended  chan struct{} // the server has ended the session
	cancel chan struct{} // holds at most one cancel request

	// Guarded by server.mu.
	using    string // the method that the client is calling
	sent     bool   // a statement is in transit or running
	active   bool   // a statement is running, and can be canceled
	hungUp   bool   // the server knows that the client is gone
	cut      bool   // the network passes nothing any more
	dead     bool
	why      error // the error that the client gets
	isClosed bool
	timeout  time.Duration // lock_timeout
	waited   *heldLock     // the last statement about locks waited for it, and failed
}

// open implements Config.Open.
func (s *server) open(ctx context.Context) (Conn, error) {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		after, err := refuse()
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastPID++
	s.opened++
	b := &backend{
		server: s, pid: s.lastPID, start: fmt.Sprint("start of ", s.lastPID),
		closed: make(chan struct{}), broken: make(chan struct{}), ended: make(chan struct{}), cancel: make(chan struct{}, 1),
	}
	s.backends[b.pid] = b
	s.logf("%d opened", b.pid)
	return b, nil
}

func (s *server) logf(format string, args ...any) {
	if !s.quiet {
		s.trace = append(s.trace, time.Now().Format("05.000000 ")+fmt.Sprintf(format, args...))
	}
}

func (b *backend) PID() uint32 {
	if b.server.pooled {
		return uint32(b.pid) + 1000
	}
	return uint32(b.pid)
}

// enter checks that the client uses one method at a time.
func (b *backend) enter(method string) error {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	if b.using != "" {
		b.server.wrongs = append(b.server.wrongs, method+" while in "+b.using)
	}
	b.using = method
	switch {
	case b.isClosed:
		return errSocket
	case b.why != nil:
		select {
		case <-b.broken: // the error of the session's end is read first
			why := b.why
			b.why = errSocket
			return why
		default:
		}
	}
	return nil
}

func (b *backend) leave() {
	b.server.mu.Lock()
	b.using = ""
	b.server.mu.Unlock()
}

func (b *backend) Watch(ctx context.Context) error {
	if b.server.cannotWatch {
		return fmt.Errorf("fake: %w", errors.ErrUnsupported)
	}
	if err := b.enter("Watch"); err != nil {
		b.leave()
		return err
	}
	defer b.leave()
	select {
	case <-ctx.Done():
		return nil
	case <-b.closed:
		return errSocket
	case <-b.broken:
		return b.readError()
	}
}

// readError returns the error that the client reads at the session's end.
func (b *backend) readError() error {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	why := b.why
	b.why = errSocket
	return why
}

// QueryTextSimple runs the statements that set up a session.
func (b *backend) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	return b.QueryText(ctx, sql)
}

// Exec resets a pooler's session.
func (b *backend) Exec(ctx context.Context, sql string, _ ...any) error {
	_, err := b.QueryText(ctx, sql)
	return err
}

func (b *backend) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	err := b.enter("QueryText")
	defer b.leave()
	if err != nil {
		return "", err
	}
	st, err := parse(sql, args)
	if err != nil {
		return "", err
	}
	if b.server.instant && st.wait == nil {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return b.execute(st, fault{})
	}
	var f fault
	if b.server.fault != nil {
		f = b.server.fault(b, st)
	}
	type result struct {
		reply string
		err   error
	}
	results := make(chan result, 1)
	b.server.mu.Lock()
	b.sent = true
	b.server.mu.Unlock()
	go func() {
		if reply, err, ok := b.serve(st, f); ok {
			results <- result{reply, err}
		}
	}()
	select {
	case r := <-results:
		return r.reply, r.err
	case <-b.closed:
		return "", errSocket
	case <-b.broken:
		return "", b.readError()
	case <-ctx.Done():
		b.Close()
		return "", ctx.Err()
	}
}

// serve runs a statement on the server's side. It reports false if no reply reaches the
// client.
func (b *backend) serve(st *statement, f fault) (reply string, err error, ok bool) {
	s := b.server
	if f.there > 0 {
		time.Sleep(f.there)
	}
	s.mu.Lock()
	defer func() {
		b.sent = false
		if b.hungUp {
			b.end(errSocket)
		}
		s.mu.Unlock()
	}()
	b.accident(f, before)
	if b.dead || b.cut {
		return "", nil, false
	}
	select {
	case <-b.cancel: // it came while the session was idle, and means nothing
	default:
	}
	b.active = true
	if f.takes > 0 {
		err = b.pause(f.takes)
	}
	if err == nil {
		reply, err = b.execute(st, f)
	}
	b.active = false
	if st.kind != "ping" {
		s.logf("%d %v = %q, %v %+v", b.pid, st, reply, err, f)
	}
	b.accident(f, after)
	if b.dead || b.cut {
		return "", nil, false
	}
	if f.back > 0 {
		s.mu.Unlock()
		time.Sleep(f.back)
		s.mu.Lock()
		if b.dead || b.cut {
			return "", nil, false
		}
	}
	return reply, err, true
}

func (b *backend) accident(f fault, when point) {
	if f.die == when && !b.dead {
		b.end(pgError(sqlstate.AdminShutdown))
	}
	if f.cut == when {
		b.fallSilent()
	}
}

// Close closes the client's side. The server still runs what was sent.
func (b *backend) Close() error {
	s := b.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.isClosed {
		return nil
	}
	b.isClosed = true
	if s.closing > 0 {
		s.mu.Unlock()
		time.Sleep(s.closing)
		s.mu.Lock()
	}
	s.logf("%d closed by the client", b.pid)
	close(b.closed)
	if b.dead || b.cut {
		return nil
	}
	b.gone()
	return nil
}

// gone makes the server notice, after some time, that its client is gone.
func (b *backend) gone() {
	s := b.server
	var d time.Duration
	if s.notice != nil {
		d = s.notice(b, b.cut)
	}
	hangUp := func() {
		b.hungUp = true
		if b.cut || !b.sent {
			b.end(errSocket)
		}
	}
	if d == 0 {
		hangUp()
		return
	}
	go func() {
		select {
		case <-time.After(d):
		case <-b.ended:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		hangUp()
	}()
}

// end ends the session at the server. The client learns of it a moment later.
func (b *backend) end(why error) {
	if b.dead {
		return
	}
	s := b.server
	b.dead, b.why = true, why
	s.logf("%d ended: %v", b.pid, why)
	close(b.ended)
	delete(s.backends, b.pid)
	s.dead[b.pid] = time.Now()
	for key, l := range s.locks {
		s.wanted[key] = time.Now()
		delete(l.held, b)
		l.queue = slices.DeleteFunc(l.queue, func(w *waiter) bool { return w.b == b })
		s.wakeUp(key, l)
	}
	if b.cut {
		return
	}
	if s.instant {
		close(b.broken)
		return
	}
	go func() {
		time.Sleep(100 * time.Microsecond)
		close(b.broken)
	}()
}

// fallSilent cuts the network between the client and the server.
func (b *backend) fallSilent() {
	if b.cut || b.dead {
		return
	}
	b.cut = true
	b.server.logf("%d cut", b.pid)
	b.gone()
}

// terminate, silence and interrupt are for tests.
func (s *server) terminate(pid int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.backends[pid]; b != nil {
		b.end(pgError(sqlstate.AdminShutdown))
	}
}

func (s *server) silence(pid int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.backends[pid]; b != nil {
		b.fallSilent()
	}
}

func (s *server) interrupt(pid int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.backends[pid]; b != nil {
		s.logf("%d canceled from outside", pid)
		b.signal()
	}
}

// signal implements pg_cancel_backend.
func (b *backend) signal() {
	if !b.active {
		return
	}
	select {
	case b.cancel <- struct{}{}:
	default:
	}
}

// pids returns the PIDs of the sessions that are alive, oldest first.
func (s *server) pids() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pids []int32
	for pid := range s.backends {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// lock returns the lock of the key.
func (s *server) lock(key Key) *lock {
	l := s.locks[key]
	if l == nil {
		l = &lock{held: make(map[*backend][2]int)}
		s.locks[key] = l
	}
	return l
}

// try implements pg_try_advisory_lock. It also fails if a conflicting waiter is queued.
func (s *server) try(b *backend, key Key, mode Mode) bool {
	l := s.lock(key)
	if l.held[b][mode] == 0 {
		for _, w := range l.queue {
			if conflict(w.mode, mode) {
				return false
			}
		}
		if l.blocked(b, mode) {
			return false
		}
	}
	s.grant(b, key, l, mode)
	return true
}

// blocked reports whether others hold what keeps b from having the lock.
func (l *lock) blocked(b *backend, mode Mode) bool {
	for other, n := range l.held {
		if other != b && (n[Exclusive] > 0 || mode == Exclusive && n[Shared] > 0) {
			return true
		}
	}
	return false
}

func (s *server) grant(b *backend, key Key, l *lock, mode Mode) {
	n := l.held[b]
	n[mode]++
	l.held[b] = n
	if s.granting != nil {
		s.granting(b, key, mode)
	}
}

// unlock implements pg_advisory_unlock.
func (s *server) unlock(b *backend, key Key, mode Mode) bool {
	l := s.lock(key)
	n := l.held[b]
	if n[mode] == 0 {
		return false
	}
	n[mode]--
	s.wanted[key] = time.Now()
	l.held[b] = n
	if n == [2]int{} {
		delete(l.held, b)
	}
	s.wakeUp(key, l)
	return true
}

// wakeUp grants the lock to queued waiters in order, up to the first that cannot have it.
func (s *server) wakeUp(key Key, l *lock) {
	var left []*waiter
	for _, w := range l.queue {
		behind := slices.ContainsFunc(left, func(ahead *waiter) bool { return conflict(ahead.mode, w.mode) })
		if behind || l.blocked(w.b, w.mode) {
			left = append(left, w)
			continue
		}
		s.grant(w.b, key, l, w.mode)
		close(w.granted)
	}
	l.queue = left
	if len(l.queue) == 0 && len(l.held) == 0 {
		delete(s.locks, key)
	}
}

// pause implements pg_sleep. server.mu must be held, and is unlocked meanwhile.
func (b *backend) pause(d time.Duration) (err error) {
	b.server.mu.Unlock()
	defer b.server.mu.Lock()
	select {
	case <-time.After(d):
	case <-b.cancel:
		return pgError(sqlstate.QueryCanceled)
	case <-b.ended:
		return errSocket
	}
	return nil
}

// wait implements pg_advisory_lock. server.mu must be held, and is unlocked meanwhile.
func (b *backend) wait(key Key, mode Mode) error {
	s := b.server
	if s.try(b, key, mode) {
		return nil
	}
	w := &waiter{b, mode, make(chan struct{})}
	l := s.lock(key)
	l.queue = append(l.queue, w)
	s.logf("%d waits for %v", b.pid, key)
	s.mu.Unlock()
	timer := time.NewTimer(b.timeout)
	defer timer.Stop()
	var err error
	select {
	case <-w.granted:
	case <-timer.C:
		err = pgError(sqlstate.LockNotAvailable)
	case <-b.cancel:
		err = pgError(sqlstate.QueryCanceled)
	case <-b.ended:
		err = errSocket
	}
	s.mu.Lock()
	if i := slices.Index(l.queue, w); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
		s.wakeUp(key, l)
	}
	return err // even if it was granted at the same time
}
