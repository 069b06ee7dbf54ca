package engine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// This file has the statements of a session, and how it finds out what took effect if
// Postgres replies with an error. If one of these functions returns an error, the session
// must be closed: nothing that it held can be relied on.

// exchange runs the batch of tries, unlocks and probes in one statement.
func (c *conn) exchange() error {
	ops := c.ops
	answer, err := c.askFor(ops)
	if err == nil {
		return c.settle(ops, answer)
	}
	if sqlstate.Of(err) == "" {
		return err
	}
	// Some operations took effect before the failure, and are kept. The others are run
	// one by one, so that one failing request does not fail the rest.
	has, lost := c.holds(err)
	if lost != nil {
		return lost
	}
	for _, o := range ops {
		lock := advisory{o.key, o.mode}
		switch {
		case o.kind == opConfirm:
			lost = c.settle(c.one(o), "1") // the session replied
		case o.kind == opProbe && has[lock]:
			lost = probedInHalf(err)
		case o.kind == opTry && has[lock], o.kind == opUnlock && !has[lock]:
			lost = c.settle(c.one(o), "1")
		case o.kind == opTry && sqlstate.Of(err) == sqlstate.OutOfMemory:
			lost = c.refuse(o, err) // the next one would not fit either
		default:
			lost = c.single(o)
			delete(has, lock) // an unlock has run, and the next try has not
		}
		if lost != nil {
			return lost
		}
	}
	return nil
}

// single runs one try, unlock or probe that has failed before. If it is canceled again,
// single retries it.
func (c *conn) single(o op) error {
	for n := 1; ; n++ {
		answer, err := c.askFor(c.one(o))
		if err == nil {
			return c.settle(c.one(o), answer)
		}
		if sqlstate.Of(err) == "" {
			return err
		}
		has, lost := c.holds(err)
		switch held := has[advisory{o.key, o.mode}]; {
		case lost != nil:
			return lost
		case o.kind == opProbe && held:
			return probedInHalf(err)
		case o.kind == opTry && held, o.kind == opUnlock && !held:
			return c.settle(c.one(o), "1") // it took effect before it failed
		case n < obstinacy && sqlstate.Of(err) == sqlstate.QueryCanceled:
			continue
		case o.kind == opProbe:
			return c.settle(c.one(o), "0")
		case o.kind == opTry:
			return c.refuse(o, err)
		}
		return fmt.Errorf("%w: %w", errStillHeld, err)
	}
}

// errStillHeld ends a session that, as Postgres reported, still held a lock that could
// not be unlocked.
var errStillHeld = errors.New("unlock failed")

// probedInHalf returns the error of a session on which a failed probe may have left its
// lock.
func probedInHalf(err error) error {
	return fmt.Errorf("a lock may be left by a check for other waiters: %w", err)
}

// one returns a batch of one operation.
func (c *conn) one(o op) []op {
	c.lone[0] = o
	return c.lone[:]
}

// askFor runs the statement for ops. The reply has a 1 or 0 for each.
func (c *conn) askFor(ops []op) (answer string, err error) {
	patience := c.engine.config.Heartbeat / 2
	if len(ops) == 1 {
		o := ops[0]
		c.args[0] = c.textOf(o.key)
		answer, err = c.ask(patience, oneSQL[letter(o.kind, o.key, o.mode)], c.args[:1]...)
	} else {
		c.keys, c.letters = append(c.keys[:0], '{'), c.letters[:0]
		for i, o := range ops {
			if i > 0 {
				c.keys = append(c.keys, ',')
			}
			c.keys = strconv.AppendInt(c.keys, o.key.ID, 10)
			c.letters = append(c.letters, letter(o.kind, o.key, o.mode)...)
		}
		c.keys = append(c.keys, '}')
		c.args = [2]string{string(c.keys), string(c.letters)}
		answer, err = c.ask(patience, batchSQL, c.args[:]...)
	}
	if err == nil && len(answer) != len(ops) {
		err = fmt.Errorf("%d results for %d locks", len(answer), len(ops))
	}
	return answer, err
}

// textOf returns key as text. It remembers the last one, because a lone caller unlocks
// the key that it locked.
func (c *conn) textOf(key Key) string {
	if c.text == "" || c.last != key {
		c.last, c.text = key, strconv.FormatInt(key.ID, 10)
	}
	return c.text
}

// settle passes the replies to the first ops of the batch to their entries.
func (c *conn) settle(ops []op, answer string) error {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	c.settled = c.heard
	for i, o := range ops {
		if c.lost != nil {
			break
		}
		c.batch = c.batch[1:]
		ok := answer[i] == '1'
		switch o.kind {
		case opTry:
			e.tried(o.ent, c, ok)
		case opUnlock:
			e.unlocked(o.ent, c, ok)
		case opConfirm:
			c.confirmed()
		case opProbe:
			e.probed(o.ent, ok)
		}
	}
	return c.lost
}

// refuse passes the error of a failed try to its entry.
func (c *conn) refuse(o op, err error) error {
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if c.lost == nil {
		c.batch = c.batch[1:]
		e.failed(o.ent, err)
	}
	return c.lost
}

// wait waits for one lock, until c.waitEnds at the latest.
func (c *conn) wait(o op) error {
	e := c.engine
	e.mu.Lock()
	slice := max(time.Until(c.waitEnds), time.Millisecond)
	e.mu.Unlock()
	// Rounded up, since 0 would mean no timeout.
	millis := strconv.FormatInt(int64((slice+time.Millisecond-1)/time.Millisecond), 10)
	_, err := c.ask(slice+e.config.Heartbeat/2, waitSQL[letter(o.kind, o.key, o.mode)], c.textOf(o.key), millis)

	// A late order to cancel this wait must not hit the next statement. It is withdrawn
	// if it has not begun, and waited for otherwise.
	e.mu.Lock()
	c.waitEnds = time.Time{} // so no new cancel order is given
	e.uncancel(c)
	canceled := c.canceled
	e.mu.Unlock()
	if canceled != nil {
		<-canceled
	}

	got := err == nil
	var holders string
	sampled := false
	if err != nil {
		state := sqlstate.Of(err)
		if state == "" {
			return err
		}
		// The lock may have been granted just as the wait ended.
		has, lost := c.holds(err)
		if lost != nil {
			return lost
		}
		got = has[advisory{o.key, o.mode}]
		if got || state == sqlstate.LockNotAvailable || state == sqlstate.QueryCanceled {
			err = nil
		}
		e.mu.Lock()
		sampled = c.lost == nil && !got && err == nil && o.ent.sampleDue()
		e.mu.Unlock()
		if sampled {
			classid, objid, objsubid := o.key.columns()
			var failed error
			holders, failed = c.ask(e.config.Heartbeat/2, holdersSQL, classid, objid, objsubid)
			if failed != nil && sqlstate.Of(failed) == "" {
				return failed
			}
			sampled = failed == nil
		}
	}
	e.mu.Lock()
	defer e.unlock()
	c.canceled = nil
	if c.lost == nil {
		c.batch = nil
		if sampled {
			o.ent.sample(holders)
		}
		e.waited(o.ent, c, got, err)
	}
	return c.lost
}

// queued checks whether any session waits for a lock that this session holds.
func (c *conn) queued(o op) error {
	e := c.engine
	classid, objid, objsubid := o.key.columns()
	answer, err := c.ask(e.config.Heartbeat/2, queuedSQL, classid, objid, objsubid)
	if err != nil && sqlstate.Of(err) == "" {
		return err
	}
	e.mu.Lock()
	defer e.unlock()
	if c.lost == nil {
		c.batch = nil
		e.probed(o.ent, err == nil && answer == "1")
	}
	return c.lost
}

// look checks whether other sessions wait for one of our waiting statements to end, and
// ends those waits. It also closes sessions whose backends are gone.
func (c *conn) look() error {
	e := c.engine
	e.mu.Lock()
	long := e.waitingLong()
	e.mu.Unlock()
	var pids []string
	for pid := range long {
		pids = append(pids, strconv.Itoa(int(pid)))
	}
	began := time.Now()
	var answer string
	if len(pids) > 0 {
		var err error
		answer, err = c.ask(e.config.Heartbeat/2, awaitedSQL, "{"+strings.Join(pids, ",")+"}")
		if err != nil && sqlstate.Of(err) == "" {
			return err
		}
	}
	took := time.Since(began)
	e.mu.Lock()
	defer e.unlock()
	if c.lost != nil {
		return c.lost
	}
	c.batch = nil
	each := func(pids string, f func(waiting *conn)) {
		for text := range strings.SplitSeq(pids, ",") {
			pid, _ := strconv.Atoi(text)
			if waiting := long[int32(pid)]; waiting != nil && waiting.waiting != nil {
				f(waiting)
			}
		}
	}
	stuck, gone, _ := strings.Cut(answer, ";")
	each(stuck, func(waiting *conn) {
		waiting.cut = awaited
		e.interrupt(waiting.waiting)
	})
	each(gone, (*conn).kill)
	e.looked(max(lookInterval, lookPause*took))
	return nil
}

// cancel cancels another session's wait. If that fails, the wait ends with its slice.
func (c *conn) cancel(o op) error {
	e := c.engine
	e.mu.Lock()
	pid, start := o.target.pid, o.target.start
	e.mu.Unlock()
	_, err := c.ask(e.config.Heartbeat/2, cancelSQL, strconv.Itoa(int(pid)), start)
	if err != nil && sqlstate.Of(err) == "" {
		return err // lose closes done
	}
	e.mu.Lock()
	defer e.unlock()
	if c.lost == nil {
		c.batch = nil
		close(o.done)
	}
	return c.lost
}

// query runs a statement that does not belong to a lock.
func (c *conn) query(q *query) error {
	answer, err := c.askAnything(c.engine.config.Heartbeat/2, q.sql, q.args...)
	if err != nil && sqlstate.Of(err) == "" {
		return err // lose closes ready
	}
	e := c.engine
	e.mu.Lock()
	defer e.unlock()
	if c.lost == nil {
		c.batch = nil
		q.answer, q.err = answer, err
		close(q.ready)
	}
	return c.lost
}
