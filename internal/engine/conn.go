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
	errNotOurs = errors.New("by Postgres' word the session did not hold the lock it was to unlock")
	errSwapped = fmt.Errorf("%w: another backend answered", ErrPooler)
	errReset   = fmt.Errorf("%w: the session was reset", ErrPooler)
	errSilent  = errors.New("no answer within the heartbeat")
	errUnused  = errors.New("not needed for a while")

	errUnknownPath = errors.New("the driver does not report the PID that the server gave it, " +
		"so that a pooler cannot be ruled out")
)

// A conn is one session, with what it holds and what it has been asked. Only its
// own goroutine, run, uses the connection.
type conn struct {
	engine *Engine
	wake   chan struct{} // has room for one call to look at the queue

	// Guarded by Engine.mu.
	s        Conn // nil until open
	pid      int32
	start    string // the backend's start, to tell it from a later one with its pid
	open     bool
	owner    owner              // who may use the connection now
	busy     bool               // the owner looks at the queue before it rests
	rung     bool               // is in Engine.rung
	queue    []op               // what is asked of it next
	batch    []op               // what it is being asked
	unsure   []*Hold            // released, and to be told whether they were held to the last: by the next opConfirm
	sure     []*Hold            // the same, of the opConfirm in the batch
	settled  time.Time          // when it answered last about locks
	held     []*entry           // what it holds, in no order
	waiting  *entry             // what it waits for, or is about to
	waitFrom time.Time          // when the wait in Postgres began that is under way
	waitEnds time.Time          // when it ends, if not before
	cut      cut                // why it is ended before
	canceled chan struct{}      // closed when the order to cancel its waiting has been carried out
	alone    bool               // the last batch had a single op
	answered int                // how many it had, until it has been waited for more
	unwatch  context.CancelFunc // calls it back from listening
	lost     error              // why it is lost
	cause    error              // the same, as those who held locks are told
	losses   int                // how many locks were lost with it

	// Used by the owner alone.
	ops    []op // the whole batch
	shared bool // a pooler lends it, or may

	forgetBackend func() // takes it out of the backends of this process
	mark          string // the session's, by which it is known to be ours alone
	prefix        string // of every answer: the backend's pid
	spare         []op   // where batches are made
	last          Key    // the key of the last batch of one
	text          string // the same, as statements have it
	keys          []byte // where statements are made
	letters       []byte
	args          [2]string
	lone          [1]op
	dog           *time.Timer // ends the session when an answer takes too long
	bitten        chan struct{}
	timer         *time.Timer
	deaf          bool      // the driver cannot listen
	heard         time.Time // the last answer
	used          time.Time // the last answer that somebody asked for
}

// An op is something to ask of a session.
type op struct {
	kind   opKind
	mode   Mode
	ent    *entry
	key    Key           // of ent, which may be another one's once the session is lost
	query  *query        // of opQuery
	target *conn         // of opCancel
	done   chan struct{} // of opCancel: closed when it has been carried out
}

type opKind uint8

const (
	opTry     opKind = iota // take the lock if it is free
	opUnlock                // give it back
	opConfirm               // is the session, and with it all that it holds, still there?
	opProbe                 // could it be had shared?
	opQueued                // the same of a lock that this session holds: does somebody wait for it?
	opLook                  // does somebody wait for a statement of ours that waits?
	opWait                  // wait for it
	opCancel                // end another session's waiting
	opQuery                 // something else
)

// A query is a statement that is nobody's lock.
type query struct {
	sql    string
	args   []string
	answer string
	err    error
	ready  chan struct{} // closed when answer and err are there
}

// owner is who may use the connection of a session.
type owner uint8

const (
	free   owner = iota // nobody: whoever has something to ask may take it
	runner              // its own goroutine
	caller              // a goroutine that asked for something itself
)

// cut is why a wait in Postgres is ended before its time.
type cut uint8

const (
	uncut    cut = iota
	forOther     // another key of ours has its turn
	awaited      // somebody waits for the end of our statement
)

// obstinacy is how often a statement is tried that somebody cancels.
const obstinacy = 5

// maxBatch is how many locks and unlocks one statement takes at the most.
const maxBatch = 2048

// push adds to the queue. Engine.mu is held, and is given up by Engine.unlock or
// Engine.unlockAndHelp, which see to it that the queue is looked at.
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

// confirm has h told whether its lock was held until now, and reports true, unless the
// session has answered just before. All who ask before the session is asked next share
// one answer. Engine.mu is held.
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

// confirmed tells those who asked. Engine.mu is held.
func (c *conn) confirmed() {
	for _, h := range c.sure {
		c.engine.tell(h, nil)
	}
	clear(c.sure)
	c.sure = c.sure[:0]
}

// unlock gives up Engine.mu and wakes the sessions that have something to do, and
// the Holds that have been told something.
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

// unlockAndHelp is unlock for a caller who will sleep until a session has done
// what was asked of it: if that session has nothing else to do, the caller does
// it itself. Being alone, it is spared two switches between goroutines, which
// take longer than Postgres' answer.
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

// help runs the batch that a caller took, and leaves the rest to run.
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

// alarm has run look at the queue. Engine.mu is held.
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

// withdraw takes back what was asked for an entry, if that has not begun.
// Engine.mu is held.
func (c *conn) withdraw(ent *entry) bool {
	for i, o := range c.queue {
		if o.ent == ent && (o.kind == opTry || o.kind == opWait) {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return true
		}
	}
	return false
}

// kill ends the connection under what it is doing. Engine.mu is held.
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

// run is the session's life.
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

// begin opens the connection and sees to it that it is fit for holding locks.
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

// greet asks the session who it is, which changes nothing on it, and sets it up only
// when it is known to be ours.
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
		return fmt.Errorf("%w: another Locker uses the same session", ErrPooler)
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

	// The client must notice a loss before the server frees its locks: the
	// heartbeat comes first, and the server waits for more than two.
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
		// Closing may take a moment, and then the driver's giving up another one:
		// those who hold locks are told first.
		e.mu.Lock()
		e.lose(c, errSilent)
		e.unlock()
		c.s.Close()
	})
	c.dog.Stop()
	c.timer = time.NewTimer(time.Hour)
	return nil
}

// persist runs a statement of the session's beginning, again if somebody cancels it.
func (e *Engine) persist(ctx context.Context, f func() error) error {
	return handshake.Persist(ctx, func() error {
		e.roundTrips.Add(1)
		return f()
	})
}

// prove makes sure that the server has advisory locks, once for each server: some that
// speak the protocol answer true to every lock and every unlock.
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
		return fmt.Errorf("%w: it is %s: %w", ErrNoAdvisoryLocks, hello.Version, err)
	case err != nil:
		return unavailable(err)
	case !proved:
		return fmt.Errorf("%w: it is %s", ErrNoAdvisoryLocks, hello.Version)
	}
	e.mu.Lock()
	e.proved = server
	e.mu.Unlock()
	return nil
}

// noPostgres reports whether a server said that it does not have what every Postgres
// has.
func noPostgres(err error) bool {
	switch sqlstate.Of(err) {
	case sqlstate.FeatureNotSupported, sqlstate.UndefinedFunction, sqlstate.UndefinedTable,
		sqlstate.UndefinedColumn, sqlstate.UndefinedObject, sqlstate.SyntaxError:
		return true
	}
	return false
}

// reset takes back what we set on a session that a pooler may lend to others next. It
// is done only for one that ends in order: nobody else uses it, and it holds nothing.
func (c *conn) reset() {
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	same, err := c.s.Ask(ctx, pingSQL, c.mark)
	if err == nil && same == c.prefix+"1" {
		_ = c.s.Exec(ctx, "DISCARD ALL") // the pooler does it itself, unless it was told not to
	}
}

// take waits until there is something to do and makes it the batch.
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

// sleep waits for the alarm, or for a time.
func (c *conn) sleep(d time.Duration) (woken bool) {
	c.timer.Reset(d)
	select {
	case <-c.wake:
		return true
	case <-c.timer.C:
		return false
	}
}

// takeBatch takes from the queue what can travel together: tries and unlocks in
// the order of their asking, or one thing of another kind. Engine.mu is held.
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

// listen waits for something to do, for the loss of the session, or for the time
// to ask whether it is still there.
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
	c.busy = true // and no alarm is needed
	e.mu.Unlock()
	same, err := c.ask(e.config.Heartbeat/2, pingSQL, c.mark)
	if err != nil && sqlstate.Of(err) != "" {
		_, err = c.holds(err) // somebody canceled the ping
		return err
	}
	if err == nil && same != "1" {
		return errReset
	}
	return err
}

// retire takes the session out of service if nothing needs it.
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

// ask runs a statement and gives back its answer without the backend's pid, of
// which it makes sure. An error with an SQLSTATE leaves the session usable, if
// Postgres did not end it.
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

// unavailable is why a session could not be begun.
func unavailable(err error) error {
	if swapped(err) {
		return fmt.Errorf("%w: %w", ErrPooler, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// swapped reports whether the statements that the driver prepared are not there,
// or those of another: it is not the session that they were prepared in.
func swapped(err error) bool {
	state := sqlstate.Of(err)
	return state == sqlstate.InvalidStatementName || state == sqlstate.DuplicateStatement
}

// holds asks which advisory locks the session holds, after Postgres answered with
// an error. Its own errors are the session's end.
func (c *conn) holds(after error) (map[advisory]bool, error) {
	answer, err := c.ask(c.engine.config.Heartbeat, heldSQL)
	for n := 1; n < obstinacy && sqlstate.Of(err) == sqlstate.QueryCanceled; n++ {
		answer, err = c.ask(c.engine.config.Heartbeat, heldSQL)
	}
	switch {
	case err != nil && strings.HasPrefix(sqlstate.Of(after), "57P"):
		return nil, after // that was Postgres' word that it ends the session
	case err != nil:
		return nil, err
	}
	return parseHeld(answer), nil
}

// work asks Postgres what the batch asks. Its error is the session's end.
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

// How long a session that has just answered several waits for one more of them to
// ask again: for so many goroutines to run meanwhile, and no longer than a time that
// is short beside a round trip, since they may have other things to do.
const (
	lingerYields = 20
	lingerTime   = 20 * time.Microsecond
)

// gather lets those who were just answered ask for more before the queue is
// served, so that they travel together with those who are in it: without it, two
// halves would take turns. A caller who is alone is not made to wait.
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

// forget drops what the last batch points to. Engine.mu is held.
func (c *conn) forget() {
	clear(c.spare)
	c.batch, c.ops, c.lone[0] = nil, nil, op{}
}
