package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// maxBatch limits the number of operations in one statement.
const maxBatch = 2048

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
	if s.engine.pollers.n > 0 {
		for _, o := range s.batch {
			if o.kind == opTry && o.lock.polls != nil {
				s.replied-- // no caller gets a reply if it fails, which is likely
			}
		}
	}
	if s.batch[0].kind == opWait {
		s.limitWait(s.batch[0].lock)
	}
}

// clearBatch clears the references that the last batch holds. Engine.mu must be held.
func (s *session) clearBatch() {
	clear(s.batchBuf)
	s.batch, s.ops, s.singleOp[0] = nil, nil, op{}
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
	queued, want := len(s.queue), len(s.queue)+s.replied
	s.replied = 0
	e.mu.Unlock()
	if want < 2 {
		return
	}
	since := time.Now()
	for n := 0; queued < want && n < gatherYields && time.Since(since) < gatherTime; n++ {
		runtime.Gosched()
		e.mu.Lock()
		now := len(s.queue)
		e.mu.Unlock()
		if now > queued {
			queued, n, since = now, 0, time.Now()
		}
	}
	if linger := s.roundTrip.linger(); queued < want && linger > gatherTime {
		s.linger(queued, want, linger)
	}
}

// lingerShare is the part of a round trip that a session lingers at most: an operation that
// comes too late for a statement waits for a whole round trip.
const lingerShare = 16

// linger waits for d at most until as many operations are queued as are wanted. If it waits in
// vain, the callers have other things to do, and it is skipped for some batches.
func (s *session) linger(queued, want int, d time.Duration) {
	if s.skipLingers > 0 {
		s.skipLingers--
		return
	}
	e := s.engine
	e.mu.Lock()
	s.awaited = want
	wait := len(s.queue) < want && s.lost == nil
	e.mu.Unlock()
	if wait {
		s.sleep(d)
	}
	e.mu.Lock()
	s.awaited = 0
	came := len(s.queue) - queued
	e.mu.Unlock()
	if 2*came >= want-queued {
		s.vainLingers = 0
		return
	}
	s.vainLingers = min(s.vainLingers+1, 4)
	s.skipLingers = 1<<s.vainLingers - 1
}

// A roundTrip is an estimate of the network's round trip time, in nanoseconds.
type roundTrip time.Duration

// opTime is how long Postgres takes for one operation of a batch, at most.
const opTime = 4 * time.Microsecond

// add adds a measurement: how long a statement of so many operations took. The estimate
// follows the quickest replies at once, and slower ones slowly, since what delays a reply
// is seldom the network.
func (r *roundTrip) add(took time.Duration, ops int) {
	measured := roundTrip(max(took-time.Duration(ops)*opTime, gatherTime))
	if *r == 0 || measured < *r {
		*r = measured
		return
	}
	*r += min(measured-*r, *r) / 64
}

// linger returns how long to wait for more operations.
func (r roundTrip) linger() time.Duration { return time.Duration(r) / lingerShare }

// The functions below run a batch, and find out what took effect if Postgres replies with
// an error. If one of them returns an error, the session must be closed: nothing that it
// held can be relied on.

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
	var lost error
	err := handshake.Persist(context.Background(), func() (err error) {
		lost, err = s.runOnce(o)
		return err
	})
	switch {
	case err == nil:
		return lost
	case o.kind == opProbe:
		return s.applyResults(s.batchOf(o), "0")
	case o.kind == opTry:
		return s.failTry(o, err)
	}
	return fmt.Errorf("%w: %w", errStillHeld, err)
}

// runOnce runs o. It returns the error of a statement that failed and changed nothing as
// err, and the reason to end the session as lost.
func (s *session) runOnce(o op) (lost, err error) {
	reply, err := s.queryOps(s.batchOf(o))
	if err == nil {
		return s.applyResults(s.batchOf(o), reply), nil
	}
	if sqlstate.Of(err) == "" {
		return err, nil
	}
	has, lost := s.queryHeld(err)
	switch held := has[heldLock{o.key, o.mode}]; {
	case lost != nil:
		return lost, nil
	case o.kind == opProbe && held:
		return halfProbeError(err), nil
	case o.kind == opTry && held, o.kind == opUnlock && !held:
		return s.applyResults(s.batchOf(o), "1"), nil // it took effect before it failed
	}
	return nil, err
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
	began := time.Now()
	if len(ops) == 1 {
		reply, err = s.queryOne(ops[0])
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
		reply, err = s.queryText(s.engine.config.Heartbeat/2, batchSQL, s.args[:]...)
	}
	if err == nil && len(reply) != len(ops) {
		err = fmt.Errorf("%d results for %d locks", len(reply), len(ops))
	}
	if err == nil {
		s.roundTrip.add(s.lastReply.Sub(began), len(ops))
	}
	return reply, err
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
			o.lock.tryDone(s, ok)
		case opUnlock:
			o.lock.unlockDone(s, ok)
		case opConfirm:
			s.notifyConfirmed()
		case opProbe:
			o.lock.probeDone(ok)
		}
	}
	return s.lost
}

// failTry passes the error of a failed try to its lock.
func (s *session) failTry(o op, err error) error {
	return s.finish(func() { o.lock.tryFailed(err) })
}

// freshTime is how long a reply proves that a session is alive, so that not every
// hand-over within the process needs a confirmation.
const freshTime = 2 * time.Millisecond

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
		h.notify(nil)
	}
	clear(s.confirming)
	s.confirming = s.confirming[:0]
}
