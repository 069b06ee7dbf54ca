package engine

import (
	"context"
	"errors"
	"fmt"
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
	conn        Conn // nil until connected
	pid         int32
	start       string // the backend's start, since PIDs are reused
	open        bool
	held        []*localLock       // locks it holds, in no order
	owner       owner              // who may use the connection now
	busy        bool               // the owner checks the queue before it goes idle
	needsWake   bool               // is in Engine.toWake
	cancelWatch context.CancelFunc // ends Watch

	// Also guarded by Engine.mu: its operations.
	queue         []op      // to run
	batch         []op      // running now
	lastSingle    bool      // the last batch had a single operation
	replied       int       // how many operations that batch had, until gather has waited for more
	awaited       int       // linger waits until so many operations are queued, or 0
	unconfirmed   []*Hold   // released Holds to notify after the next opConfirm
	confirming    []*Hold   // released Holds to notify after the opConfirm of the batch
	lastLockReply time.Time // when it last replied about locks

	// Also guarded by Engine.mu: its wait in Postgres.
	waiting   *localLock    // the lock it waits for, or will wait for next
	reserved  bool          // it will wait for the polled lock whose turn it is
	waitStart time.Time     // when the current wait began
	waitEnd   time.Time     // when the current wait ends at the latest
	cut       cutReason     // why the wait is ended early
	canceled  chan struct{} // closed when the order to cancel the wait has been carried out

	// Also guarded by Engine.mu: its loss.
	lost   error // why the session was lost
	cause  error // the same, as reported to those who held locks
	losses int   // number of locks lost with it

	// Used only by the owner.
	ops    []op // the whole batch
	shared bool // belongs to a pooler, or may

	lease *leaseSession // if it takes leases; set when it is open

	forgetBackend func() // undoes registerBackend
	token         string // identifies the session as ours
	prefix        string // of every reply: the backend's PID
	batchBuf      []op   // backing array of batches
	lastKey       Key    // the key of the last batch of one
	lastKeyText   string // lastKey as text
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
	roundTrip     roundTrip
	vainLingers   int // number of lingers in a row that were in vain, 4 at most
	skipLingers   int // number of lingers to skip
}

// Durations of a session without work.
const (
	// idleSpin is how long a session waits for work before it blocks in Watch, which is
	// slower to leave.
	idleSpin = 10 * time.Millisecond
	// idleTimeout is how long a session that holds nothing is kept.
	idleTimeout = time.Minute
)

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
	s.markLost(err)
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
	if len(s.held) > 0 || len(s.queue) > 0 || s.waits() || time.Since(s.lastUse) < idleTimeout {
		return false
	}
	s.markLost(errUnused)
	return true
}

// kill closes the connection, also in the middle of a statement. Engine.mu must be held.
func (s *session) kill() {
	conn := s.conn
	if conn == nil {
		return
	}
	s.engine.wg.Add(1)
	go func() {
		defer s.engine.wg.Done()
		conn.Close()
	}()
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

// queryHeld queries which advisory locks the session holds, after Postgres replied with the
// error after. If queryHeld fails, the session must be closed.
func (s *session) queryHeld(after error) (map[heldLock]bool, error) {
	var reply string
	err := handshake.Persist(context.Background(), func() (err error) {
		reply, err = s.queryText(s.engine.config.Heartbeat, heldSQL)
		return err
	})
	switch {
	case err != nil && strings.HasPrefix(sqlstate.Of(after), "57P"):
		return nil, after // with this error Postgres ends the session
	case err != nil:
		return nil, err
	}
	return parseHeld(reply), nil
}
