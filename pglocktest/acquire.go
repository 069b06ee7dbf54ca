package pglocktest

import (
	"context"
	"fmt"
	"testing"

	"github.com/pglock-go/pglock/driver"
)

// Database tests that the connections that db provides meet the requirements of
// [driver.Acquired], and those of [Conn]. db also opens the other sessions that the tests
// need. Everything else is as for [Conn]; [Source] tests the sessions of db.
func Database[C any](t *testing.T, db driver.Database[C]) {
	run(t, append(acquireChecks(db), connChecks(db, func(t testing.TB) driver.Conn {
		return acquireSuite[C]{db}.acquire(t).Conn
	})...))
}

// An acquireSuite has the checks of acquiring a connection.
type acquireSuite[C any] struct{ db driver.Database[C] }

func acquireChecks[C any](db driver.Database[C]) []check {
	s := acquireSuite[C]{db}
	return []check{
		{"AcquireUntilContextEnds", s.acquireUntilContextEnds},
		{"ReleaseWithoutReuseCloses", s.releaseWithoutReuseCloses},
		{"ReleaseTwice", s.releaseTwice},
	}
}

// acquire acquires a connection until the end of the test.
func (s acquireSuite[C]) acquire(t testing.TB) driver.Acquired[C] {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	a, err := s.db.Acquire(ctx)
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	t.Cleanup(func() { a.Release(false) })
	return a
}

func (s acquireSuite[C]) acquireUntilContextEnds(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if a, err := s.db.Acquire(ctx); err == nil {
		t.Error("a connection is acquired although the context has ended")
		a.Release(false)
	}
}

// releaseWithoutReuseCloses checks that a connection in an uncertain state, here with a
// lock and an open transaction, does not return to the pool.
func (s acquireSuite[C]) releaseWithoutReuseCloses(t testing.TB) {
	outside := Key(t, s.db, key())
	a := s.acquire(t)
	exec(t, a.Conn, fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, key().ID()))
	exec(t, a.Conn, `BEGIN`)
	was := pid(t, a.Conn)
	outside.AwaitHeld()
	a.Release(false)
	outside.AwaitFree()
	if now := pid(t, s.acquire(t).Conn); now == was {
		t.Error("the connection is acquired again, although it was released without reuse")
	}
}

// releaseTwice checks that a second Release does nothing to the next user of the
// connection.
func (s acquireSuite[C]) releaseTwice(t testing.TB) {
	first := s.acquire(t)
	first.Release(true)
	next := s.acquire(t)
	was := pid(t, next.Conn)
	first.Release(true)
	first.Release(false)
	want(t, next.Conn, was, pidSQL)
}
