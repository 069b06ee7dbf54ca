package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// The error with which Postgres ends a session is the cause of the loss, even if it is
// the reply to another statement.
func TestTerminationIsTheReason(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		h := t.acquire(e, one, Exclusive)
		t.once(1, "locks x1", fault{die: before})
		err := h.Release()
		t.wantErr(err, ErrLost)
		if sqlstate.Of(err) != sqlstate.AdminShutdown {
			t.Error(err)
		}
	})
}

// A loss that the server reports is noticed at once if the driver supports Watch.
func TestTermination(t *testing.T) {
	for _, after := range []time.Duration{0, 5 * time.Millisecond, time.Second, time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				next := t.start(e, one, Exclusive, Wait{})
				var told error
				h.OnLoss(func(err error) {
					told = err
					if next.hold != nil {
						t.Error("another request acquired it before")
					}
				})
				time.Sleep(after)
				t.terminate(h.PID())
				killed := time.Now()
				<-h.Done()
				if d := time.Since(killed); d > idleSpin+time.Millisecond {
					t.Errorf("noticed after %v", d)
				}
				t.wantErr(h.Err(), ErrLost)
				t.wantErr(told, ErrLost)
				if sqlstate.Of(h.Err()) != sqlstate.AdminShutdown {
					t.Error(h.Err())
				}
				h.OnLoss(func(err error) { told = nil })
				if told != nil {
					t.Error("a late Notify was not called at once")
				}
				t.grantedWithin(next, 10*time.Millisecond)
				if s := e.Stats(); s.Lost != 1 || s.Acquired != 2 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// The server hangs while a lock is released, or the session dies.
func TestLossWhileReleasing(t *testing.T) {
	for name, f := range map[string]fault{
		"silence before": {cut: before}, "silence after": {cut: after}, "death before": {die: before}, "death after": {die: after},
		"another backend answers": {swap: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e := t.engine()
				h, other := t.acquire(e, one, Exclusive), t.acquire(e, two, Exclusive)
				t.once(1, "locks x1", f)
				began := time.Now()
				t.wantErr(h.Release(), ErrLost) // it is not known when
				if d := time.Since(began); d > 5*time.Second+trip {
					t.Errorf("it took %v", d)
				}
				t.wantErr(other.Err(), ErrLost)
				time.Sleep(trip)
				t.free(one)
				t.free(two)
			})
		})
	}
}

func TestUnlockDenied(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine(handOver(0))
		h, other := t.acquire(e, one, Exclusive), t.acquire(e, two, Exclusive)
		next := t.start(e, one, Exclusive, Wait{})
		t.once(1, "locks x1", fault{lie: true})
		t.wantErr(h.Release(), ErrLost)
		t.wantErr(other.Release(), ErrLost)
		<-next.done
		t.must(next.err)
		if next.hold.PID() == h.PID() {
			t.Error("the session is still in use")
		}
		t.must(next.hold.Release())
	})
}

// A session is lost during a wait or a try. Another one takes over, but only a limited
// number of times.
func TestLossWhileAsking(t *testing.T) {
	for _, kind := range []string{"wait", "locks X1"} {
		for losses := 1; losses <= maxRetries+2; losses++ {
			t.Run(fmt.Sprint(kind, losses), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e, o := t.engine(), t.outsider()
					if kind == "wait" {
						o.try(one, Exclusive)
						// Each new session tries first, and is not lost by that.
						for n := range losses {
							t.once(1, "wait", fault{die: point(1 + n%2)})
						}
					} else {
						for range losses {
							t.once(1, kind, fault{die: before})
						}
					}
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(2 * time.Second)
					if kind == "wait" {
						o.unlock(one, Exclusive)
						t.grantedWithin(r, 10*time.Millisecond)
						return
					}
					<-r.done
					if losses <= maxRetries {
						t.must(r.err)
						t.must(r.hold.Release())
						return
					}
					t.wantErr(r.err, ErrUnavailable)
					if n := t.server.opened; n != maxRetries+2 { // including the outsider
						t.Errorf("%d sessions were opened", n)
					}
				})
			})
		}
	}
}
