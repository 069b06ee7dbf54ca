package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A session that holds nothing is closed after a minute.
func TestUnusedSessionsAreClosed(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch = deaf
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				time.Sleep(time.Hour)
				t.must(h.Err())
				t.must(h.Release())
				time.Sleep(50 * time.Second)
				if len(t.pids()) != 1 {
					t.Error("it was closed too early")
				}
				time.Sleep(20 * time.Second)
				if len(t.pids()) != 0 || e.Stats().Sessions != 0 {
					t.Error("it is still there")
				}
				t.must(t.acquire(e, one, Exclusive).Release())
			})
		})
	}
}

// The server is pinged no more than necessary, and a silent loss is noticed within the
// heartbeat.
func TestHeartbeat(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch = deaf
				t.notice = func(*backend, bool) time.Duration { return 35 * time.Second }
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				trips := e.Stats().RoundTrips
				time.Sleep(10 * time.Minute)
				if n := e.Stats().RoundTrips - trips; n < 118 || n > 122 {
					t.Errorf("%d pings in ten minutes", n)
				}
				t.silence(h.PID())
				cut := time.Now()
				<-h.Done()
				if d := time.Since(cut); d > 10*time.Second {
					t.Errorf("noticed after %v", d)
				}
				t.wantErr(h.Err(), ErrLost)
				t.wantErr(h.Release(), ErrLost)
			})
		})
	}
}

// Closing a connection to a silent server may take long. The holders are notified of the
// loss before that.
func TestSilenceIsToldBeforeTheSessionIsClosed(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch, t.closing = deaf, 20*time.Second
				t.notice = func(*backend, bool) time.Duration { return 35 * time.Second }
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				t.silence(h.PID())
				cut := time.Now()
				<-h.Done()
				if d := time.Since(cut); d > 10*time.Second {
					t.Errorf("noticed after %v", d)
				}
			})
		})
	}
}

// A pooler that resets the session has released its locks, although the backend is the
// same. The holders are notified after the next ping.
func TestSessionIsReset(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		h := t.acquire(e, one, Exclusive)
		t.once(2, "ping", fault{reset: true})
		time.Sleep(7 * time.Second)
		t.must(h.Err())
		time.Sleep(5 * time.Second)
		t.wantErr(h.Err(), ErrLost)
		t.wantErr(h.Err(), ErrPooler)
		t.wantErr(h.Release(), ErrLost)
		t.free(one)
	})
}

// Prepared statements that are missing, or that exist already, were prepared in another
// session. Nothing that this session holds can be relied on, and no request is refused
// because of it.
func TestPreparedStatementsOfAnotherSession(t *testing.T) {
	for _, state := range []string{sqlstate.InvalidStatementName, sqlstate.DuplicateStatement} {
		for _, kind := range []string{"locks X1", "locks x1", "ping", "wait X1"} {
			t.Run(state+" "+kind, func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e, o := t.engine(), t.outsider()
					other := t.acquire(e, two, Exclusive)
					if kind == "wait X1" {
						o.try(one, Exclusive)
					}
					t.once(1, kind, fault{err: pgError(state)})
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(10 * time.Second)
					if kind == "wait X1" {
						// It waits on a separate session, which is opened again.
						t.must(other.Err())
						t.must(other.Release())
						if n := t.server.opened; n != 4 { // one is the outsider's
							t.Errorf("%d sessions were opened", n)
						}
						o.unlock(one, Exclusive)
						t.grantedWithin(r, 10*time.Millisecond)
						return
					}
					<-r.done
					t.must(r.err)
					if err := r.hold.Release(); kind == "locks X1" {
						t.must(err)
					} else {
						t.wantErr(err, ErrLost)
						t.wantErr(err, ErrPooler)
					}
					t.wantErr(other.Err(), ErrLost)
					t.wantErr(other.Err(), ErrPooler)
					t.wantErr(other.Release(), ErrLost)
				})
			})
		}
	}
}

func TestAnotherBackendAnswers(t *testing.T) {
	for _, kind := range []string{"locks X", "wait", "held", "ping"} {
		t.Run(kind, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e, o := t.engine(), t.outsider()
				o.try(one, Exclusive)
				if kind == "held" {
					t.once(1, "wait", fault{err: pgError(sqlstate.LockNotAvailable)})
				}
				t.once(1, kind, fault{swap: true})
				other := t.acquire(e, two, Exclusive)
				r := t.start(e, one, Exclusive, Wait{})
				time.Sleep(20 * time.Second)
				o.unlock(one, Exclusive)
				t.grantedWithin(r, 10*time.Millisecond)
				if kind == "ping" {
					t.wantErr(other.Release(), ErrLost)
					if !errors.Is(other.Err(), ErrPooler) {
						t.Error(other.Err())
					}
				} else {
					t.must(other.Release())
				}
			})
		})
	}
}
