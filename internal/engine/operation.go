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

// runLocks runs the batch of tries, unlocks and probes in one statement.
func (s *session) runLocks() error {
	ops := s.ops
	reply, err := s.queryOps(ops)
	if err == nil {
		return s.applyResults(ops, reply)
	}
	if sqlstate.Of(err) == "" {
		return err
	}
	// Some operations took effect before the failure, and are kept. The others are run
	// one by one, so that one failing request does not fail the rest.
	has, lost := s.queryHeld(err)
	if lost != nil {
		return lost
	}
	for _, o := range ops {
		lock := heldLock{o.key, o.mode}
		switch {
		case o.kind == opConfirm:
			lost = s.applyResults(s.batchOf(o), "1") // the session replied
		case o.kind == opProbe && has[lock]:
			lost = halfProbeError(err)
		case o.kind == opTry && has[lock], o.kind == opUnlock && !has[lock]:
			lost = s.applyResults(s.batchOf(o), "1")
		case o.kind == opTry && sqlstate.Of(err) == sqlstate.OutOfMemory:
			lost = s.failTry(o, err) // the next one would not fit either
		default:
			lost = s.runSingle(o)
			delete(has, lock) // an unlock has run, and the next try has not
		}
		if lost != nil {
			return lost
		}
	}
	return nil
}

// runSingle runs one try, unlock or probe that has failed before. If it is canceled again,
// runSingle retries it.
func (s *session) runSingle(o op) error {
	for n := 1; ; n++ {
		reply, err := s.queryOps(s.batchOf(o))
		if err == nil {
			return s.applyResults(s.batchOf(o), reply)
		}
		if sqlstate.Of(err) == "" {
			return err
		}
		has, lost := s.queryHeld(err)
		switch held := has[heldLock{o.key, o.mode}]; {
		case lost != nil:
			return lost
		case o.kind == opProbe && held:
			return halfProbeError(err)
		case o.kind == opTry && held, o.kind == opUnlock && !held:
			return s.applyResults(s.batchOf(o), "1") // it took effect before it failed
		case n < maxCancelRetries && sqlstate.Of(err) == sqlstate.QueryCanceled:
			continue
		case o.kind == opProbe:
			return s.applyResults(s.batchOf(o), "0")
		case o.kind == opTry:
			return s.failTry(o, err)
		}
		return fmt.Errorf("%w: %w", errStillHeld, err)
	}
}

// errStillHeld ends a session that, as Postgres reported, still held a lock that could
// not be unlocked.
var errStillHeld = errors.New("unlock failed")

// halfProbeError returns the error of a session on which a failed probe may have left its
// lock.
func halfProbeError(err error) error {
	return fmt.Errorf("a lock may be left by a check for other waiters: %w", err)
}

// batchOf returns a batch of one operation.
func (s *session) batchOf(o op) []op {
	s.singleOp[0] = o
	return s.singleOp[:]
}

// queryOps runs the statement for ops. The reply has a 1 or 0 for each.
func (s *session) queryOps(ops []op) (reply string, err error) {
	timeout := s.engine.config.Heartbeat / 2
	if len(ops) == 1 {
		o := ops[0]
		s.args[0] = s.keyText(o.key)
		reply, err = s.queryText(timeout, oneSQL[letter(o.kind, o.key, o.mode)], s.args[:1]...)
	} else {
		s.keysBuf, s.lettersBuf = append(s.keysBuf[:0], '{'), s.lettersBuf[:0]
		for i, o := range ops {
			if i > 0 {
				s.keysBuf = append(s.keysBuf, ',')
			}
			s.keysBuf = strconv.AppendInt(s.keysBuf, o.key.ID, 10)
			s.lettersBuf = append(s.lettersBuf, letter(o.kind, o.key, o.mode)...)
		}
		s.keysBuf = append(s.keysBuf, '}')
		s.args = [2]string{string(s.keysBuf), string(s.lettersBuf)}
		reply, err = s.queryText(timeout, batchSQL, s.args[:]...)
	}
	if err == nil && len(reply) != len(ops) {
		err = fmt.Errorf("%d results for %d locks", len(reply), len(ops))
	}
	return reply, err
}

// keyText returns key as text. It remembers the last one, because a lone caller unlocks
// the key that it locked.
func (s *session) keyText(key Key) string {
	if s.lastKeyText == "" || s.lastKey != key {
		s.lastKey, s.lastKeyText = key, strconv.FormatInt(key.ID, 10)
	}
	return s.lastKeyText
}

// applyResults passes the replies to the first ops of the batch to their locks.
func (s *session) applyResults(ops []op, reply string) error {
	e := s.engine
	e.mu.Lock()
	defer e.unlockMu()
	s.lastLockReply = s.lastReply
	for i, o := range ops {
		if s.lost != nil {
			break
		}
		s.batch = s.batch[1:]
		ok := reply[i] == '1'
		switch o.kind {
		case opTry:
			e.tryDone(o.lock, s, ok)
		case opUnlock:
			e.unlockDone(o.lock, s, ok)
		case opConfirm:
			s.notifyConfirmed()
		case opProbe:
			e.probeDone(o.lock, ok)
		}
	}
	return s.lost
}

// failTry passes the error of a failed try to its lock.
func (s *session) failTry(o op, err error) error {
	e := s.engine
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = s.batch[1:]
		e.tryFailed(o.lock, err)
	}
	return s.lost
}

// runWait waits for one lock, until s.waitEnd at the latest.
func (s *session) runWait(o op) error {
	e := s.engine
	e.mu.Lock()
	slice := max(time.Until(s.waitEnd), time.Millisecond)
	e.mu.Unlock()
	// Rounded up, since 0 would mean no timeout.
	millis := strconv.FormatInt(int64((slice+time.Millisecond-1)/time.Millisecond), 10)
	_, err := s.queryText(slice+e.config.Heartbeat/2, waitSQL[letter(o.kind, o.key, o.mode)], s.keyText(o.key), millis)

	// A late order to cancel this wait must not hit the next statement. It is withdrawn
	// if it has not begun, and waited for otherwise.
	e.mu.Lock()
	s.waitEnd = time.Time{} // so no new cancel order is given
	e.withdrawCancel(s)
	canceled := s.canceled
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
		has, lost := s.queryHeld(err)
		if lost != nil {
			return lost
		}
		got = has[heldLock{o.key, o.mode}]
		if got || state == sqlstate.LockNotAvailable || state == sqlstate.QueryCanceled {
			err = nil
		}
		e.mu.Lock()
		sampled = s.lost == nil && !got && err == nil && o.lock.sampleDue()
		e.mu.Unlock()
		if sampled {
			classid, objid, objsubid := o.key.columns()
			var failed error
			holders, failed = s.queryText(e.config.Heartbeat/2, holdersSQL, classid, objid, objsubid)
			if failed != nil && sqlstate.Of(failed) == "" {
				return failed
			}
			sampled = failed == nil
		}
	}
	e.mu.Lock()
	defer e.unlockMu()
	s.canceled = nil
	if s.lost == nil {
		s.batch = nil
		if sampled {
			o.lock.sample(holders)
		}
		e.waitDone(o.lock, s, got, err)
	}
	return s.lost
}

// runQueued checks whether any session waits for a lock that this session holds.
func (s *session) runQueued(o op) error {
	e := s.engine
	classid, objid, objsubid := o.key.columns()
	reply, err := s.queryText(e.config.Heartbeat/2, queuedSQL, classid, objid, objsubid)
	if err != nil && sqlstate.Of(err) == "" {
		return err
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = nil
		e.probeDone(o.lock, err == nil && reply == "1")
	}
	return s.lost
}

// runMonitor checks whether other sessions wait for one of our waiting statements to end,
// and ends those waits. It also closes sessions whose backends are gone.
func (s *session) runMonitor() error {
	e := s.engine
	e.mu.Lock()
	long := e.longWaits()
	e.mu.Unlock()
	var pids []string
	for pid := range long {
		pids = append(pids, strconv.Itoa(int(pid)))
	}
	began := time.Now()
	var reply string
	if len(pids) > 0 {
		var err error
		reply, err = s.queryText(e.config.Heartbeat/2, awaitedSQL, "{"+strings.Join(pids, ",")+"}")
		if err != nil && sqlstate.Of(err) == "" {
			return err
		}
	}
	took := time.Since(began)
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost != nil {
		return s.lost
	}
	s.batch = nil
	each := func(pids string, f func(waiting *session)) {
		for text := range strings.SplitSeq(pids, ",") {
			pid, _ := strconv.Atoi(text)
			if waiting := long[int32(pid)]; waiting != nil && waiting.waiting != nil {
				f(waiting)
			}
		}
	}
	stuck, gone, _ := strings.Cut(reply, ";")
	each(stuck, func(waiting *session) {
		waiting.cut = cutAwaited
		e.interruptWait(waiting.waiting)
	})
	each(gone, (*session).kill)
	e.monitorDone(max(monitorInterval, monitorPause*took))
	return nil
}

// runCancel cancels another session's wait. If that fails, the wait ends with its slice.
func (s *session) runCancel(o op) error {
	e := s.engine
	e.mu.Lock()
	pid, start := o.target.pid, o.target.start
	e.mu.Unlock()
	_, err := s.queryText(e.config.Heartbeat/2, cancelSQL, strconv.Itoa(int(pid)), start)
	if err != nil && sqlstate.Of(err) == "" {
		return err // sessionLost closes done
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = nil
		close(o.done)
	}
	return s.lost
}

// runQuery runs a statement that does not belong to a lock.
func (s *session) runQuery(q *query) error {
	reply, err := s.queryRaw(s.engine.config.Heartbeat/2, q.sql, q.args...)
	if err != nil && sqlstate.Of(err) == "" {
		return err // sessionLost closes ready
	}
	e := s.engine
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = nil
		q.reply, q.err = reply, err
		close(q.ready)
	}
	return s.lost
}
