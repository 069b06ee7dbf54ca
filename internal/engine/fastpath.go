package engine

import "strconv"

// This file has the fast path of a lone caller. If a session has nothing else to do, the
// caller runs its operation itself, in a statement for a single key.

// An owner is who may use a session's connection.
type owner uint8

const (
	free   owner = iota // nobody; any goroutine with an operation may take it
	runner              // the session's own goroutine
	caller              // a goroutine that called Engine
)

// unlockMuAndHelp is unlockMu for a caller that will block until its operation is done. If
// the session has nothing else to do, the caller runs the operation itself. That saves
// two goroutine switches, which take longer than Postgres' reply.
func (e *Engine) unlockMuAndHelp() {
	if len(e.toWake) == 1 && e.toWake[0].canServeCaller() {
		s := e.toWake[0]
		e.toWake, s.needsWake = e.toWake[:0], false
		s.owner, s.busy = caller, true
		s.fillBatch()
		e.unlockMuAndNotify()
		s.runForCaller()
		return
	}
	e.unlockMu()
}

// canServeCaller reports whether a caller may run the next batch. A session that had
// several operations last time has several callers, which its own goroutine serves
// together. Engine.mu must be held.
func (s *session) canServeCaller() bool {
	return s.owner == free && s.lastSingle && s.open && s.lost == nil && len(s.queue) > 0 && s.queue[0].kind <= opProbe
}

// runForCaller runs the batch that a caller took, and leaves the rest of the queue to run.
func (s *session) runForCaller() {
	e := s.engine
	err := s.runLocks()
	e.mu.Lock()
	if err != nil {
		s.markLost(err)
	}
	s.clearBatch()
	s.owner, s.busy, s.lastUse = free, false, s.lastReply
	if len(s.queue) > 0 || s.lost != nil {
		s.wake()
	}
	e.unlockMu()
}

// queryOne runs the statement for one operation, which is faster than that for a batch.
// The reply has a 1 or 0.
func (s *session) queryOne(o op) (string, error) {
	s.args[0] = s.keyText(o.key)
	return s.queryText(s.engine.config.Heartbeat/2, oneSQL[letter(o.kind, o.key, o.mode)], s.args[:1]...)
}

// keyText returns key as text. It remembers the last one, because a lone caller unlocks
// the key that it locked.
func (s *session) keyText(key Key) string {
	if s.lastKeyText == "" || s.lastKey != key {
		s.lastKey, s.lastKeyText = key, strconv.FormatInt(key.ID, 10)
	}
	return s.lastKeyText
}
