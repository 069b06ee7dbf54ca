package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

var (
	errUnlockDenied = errors.New("the server reported that the session did not hold the lock to release")
	errSwapped      = fmt.Errorf("%w: another backend replied", ErrPooler)
	errReset        = fmt.Errorf("%w: the session was reset", ErrPooler)
	errSilent       = errors.New("no answer within the heartbeat")
	errUnused       = errors.New("idle session closed")

	errUnknownPath = errors.New("the driver does not report the PID of its backend, " +
		"so a pooler cannot be ruled out")
)

// A session is one Postgres session: its connection, the locks it holds, and its queue of
// operations. Only its owner uses the connection.
type session struct {
	engine *Engine
	wakeup chan struct{} // holds at most one signal to check the queue

	// Guarded by Engine.mu.
	conn          Conn // nil until connected
	pid           int32
	start         string // the backend's start, since PIDs are reused
	open          bool
	owner         owner              // who may use the connection now
	busy          bool               // the owner checks the queue before it goes idle
	needsWake     bool               // is in Engine.toWake
	queue         []op               // operations to run
	batch         []op               // operations running now
	unconfirmed   []*Hold            // released Holds to notify after the next opConfirm
	confirming    []*Hold            // released Holds to notify after the opConfirm of the batch
	lastLockReply time.Time          // when it last replied about locks
	held          []*localLock       // locks it holds, in no order
	waiting       *localLock         // the lock it waits for, or will wait for next
	waitStart     time.Time          // when the current wait in Postgres began
	waitEnd       time.Time          // when the current wait ends at the latest
	cut           cutReason          // why the wait is ended early
	canceled      chan struct{}      // closed when the order to cancel its wait has been carried out
	lastSingle    bool               // the last batch had a single operation
	replied       int                // how many operations that batch had, until gather has waited for more
	cancelWatch   context.CancelFunc // ends Watch
	lost          error              // why the session was lost
	cause         error              // the same, as reported to those who held locks
	losses        int                // number of locks lost with it

	// Used only by the owner.
	ops    []op // the whole batch
	shared bool // belongs to a pooler, or may

	forgetBackend func() // undoes registerBackend
	token         string // identifies the session as ours
	prefix        string // of every reply: the backend's PID
	batchBuf      []op   // backing array of batches
	lastKey       Key    // the key of the last batch of one
	lastKeyText   string // last as text
	keysBuf       []byte // buffers for statements
	lettersBuf    []byte
	args          [2]string
	singleOp      [1]op
	watchdog      *time.Timer // ends the session if a reply takes too long
	expired       chan struct{}
	timer         *time.Timer
	cannotWatch   bool      // the driver does not support Watch
	lastReply     time.Time // when the last reply came
	lastUse       time.Time // when the last requested reply came
}

// An op is an operation to run on a session.
type op struct {
	kind   opKind
	mode   Mode
	lock   *localLock
	key    Key           // of lock, which may be reused for another key after the session was lost
	query  *query        // of opQuery
	target *session      // of opCancel
	done   chan struct{} // of opCancel: closed when it has been carried out
}

type opKind uint8

const (
	opTry     opKind = iota // acquire the lock if it is free
	opUnlock                // release it
	opConfirm               // check that the session, and so all it holds, is still there
	opProbe                 // check whether another session could acquire it shared
	opQueued                // the same for a lock that this session holds: check pg_locks for waiters
	opMonitor               // check whether other sessions wait for one of our waiting statements
	opWait                  // wait for the lock
	opCancel                // cancel another session's wait
	opQuery                 // run a query
)

// A query is a statement that does not belong to a lock.
type query struct {
	sql   string
	args  []string
	reply string
	err   error
	ready chan struct{} // closed when reply and err are set
}

// An owner is who may use a session's connection.
type owner uint8

const (
	free   owner = iota // nobody; any goroutine with an operation may take it
	runner              // the session's own goroutine
	caller              // a goroutine that called Engine
)

// A cutReason is why a wait in Postgres is ended early.
type cutReason uint8

const (
	notCut     cutReason = iota
	cutForTurn           // another key of this process gets its turn
	cutAwaited           // another session waits for our statement to end
)

// maxCancelRetries is how often a statement is run if it is canceled each time.
const maxCancelRetries = 5

// maxBatch limits the number of operations in one statement.
const maxBatch = 2048

// push adds o to the queue. Engine.mu must be held, and must be unlocked by Engine.unlockMu
// or Engine.unlockMuAndHelp, which make sure that the queue is processed.
func (s *session) push(o op) {
	if o.lock != nil {
		o.key = o.lock.key
	}
	s.queue = append(s.queue, o)
	if !s.busy && !s.needsWake {
		s.needsWake = true
		s.engine.toWake = append(s.engine.toWake, s)
	}
}

// confirm arranges a confirmation that the lock of h was held until now, of which h is
// notified, and reports true. If the session has replied within freshTime, none is needed
// and it reports false. All confirmations until the next batch share one operation.
// Engine.mu must be held.
func (s *session) confirm(h *Hold) bool {
	if time.Since(s.lastLockReply) < freshTime {
		return false
	}
	s.unconfirmed = append(s.unconfirmed, h)
	if len(s.unconfirmed) == 1 {
		s.push(op{kind: opConfirm})
	}
	return true
}

// notifyConfirmed notifies the Holds whose confirmation was in the batch. Engine.mu must be
// held.
func (s *session) notifyConfirmed() {
	for _, h := range s.confirming {
		s.engine.notify(h, nil)
	}
	clear(s.confirming)
	s.confirming = s.confirming[:0]
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

// unlockMuAndHelp is unlockMu for a caller that will block until its operation is done. If
// the session has nothing else to do, the caller runs the operation itself. That saves
// two goroutine switches, which take longer than Postgres' reply.
func (e *Engine) unlockMuAndHelp() {
	if len(e.toWake) == 1 {
		s := e.toWake[0]
		if s.owner == free && s.lastSingle && s.open && s.lost == nil && len(s.queue) > 0 && s.queue[0].kind <= opProbe {
			e.toWake, s.needsWake = e.toWake[:0], false
			s.owner, s.busy = caller, true
			s.fillBatch()
			e.unlockMuAndNotify()
			s.runForCaller()
			return
		}
	}
	e.unlockMu()
}

// runForCaller runs the batch that a caller took, and leaves the rest of the queue to run.
func (s *session) runForCaller() {
	e := s.engine
	err := s.runLocks()
	e.mu.Lock()
	if err != nil {
		e.sessionLost(s, err)
	}
	s.clearBatch()
	s.owner, s.busy, s.lastUse = free, false, s.lastReply
	if len(s.queue) > 0 || s.lost != nil {
		s.wake()
	}
	e.unlockMu()
}

// wake makes run check the queue. Engine.mu must be held.
func (s *session) wake() {
	if s.cancelWatch != nil {
		s.cancelWatch()
		s.cancelWatch = nil
	}
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// withdraw removes the lock's try or wait from the queue, and reports whether it was
// still there. Engine.mu must be held.
func (s *session) withdraw(l *localLock) bool {
	for i, o := range s.queue {
		if o.lock == l && (o.kind == opTry || o.kind == opWait) {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return true
		}
	}
	return false
}

// kill closes the connection, also in the middle of a statement. Engine.mu must be held.
func (s *session) kill() {
	if s.conn == nil {
		return
	}
	s.engine.wg.Add(1)
	go func() {
		defer s.engine.wg.Done()
		s.conn.Close()
	}()
}

// run opens the session, processes its queue until it is lost, and closes it.
func (s *session) run() {
	e := s.engine
	defer e.wg.Done()
	err := s.connect()
	for err == nil {
		s.gather()
		if err = s.nextBatch(); err == nil {
			err = s.runBatch()
			s.lastUse = s.lastReply
		}
	}
	e.mu.Lock()
	e.sessionLost(s, err)
	losses, pid := s.losses, s.pid
	e.unlockMu()
	if s.conn != nil {
		if s.shared && (errors.Is(err, errUnused) || errors.Is(err, ErrClosed)) {
			s.reset()
		}
		s.conn.Close()
	}
	s.forgetBackend()
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	if (losses > 0 || errors.Is(err, errUnlockDenied)) && !errors.Is(err, ErrClosed) {
		e.logWarn("locks lost with their session", "locks", losses, "pid", pid, "error", err)
	}
}

// connect opens the connection and prepares it for holding locks.
func (s *session) connect() error {
	e := s.engine
	limit := openTimeout
	e.mu.Lock()
	if len(e.sessions) > 1 {
		limit = extraOpenTimeout
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	conn, err := e.config.Open(ctx)
	if err != nil {
		return openError(err)
	}
	e.mu.Lock()
	s.conn = conn
	e.mu.Unlock()
	if err := s.setUp(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost != nil {
		return s.lost
	}
	s.open, s.lastUse = true, s.lastReply
	e.noOpenUntil = time.Time{}
	e.sessionOpened(s)
	return nil
}

// setUp identifies the session without changing it, and sets it up only if it is ours
// alone.
func (s *session) setUp(ctx context.Context) error {
	e := s.engine
	s.token = rand.Text()
	var hello handshake.Hello
	err := e.retryCanceled(ctx, func() (err error) {
		hello, err = handshake.Greet(ctx, s.conn)
		return err
	})
	switch {
	case lacksFeature(err):
		return fmt.Errorf("%w: %w", ErrNoAdvisoryLocks, err)
	case err != nil:
		return openError(err)
	case hello.Path == handshake.Pooled && !e.config.AllowPooler:
		return ErrPooler
	case hello.Path == handshake.Unknown && !e.config.AllowPooler:
		return fmt.Errorf("%w: %w", ErrPooler, errUnknownPath)
	case hello.Token != "":
		return fmt.Errorf("%w: another Locker uses this session", ErrPooler)
	case hello.Standby:
		return ErrStandby
	}
	s.shared = hello.Path != handshake.Direct
	s.prefix = strconv.Itoa(int(hello.PID)) + ":"
	if start, err := hello.StartTime(); err == nil {
		s.forgetBackend = registerBackend(hello.PID, start)
	}
	e.mu.Lock()
	s.pid, s.start = hello.PID, hello.Start
	e.mu.Unlock()

	err = e.retryCanceled(ctx, func() error {
		return hello.SetUp(ctx, s.conn, handshake.Settings{
			Token: s.token, PlanCacheMode: "force_generic_plan", ApplicationName: "pglock",
		})
	})
	if err != nil {
		return openError(err)
	}
	if err := s.prove(ctx, hello); err != nil {
		return err
	}

	// The client must notice a loss before the server releases its locks, so the
	// server waits for more than two heartbeats.
	beat := e.config.Heartbeat
	seconds := func(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Second))) }
	millis := func(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Millisecond))) }
	e.roundTrips.Add(1)
	_, err = s.conn.QueryText(ctx, keepaliveSQL, millis(beat), seconds(2*beat), seconds(beat/2), "3", millis(3*beat))
	if err != nil && sqlstate.Of(err) == "" {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.lastReply = time.Now()
	s.expired = make(chan struct{}, 1)
	s.watchdog = time.AfterFunc(time.Hour, func() {
		select {
		case s.expired <- struct{}{}:
		default:
		}
		// Notify the holders first: Close may take a moment, and so may the driver
		// until it gives up.
		e.mu.Lock()
		e.sessionLost(s, errSilent)
		e.unlockMu()
		s.conn.Close()
	})
	s.watchdog.Stop()
	s.timer = time.NewTimer(time.Hour)
	return nil
}

// retryCanceled calls f, which runs a statement while the session is being set up, and
// calls it again if the statement is canceled.
func (e *Engine) retryCanceled(ctx context.Context, f func() error) error {
	return handshake.Persist(ctx, func() error {
		e.roundTrips.Add(1)
		return f()
	})
}

// prove makes sure that the server has advisory locks, once for each server. Some servers
// that speak the protocol reply true to every lock and unlock.
func (s *session) prove(ctx context.Context, hello handshake.Hello) error {
	e := s.engine
	server := hello.Version + " " + hello.Boot.String()
	e.mu.Lock()
	known := e.provedServer == server
	e.mu.Unlock()
	if known {
		return nil
	}
	var proved bool
	err := e.retryCanceled(ctx, func() (err error) {
		proved, err = handshake.Prove(ctx, s.conn)
		return err
	})
	switch {
	case lacksFeature(err):
		return fmt.Errorf("%w: %s: %w", ErrNoAdvisoryLocks, hello.Version, err)
	case err != nil:
		return openError(err)
	case !proved:
		return fmt.Errorf("%w: %s", ErrNoAdvisoryLocks, hello.Version)
	}
	e.mu.Lock()
	e.provedServer = server
	e.mu.Unlock()
	return nil
}

// lacksFeature reports whether a server rejected something that every Postgres has.
func lacksFeature(err error) bool {
	switch sqlstate.Of(err) {
	case sqlstate.FeatureNotSupported, sqlstate.UndefinedFunction, sqlstate.UndefinedTable,
		sqlstate.UndefinedColumn, sqlstate.UndefinedObject, sqlstate.SyntaxError:
		return true
	}
	return false
}

// reset resets the settings of a session that a pooler may lend to other clients next. It
// is called only if the session ends normally: then nobody else uses it, and it holds
// nothing.
func (s *session) reset() {
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	same, err := s.conn.QueryText(ctx, pingSQL, s.token)
	if err == nil && same == s.prefix+"1" {
		_ = s.conn.Exec(ctx, "DISCARD ALL") // most poolers also do this themselves
	}
}

// nextBatch waits until there is an operation to run, and fills the batch.
func (s *session) nextBatch() error {
	e := s.engine
	for {
		e.mu.Lock()
		switch {
		case s.owner == caller:
			e.unlockMu()
			s.sleep(idleSpin)
		case s.lost != nil:
			e.unlockMu()
			return s.lost
		case len(s.queue) > 0:
			s.owner, s.busy = runner, true
			s.fillBatch()
			e.unlockMu()
			return nil
		case time.Since(s.lastUse) < idleSpin:
			s.clearBatch()
			s.owner, s.busy = free, false
			e.unlockMu()
			s.sleep(idleSpin)
		default:
			s.owner, s.busy = runner, false
			e.unlockMu()
			if err := s.watch(); err != nil {
				return err
			}
		}
	}
}

// sleep waits until the session is woken, or for d.
func (s *session) sleep(d time.Duration) (woken bool) {
	s.timer.Reset(d)
	select {
	case <-s.wakeup:
		return true
	case <-s.timer.C:
		return false
	}
}

// fillBatch moves the next operations from the queue to the batch: tries and unlocks in
// the order of their requests, or a single operation of another kind. Engine.mu must be
// held.
func (s *session) fillBatch() {
	n := 0
	for n < len(s.queue) && n < maxBatch && s.queue[n].kind <= opProbe {
		n++
	}
	n = max(n, 1)
	s.clearBatch()
	s.batchBuf = append(s.batchBuf[:0], s.queue[:n]...)
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	s.batch, s.ops = s.batchBuf, s.batchBuf
	s.lastSingle, s.replied = n == 1, n
	if slices.ContainsFunc(s.batch, func(o op) bool { return o.kind == opConfirm }) {
		s.confirming, s.unconfirmed = s.unconfirmed, s.confirming[:0]
		s.replied += len(s.confirming) - 1
		s.lastSingle = s.lastSingle && len(s.confirming) == 1
	}
	if s.batch[0].kind == opWait {
		s.engine.beginWait(s, s.batch[0].lock)
	}
}

// watch waits for an operation or for the loss of the session. If neither comes within
// half a heartbeat, it pings the session.
func (s *session) watch() error {
	e := s.engine
	next := s.lastReply.Add(e.config.Heartbeat / 2)
	if !s.cannotWatch {
		ctx, cancel := context.WithDeadline(context.Background(), next)
		e.mu.Lock()
		if len(s.queue) > 0 || s.lost != nil {
			e.mu.Unlock()
			cancel()
			return nil
		}
		s.cancelWatch = cancel
		e.mu.Unlock()
		err := s.conn.Watch(ctx)
		e.mu.Lock()
		s.cancelWatch = nil
		e.mu.Unlock()
		cancel()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			s.cannotWatch = true
		case err != nil:
			return err
		}
	}
	if s.cannotWatch && s.sleep(time.Until(next)) {
		return nil
	}
	if time.Now().Before(next) {
		return nil
	}
	if s.retire() {
		return errUnused
	}
	e.mu.Lock()
	s.busy = true // so it need not be woken
	e.mu.Unlock()
	same, err := s.queryText(e.config.Heartbeat/2, pingSQL, s.token)
	if err != nil && sqlstate.Of(err) != "" {
		_, err = s.queryHeld(err) // the ping was canceled
		return err
	}
	if err == nil && same != "1" {
		return errReset
	}
	return err
}

// retire takes the session out of service if nothing needs it, and reports whether it
// did.
func (s *session) retire() bool {
	e := s.engine
	e.mu.Lock()
	defer e.unlockMu()
	if len(s.held) > 0 || len(s.queue) > 0 || s.waiting != nil || time.Since(s.lastUse) < idleTimeout {
		return false
	}
	e.sessionLost(s, errUnused)
	return true
}

// queryText runs a statement, checks that the reply begins with the backend's PID, and
// returns the rest. An error with an SQLSTATE leaves the session usable, unless Postgres
// ended it.
func (s *session) queryText(timeout time.Duration, sql string, args ...string) (string, error) {
	reply, err := s.queryRaw(timeout, sql, args...)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(reply, s.prefix)
	if !ok {
		return "", errSwapped
	}
	return rest, nil
}

// queryRaw runs a statement and returns its reply unchecked. It closes the session if
// the reply takes longer than timeout.
func (s *session) queryRaw(timeout time.Duration, sql string, args ...string) (string, error) {
	s.engine.roundTrips.Add(1)
	s.watchdog.Reset(timeout)
	reply, err := s.conn.QueryText(context.Background(), sql, args...)
	s.watchdog.Stop()
	if err != nil {
		select {
		case <-s.expired:
			return "", errSilent
		default:
		}
		if isSwapped(err) {
			return "", fmt.Errorf("%w: %v", errSwapped, err)
		}
		return "", err
	}
	s.lastReply = time.Now()
	return reply, nil
}

// openError returns the error of a session that could not be opened.
func openError(err error) error {
	if isSwapped(err) {
		return fmt.Errorf("%w: %w", ErrPooler, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// isSwapped reports whether a statement that the driver prepared is missing, or was
// prepared by another client. Then this is not the session that it was prepared in.
func isSwapped(err error) bool {
	state := sqlstate.Of(err)
	return state == sqlstate.InvalidStatementName || state == sqlstate.DuplicateStatement
}

// queryHeld queries which advisory locks the session holds, after Postgres replied with the
// error after. If queryHeld fails, the session must be closed.
func (s *session) queryHeld(after error) (map[heldLock]bool, error) {
	reply, err := s.queryText(s.engine.config.Heartbeat, heldSQL)
	for n := 1; n < maxCancelRetries && sqlstate.Of(err) == sqlstate.QueryCanceled; n++ {
		reply, err = s.queryText(s.engine.config.Heartbeat, heldSQL)
	}
	switch {
	case err != nil && strings.HasPrefix(sqlstate.Of(after), "57P"):
		return nil, after // with this error Postgres ends the session
	case err != nil:
		return nil, err
	}
	return parseHeld(reply), nil
}

// runBatch runs the batch. If it fails, the session must be closed.
func (s *session) runBatch() error {
	switch first := s.ops[0]; first.kind {
	case opWait:
		return s.runWait(first)
	case opCancel:
		return s.runCancel(first)
	case opQuery:
		return s.runQuery(first.query)
	case opQueued:
		return s.runQueued(first)
	case opMonitor:
		return s.runMonitor()
	}
	return s.runLocks()
}

// gatherYields and gatherTime limit how long gather waits for one more operation: for so
// many goroutines to run, and for a time that is short compared to a round trip, since
// those goroutines may have other things to do.
const (
	gatherYields = 20
	gatherTime   = 20 * time.Microsecond
)

// gather gives callers that just received a reply the time to request their next
// operation, so that it shares a round trip with the queue. Otherwise the callers would
// split into two halves that take turns. A single caller does not wait.
func (s *session) gather() {
	e := s.engine
	e.mu.Lock()
	asked, want := len(s.queue), len(s.queue)+s.replied
	s.replied = 0
	e.mu.Unlock()
	if want < 2 {
		return
	}
	since := time.Now()
	for n := 0; asked < want && n < gatherYields && time.Since(since) < gatherTime; n++ {
		runtime.Gosched()
		e.mu.Lock()
		now := len(s.queue)
		e.mu.Unlock()
		if now > asked {
			asked, n, since = now, 0, time.Now()
		}
	}
}

// clearBatch clears the references that the last batch holds. Engine.mu must be held.
func (s *session) clearBatch() {
	clear(s.batchBuf)
	s.batch, s.ops, s.singleOp[0] = nil, nil, op{}
}
