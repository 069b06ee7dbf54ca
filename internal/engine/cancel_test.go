package engine

import (
	"context"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// With several sessions, giving up does not cost a session.
func TestGivingUp(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(2)), t.outsider()
		o.try(one, Exclusive)
		for range 5 {
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(100 * time.Millisecond)
			r.cancel()
			time.Sleep(10 * time.Millisecond)
			if !r.finished() || t.waiters(one) != 0 {
				t.Fatal("the wait continues")
			}
		}
		if n := t.server.opened; n != 3 { // one is the outsider's
			t.Errorf("%d sessions were opened", n)
		}
		r := t.start(e, one, Exclusive, Wait{For: 50 * time.Millisecond})
		<-r.done
		t.wantErr(r.err, ErrNotAcquired)
		if r.took > 50*time.Millisecond+2*trip {
			t.Errorf("it took %v", r.took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := e.Acquire(ctx, one, Exclusive, Wait{})
		t.wantErr(err, ErrNotAcquired)
		t.wantErr(err, context.DeadlineExceeded)
		_, err = e.Acquire(ctx, two, Exclusive, Wait{}) // ctx is done
		t.wantErr(err, context.DeadlineExceeded)
		_, errs := e.AcquireAll(ctx, []Key{one, two}, Exclusive, Wait{})
		t.wantErr(errs[0], context.DeadlineExceeded)
		t.wantErr(errs[1], context.DeadlineExceeded)
		t.stats(e, 0, 0)
		o.unlock(one, Exclusive)
	})
}

// An order to cancel a wait that comes after its end must not hit the next statement.
func TestLateCancel(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		t.once(1, "cancel", fault{there: 50 * time.Millisecond})
		t.always("locks x1", fault{takes: 80 * time.Millisecond})
		r.cancel()
		time.Sleep(10 * time.Millisecond) // now there is a session to cancel from
		o.unlock(one, Exclusive)
		<-r.done
		t.wantErr(r.err, context.Canceled)
		t.free(one)
		if t.count("cancels") != 1 || t.count("held") != 0 {
			t.Error("the cancel request hit the unlock")
		}
	})
}

// No cancel order is given for a wait that has ended, while its outcome is being queried.
func TestNoCancelAfterTheWait(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		t.once(1, "wait", fault{err: pgError(sqlstate.DeadlockDetected)})
		t.once(2, "locks X1", fault{takes: 100 * time.Millisecond}) // the first one was refused
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		r.cancel()
		<-r.done
		t.wantErr(r.err, context.Canceled)
		if t.count("cancel") != 0 {
			t.Error("the query of the outcome was canceled")
		}
		o.unlock(one, Exclusive)
	})
}

// The session that should cancel a wait does not open. The waiting session, which holds
// nothing, is closed.
func TestCancelFromASessionThatNeverOpens(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		t.refuse = func() (time.Duration, error) { return time.Hour, errSocket }
		r.cancel()
		began := time.Now()
		<-r.done
		if took := time.Since(began); took > settleTimeout {
			t.Errorf("giving up took %v", took)
		}
		t.server.mu.Lock()
		t.refuse = nil
		t.server.mu.Unlock()
		o.unlock(one, Exclusive)
		time.Sleep(trip)
		t.free(one)
	})
}
