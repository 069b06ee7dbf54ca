package engine

import "strconv"

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

// keyText returns key as text. It remembers the last one, because a lone caller unlocks
// the key that it locked.
func (s *session) keyText(key Key) string {
	if s.lastKeyText == "" || s.lastKey != key {
		s.lastKey, s.lastKeyText = key, strconv.FormatInt(key.ID, 10)
	}
	return s.lastKeyText
}
