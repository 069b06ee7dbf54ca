package engine

import (
	"context"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// An op is an operation to run on a session.
type op struct {
	kind   opKind
	mode   Mode
	lock   *localLock
	key    Key           // of lock, which may be reused for another key after the session was lost
	query  *query        // of opQuery
	lease  *leaseArgs    // of opTry and opUnlock, for a lease
	target *session      // of opCancel
	done   chan struct{} // of opCancel: closed when it has been carried out
}

// leaseArgs are the arguments of an operation on a lease.
type leaseArgs struct {
	terms LeaseTerms // of opTry
	token int64      // of opUnlock
	again bool       // of opUnlock: it may be taken again at once

	doubted bool // of opUnlock: it may have released the lease already
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

// push adds o to the queue. Engine.mu must be held, and must be unlocked by Engine.unlockMu
// or Engine.unlockMuAndHelp, which make sure that the queue is processed.
func (s *session) push(o op) {
	if o.lock != nil {
		o.key = o.lock.key
	}
	s.queue = append(s.queue, o)
	if (!s.busy || len(s.queue) == s.awaited) && !s.needsWake {
		s.needsWake = true
		s.engine.toWake = append(s.engine.toWake, s)
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

// pushQuery adds a query to the queue, as push does. Engine.mu must be held.
func (s *session) pushQuery(sql string, args []string) *query {
	q := &query{sql: sql, args: args, ready: make(chan struct{})}
	s.push(op{kind: opQuery, query: q})
	return q
}

// await waits for the reply, or until ctx is done.
func (q *query) await(ctx context.Context) (string, error) {
	select {
	case <-q.ready:
		return q.reply, q.err
	case <-ctx.Done():
		return "", noReplyError(ctx)
	}
}

// runQuery runs a statement that does not belong to a lock.
func (s *session) runQuery(q *query) error {
	reply, err := s.queryRaw(s.engine.config.Heartbeat/2, q.sql, q.args...)
	if err != nil && sqlstate.Of(err) == "" {
		return err // markLost closes ready
	}
	return s.finish(func() {
		q.reply, q.err = reply, err
		close(q.ready)
	})
}

// finish removes the first operation from the batch and calls f, which handles its result
// while Engine.mu is held. If the session is lost, markLost has handled the operation, and
// finish returns the reason instead.
func (s *session) finish(f func()) error {
	s.engine.mu.Lock()
	defer s.engine.unlockMu()
	if s.lost == nil {
		s.batch = s.batch[1:]
		f()
	}
	return s.lost
}
