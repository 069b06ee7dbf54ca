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
	errNotOurs = errors.New("Postgres reported that the session did not hold the lock to release")
	errSwapped = fmt.Errorf("%w: another backend replied", ErrPooler)
	errReset   = fmt.Errorf("%w: the session was reset", ErrPooler)
	errSilent  = errors.New("no answer within the heartbeat")
	errUnused  = errors.New("idle session closed")

	errUnknownPath = errors.New("the driver does not report the PID of its backend, " +
		"so a pooler cannot be ruled out")
)

// A conn is one session: its connection, the locks it holds, and its queue of operations.
// Only its owner uses the connection.
type conn struct {
	engine *Engine
	wake   chan struct{} // holds at most one signal to check the queue

	// Guarded by Engine.mu.
	s        Conn // nil until connected
	pid      int32
	start    string // the backend's start, since PIDs are reused
	open     bool
	owner    owner              // who may use the connection now
	busy     bool               // the owner checks the queue before it goes idle
	rung     bool               // is in Engine.rung
	queue    []op               // operations to run
	batch    []op               // operations running now
	unsure   []*Hold            // released Holds to notify after the next opConfirm
	sure     []*Hold            // released Holds to notify after the opConfirm of the batch
	settled  time.Time          // when it last replied about locks
	held     []*entry           // entries whose locks it holds, in no order
	waiting  *entry             // the entry it waits for, or will wait for next
	waitFrom time.Time          // when the current wait in Postgres began
	waitEnds time.Time          // when the current wait ends at the latest
	cut      cut                // why the wait is ended early
	canceled chan struct{}      // closed when the order to cancel its wait has been carried out
	alone    bool               // the last batch had a single operation
	answered int                // how many operations that batch had, until gather has waited for more
	unwatch  context.CancelFunc // ends Watch
	lost     error              // why the session was lost
	cause    error              // the same, as reported to those who held locks
	losses   int                // number of locks lost with it

	// Used only by the owner.
	ops    []op // the whole batch
	shared bool // belongs to a pooler, or may

	forgetBackend func() // undoes register
	mark          string // identifies the session as ours
	prefix        string // of every reply: the backend's PID
	spare         []op   // backing array of batches
	last          Key    // the key of the last batch of one
	text          string // last as text
	keys          []byte // buffers for statements
	letters       []byte
	args          [2]string
	lone          [1]op
	dog           *time.Timer // ends the session if a reply takes too long
	bitten        chan struct{}
	timer         *time.Timer
	deaf          bool      // the driver does not support Watch
	heard         time.Time // when the last reply came
	used          time.Time // when the last requested reply came
}

// An op is an operation to run on a session.
type op struct {
	kind   opKind
	mode   Mode
	ent    *entry
	key    Key           // of ent, which may be reused for another key after the session was lost
	query  *query        // of opQuery
	target *conn         // of opCancel
	done   chan struct{} // of opCancel: closed when it has been carried out
}

type opKind uint8

const (
	opTry     opKind = iota // acquire the lock if it is free
	opUnlock                // release it
	opConfirm               // check that the session, and so all it holds, is still there
	opProbe                 // check whether another session could acquire it shared
	opQueued                // the same for a lock that this session holds: check pg_locks for waiters
	opLook                  // check whether other sessions wait for one of our waiting statements
	opWait                  // wait for the lock
	opCancel                // cancel another session's wait
	opQuery                 // run a query
)

// A query is a statement that does not belong to a lock.
type query struct {
	sql    string
	args   []string
	answer string
	err    error
	ready  chan struct{} // closed when answer and err are set
}

// An owner is who may use a session's connection.
type owner uint8

const (
	free   owner = iota // nobody; any goroutine with an operation may take it
	runner              // the session's own goroutine
	caller              // a goroutine that called Engine
)

// A cut is why a wait in Postgres is ended early.
type cut uint8

const (
	uncut    cut = iota
	forOther     // another key of this process gets its turn
	awaited      // another session waits for our statement to end
)

// obstinacy is how often a statement is run if it is canceled each time.
const obstinacy = 5

// maxBatch limits the number of operations in one statement.
const maxBatch = 2048

// push adds o to the queue. Engine.mu must be held, and must be unlocked by Engine.unlock
// or Engine.unlockAndHelp, which make sure that the queue is processed.
func (c *conn) push(o op) {
	if o.ent != nil {
		o.key = o.ent.key
	}
	c.queue = append(c.queue, o)
	if !c.busy && !c.rung {
		c.rung = true
		c.engine.rung = append(c.engine.rung, c)
	}
}

// confirm arranges a confirmation that the lock of h was held until now, of which h is
// notified, and reports true. If the session has replied within freshTime, none is needed
// and it reports false. All confirmations until the next batch share one operation.
// Engine.mu must be held.
func (c *conn) confirm(h *Hold) bool {
	if time.Since(c.settled) < freshTime {
		return false
	}
	c.unsure = append(c.unsure, h)
	if len(c.unsure) == 1 {
		c.push(op{kind: opConfirm})
	}
	return true
}

// confirmed notifies the Holds whose confirmation was in the batch. Engine.mu must be
// held.
func (c *conn) confirmed() {
	for _, h := range c.sure {
		c.engine.tell(h, nil)
	}
	clear(c.sure)
	c.sure = c.sure[:0]
}

// unlock unlocks Engine.mu, wakes the sessions with new operations, and notifies the
// Holds with a reply.
func (e *Engine) unlock() {
	for _, c := range e.rung {
		c.rung = false
		if len(c.queue) > 0 {
			c.alarm()
		}
	}
	clear(e.rung)
	e.rung = e.rung[:0]
	e.giveUp()
}

// unlockAndHelp is unlock for a caller that will block until its operation is done. If
// the session has nothing else to do, the caller runs the operation itself. That saves
// two goroutine switches, which take longer than Postgres' reply.
func (e *Engine) unlockAndHelp() {
	if len(e.rung) == 1 {
		c := e.rung[0]
		if c.owner == free && c.alone && c.open && c.lost == nil && len(c.queue) > 0 && c.queue[0].kind <= opProbe {
			e.rung, c.rung = e.rung[:0], false
			c.owner, c.busy = caller, true
			c.takeBatch()
			e.giveUp()
			c.help()
			return
		}
	}
	e.unlock()
}

// help runs the batch that a caller took, and leaves the rest of the queue to run.
func (c *conn) help() {
	e := c.engine
	err := c.exchange()
	e.mu.Lock()
	if err != nil {
		e.lose(c, err)
	}
	c.forget()
	c.owner, c.busy, c.used = free, false, c.heard
	if len(c.queue) > 0 || c.lost != nil {
		c.alarm()
	}
	e.unlock()
}

// alarm makes run check the queue. Engine.mu must be held.
func (c *conn) alarm() {
	if c.unwatch != nil {
		c.unwatch()
		c.unwatch = nil
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// withdraw removes the entry's try or wait from the queue, and reports whether it was
// still there. Engine.mu must be held.
func (c *conn) withdraw(ent *entry) bool {
	for i, o := range c.queue {
		if o.ent == ent && (o.kind == opTry || o.kind == opWait) {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return true
		}
	}
	return false
}

// kill closes the connection, also in the middle of a statement. Engine.mu must be held.
func (c *conn) kill() {
	if c.s == nil {
		return
	}
	c.engine.wg.Add(1)
	go func() {
		defer c.engine.wg.Done()
		c.s.Close()
	}()
}

// run opens the session, processes its queue until it is lost, and closes it.
func (c *conn) run() {
	e := c.engine
	defer e.wg.Done()
	err := c.begin()
	for err == nil {
		c.gather()
		if err = c.take(); err == nil {
			err = c.work()
			c.used = c.heard
		}
	}
	e.mu.Lock()
	e.lose(c, err)
	losses, pid := c.losses, c.pid
	e.unlock()
	if c.s != nil {
		if c.shared && (errors.Is(err, errUnused) || errors.Is(err, ErrClosed)) {
			c.reset()
		}
		c.s.Close()
	}
	c.forgetBackend()
	if c.dog != nil {
		c.dog.Stop()
	}
	if (losses > 0 || errors.Is(err, errNotOurs)) && !errors.Is(err, ErrClosed) {
		e.logWarn("locks lost with their session", "locks", losses, "pid", pid, "error", err)
	}
}

// begin opens the connection and prepares it for holding locks.
func (c *conn) begin() error {
	e := c.engine
	limit := openTimeout
	e.mu.Lock()
	if len(e.conns) > 1 {
		limit = moreTimeout
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	s, err := e.config.Open(ctx)
	if err != nil {
		return unavailable(err)
	}
	e.mu.Lock()
	c.s = s
	e.mu.Unlock()
	if err := c.greet(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.unlock()
	if c.lost != nil {
		return c.lost
	}
	c.open, c.used = true, c.heard
	e.full = time.Time{}
	e.opened(c)
	return nil
}

// greet identifies the session without changing it, and sets it up only if it is ours
// alone.
func (c *conn) greet(ctx context.Context) error {
	e := c.engine
	c.mark = rand.Text()
	var hello handshake.Hello
	err := e.persist(ctx, func() (err error) {
		hello, err = handshake.Greet(ctx, c.s)
		return err
	})
	switch {
	case noPostgres(err):
		return fmt.Errorf("%w: %w", ErrNoAdvisoryLocks, err)
	case err != nil:
		return unavailable(err)
	case hello.Path == handshake.Pooled && !e.config.AllowPooler:
		return ErrPooler
	case hello.Path == handshake.Unknown && !e.config.AllowPooler:
		return fmt.Errorf("%w: %w", ErrPooler, errUnknownPath)
	case hello.Mark != "":
		return fmt.Errorf("%w: another Locker uses this session", ErrPooler)
	case hello.Standby:
		return ErrStandby
	}
	c.shared = hello.Path != handshake.Direct
	c.prefix = strconv.Itoa(int(hello.PID)) + ":"
	if start, err := hello.StartTime(); err == nil {
		c.forgetBackend = register(hello.PID, start)
	}
	e.mu.Lock()
	c.pid, c.start = hello.PID, hello.Start
	e.mu.Unlock()

	err = e.persist(ctx, func() error {
		return hello.SetUp(ctx, c.s, handshake.Settings{
			Mark: c.mark, PlanCacheMode: "force_generic_plan", ApplicationName: "pglock",
		})
	})
	if err != nil {
		return unavailable(err)
	}
	if err := c.prove(ctx, hello); err != nil {
		return err
	}

	// The client must notice a loss before the server releases its locks, so the
	// server waits for more than two heartbeats.
	beat := e.config.Heartbeat
	seconds := func(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Second))) }
	millis := func(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Millisecond))) }
	e.roundTrips.Add(1)
	_, err = c.s.Ask(ctx, keepaliveSQL, millis(beat), seconds(2*beat), seconds(beat/2), "3", millis(3*beat))
	if err != nil && sqlstate.Of(err) == "" {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c.heard = time.Now()
	c.bitten = make(chan struct{}, 1)
	c.dog = time.AfterFunc(time.Hour, func() {
		select {
		case c.bitten <- struct{}{}:
		default:
		}
		// Notify the holders first: Close may take a moment, and so may the driver
		// until it gives up.
		e.mu.Lock()
		e.lose(c, errSilent)
		e.unlock()
		c.s.Close()
	})
	c.dog.Stop()
	c.timer = time.NewTimer(time.Hour)
	return nil
}

// persist calls f, which runs a statement while the session is being set up, and calls it
// again if the statement is canceled.
func (e *Engine) persist(ctx context.Context, f func() error) error {
	return handshake.Persist(ctx, func() error {
		e.roundTrips.Add(1)
		return f()
	})
}

// prove makes sure that the server has advisory locks, once for each server. Some servers
// that speak the protocol reply true to every lock and unlock.
func (c *conn) prove(ctx context.Context, hello handshake.Hello) error {
	e := c.engine
	server := hello.Version + " " + hello.Boot.String()
	e.mu.Lock()
	known := e.proved == server
	e.mu.Unlock()
	if known {
		return nil
	}
	var proved bool
	err := e.persist(ctx, func() (err error) {
		proved, err = handshake.Prove(ctx, c.s)
		return err
	})
	switch {
	case noPostgres(err):
		return fmt.Errorf("%w: %s: %w", ErrNoAdvisoryLocks, hello.Version, err)
	case err != nil:
		return unavailable(err)
	case !proved:
		return fmt.Errorf("%w: %s", ErrNoAdvisoryLocks, hello.Version)
	}
	e.mu.Lock()
	e.proved = server
	e.mu.Unlock()
	return nil
}

// noPostgres reports whether a server rejected something that every Postgres has.
func noPostgres(err error) bool {
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
func (c *conn) reset() {
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	same, err := c.s.Ask(ctx, pingSQL, c.mark)
	if err == nil && same == c.prefix+"1" {
		_ = c.s.Exec(ctx, "DISCARD ALL") // most poolers also do this themselves
	}
}

// take waits until there is an operation to run, and fills the batch.
func (c *conn) take() error {
	e := c.engine
	for {
		e.mu.Lock()
		switch {
		case c.owner == caller:
			e.unlock()
			c.sleep(hot)
		case c.lost != nil:
			e.unlock()
			return c.lost
		case len(c.queue) > 0:
			c.owner, c.busy = runner, true
			c.takeBatch()
			e.unlock()
			return nil
		case time.Since(c.used) < hot:
			c.forget()
			c.owner, c.busy = free, false
			e.unlock()
			c.sleep(hot)
		default:
			c.owner, c.busy = runner, false
			e.unlock()
			if err := c.listen(); err != nil {
				return err
			}
		}
	}
}

// sleep waits until the session is woken, or for d.
func (c *conn) sleep(d time.Duration) (woken bool) {
	c.timer.Reset(d)
	select {
	case <-c.wake:
		return true
	case <-c.timer.C:
		return false
	}
}

// takeBatch moves the next operations from the queue to the batch: tries and unlocks in
// the order of their requests, or a single operation of another kind. Engine.mu must be
// held.
func (c *conn) takeBatch() {
	n := 0
	for n < len(c.queue) && n < maxBatch && c.queue[n].kind <= opProbe {
		n++
	}
	n = max(n, 1)
	c.forget()
	c.spare = append(c.spare[:0], c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	c.batch, c.ops = c.spare, c.spare
	c.alone, c.answered = n == 1, n
	if slices.ContainsFunc(c.batch, func(o op) bool { return o.kind == opConfirm }) {
		c.sure, c.unsure = c.unsure, c.sure[:0]
		c.answered += len(c.sure) - 1
		c.alone = c.alone && len(c.sure) == 1
	}
	if c.batch[0].kind == opWait {
		c.engine.beginWait(c, c.batch[0].ent)
	}
}

// listen waits for an operation or for the loss of the session. If neither comes within
// half a heartbeat, it pings the session.
func (c *conn) listen() error {
	e := c.engine
	next := c.heard.Add(e.config.Heartbeat / 2)
	if !c.deaf {
		ctx, cancel := context.WithDeadline(context.Background(), next)
		e.mu.Lock()
		if len(c.queue) > 0 || c.lost != nil {
			e.mu.Unlock()
			cancel()
			return nil
		}
		c.unwatch = cancel
		e.mu.Unlock()
		err := c.s.Watch(ctx)
		e.mu.Lock()
		c.unwatch = nil
		e.mu.Unlock()
		cancel()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			c.deaf = true
		case err != nil:
			return err
		}
	}
	if c.deaf && c.sleep(time.Until(next)) {
		return nil
	}
	if time.Now().Before(next) {
		return nil
	}
	if c.retire() {
		return errUnused
	}
	e.mu.Lock()
	c.busy = true // so it need not be woken
	e.mu.Unlock()
	same, err := c.ask(e.config.Heartbeat/2, pingSQL, c.mark)
	if err != nil && sqlstate.Of(err) != "" {
		_, err = c.holds(err) // the ping was canceled
		return err
	}
	if err == nil && same != "1" {
		return errReset
	}
	return err
}

// retire takes the session out of service if nothing needs it, and reports whether it
// did.
func (c *conn) retire() bool {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if len(c.held) > 0 || len(c.queue) > 0 || c.waiting != nil || time.Since(c.used) < idleTimeout {
		return false
	}
	e.lose(c, errUnused)
	return true
}

// ask runs a statement, checks that the reply begins with the backend's PID, and returns
// the rest. An error with an SQLSTATE leaves the session usable, unless Postgres ended
// it.
func (c *conn) ask(patience time.Duration, sql string, args ...string) (string, error) {
	answer, err := c.askAnything(patience, sql, args...)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(answer, c.prefix)
	if !ok {
		return "", errSwapped
	}
	return rest, nil
}

// askAnything runs a statement and returns its reply unchecked. It closes the session if
// the reply takes longer than patience.
func (c *conn) askAnything(patience time.Duration, sql string, args ...string) (string, error) {
	c.engine.roundTrips.Add(1)
	c.dog.Reset(patience)
	answer, err := c.s.Ask(context.Background(), sql, args...)
	c.dog.Stop()
	if err != nil {
		select {
		case <-c.bitten:
			return "", errSilent
		default:
		}
		if swapped(err) {
			return "", fmt.Errorf("%w: %v", errSwapped, err)
		}
		return "", err
	}
	c.heard = time.Now()
	return answer, nil
}

// unavailable returns the error of a session that could not be opened.
func unavailable(err error) error {
	if swapped(err) {
		return fmt.Errorf("%w: %w", ErrPooler, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// swapped reports whether a statement that the driver prepared is missing, or was
// prepared by another client. Then this is not the session that it was prepared in.
func swapped(err error) bool {
	state := sqlstate.Of(err)
	return state == sqlstate.InvalidStatementName || state == sqlstate.DuplicateStatement
}

// holds queries which advisory locks the session holds, after Postgres replied with the
// error after. If holds fails, the session must be closed.
func (c *conn) holds(after error) (map[advisory]bool, error) {
	answer, err := c.ask(c.engine.config.Heartbeat, heldSQL)
	for n := 1; n < obstinacy && sqlstate.Of(err) == sqlstate.QueryCanceled; n++ {
		answer, err = c.ask(c.engine.config.Heartbeat, heldSQL)
	}
	switch {
	case err != nil && strings.HasPrefix(sqlstate.Of(after), "57P"):
		return nil, after // with this error Postgres ends the session
	case err != nil:
		return nil, err
	}
	return parseHeld(answer), nil
}

// work runs the batch. If it fails, the session must be closed.
func (c *conn) work() error {
	switch first := c.ops[0]; first.kind {
	case opWait:
		return c.wait(first)
	case opCancel:
		return c.cancel(first)
	case opQuery:
		return c.query(first.query)
	case opQueued:
		return c.queued(first)
	case opLook:
		return c.look()
	}
	return c.exchange()
}

// lingerYields and lingerTime limit how long gather waits for one more operation: for so
// many goroutines to run, and for a time that is short compared to a round trip, since
// those goroutines may have other things to do.
const (
	lingerYields = 20
	lingerTime   = 20 * time.Microsecond
)

// gather gives callers that just received a reply the time to request their next
// operation, so that it shares a round trip with the queue. Otherwise the callers would
// split into two halves that take turns. A single caller does not wait.
func (c *conn) gather() {
	e := c.engine
	e.mu.Lock()
	asked, want := len(c.queue), len(c.queue)+c.answered
	c.answered = 0
	e.mu.Unlock()
	if want < 2 {
		return
	}
	since := time.Now()
	for n := 0; asked < want && n < lingerYields && time.Since(since) < lingerTime; n++ {
		runtime.Gosched()
		e.mu.Lock()
		now := len(c.queue)
		e.mu.Unlock()
		if now > asked {
			asked, n, since = now, 0, time.Now()
		}
	}
}

// forget clears the references that the last batch holds. Engine.mu must be held.
func (c *conn) forget() {
	clear(c.spare)
	c.batch, c.ops, c.lone[0] = nil, nil, op{}
}
