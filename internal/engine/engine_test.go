package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// Close comes in every state of a request.
func TestClose(t *testing.T) {
	closes := func(t *bench, e *Engine, within time.Duration, lost int) {
		t.Helper()
		began := time.Now()
		second := make(chan int)
		go func() { second <- e.Close() }()
		if n := e.Close() + <-second; n != lost {
			t.Errorf("Close returned %d lost locks, not %d", n, lost)
		}
		if d := time.Since(began); d > within {
			t.Errorf("Close took %v", d)
		}
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrClosed)
		_, errs := e.AcquireAll(t.Context(), []Key{one}, Exclusive, Wait{})
		t.wantErr(errs[0], ErrClosed)
		_, err = e.Query(t.Context(), "SELECT 1")
		t.wantErr(err, ErrClosed)
		if s := e.Stats(); s.Sessions+s.Held+s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * trip)
	}
	t.Run("unused", func(t *testing.T) {
		inBubble(t, func(t *bench) { closes(t, t.engine(), 0, 0) })
	})
	t.Run("resting", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			t.must(t.acquire(e, one, Exclusive).Release())
			time.Sleep(time.Second)
			closes(t, e, 0, 0)
		})
	})
	t.Run("held to the end", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			h := t.acquire(e, one, Exclusive)
			var told []error
			h.OnLoss(func(err error) { told = append(told, err) })
			closes(t, e, closeTimeout+trip, 1)
			t.wantErr(h.Err(), ErrLost)
			t.wantErr(h.Release(), ErrLost)
			if len(told) != 2 || !errors.Is(told[0], ErrClosed) || errors.Is(told[0], ErrLost) || !errors.Is(told[1], ErrLost) {
				t.Errorf("notified of %v", told)
			}
			t.free(one)
		})
	})
	t.Run("held for a while", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			h := t.acquire(e, one, Exclusive)
			next := t.start(e, one, Exclusive, Wait{})
			h.OnLoss(func(error) {
				go func() {
					time.Sleep(time.Second)
					t.must(h.Err())
					t.must(h.Release())
				}()
			})
			closes(t, e, time.Second+trip, 0)
			<-next.done
			t.wantErr(next.err, ErrClosed)
			t.free(one)
		})
	})
	t.Run("waiting", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e, o := t.engine(), t.outsider()
			o.try(one, Exclusive)
			rs := []*request{t.start(e, one, Exclusive, Wait{}), t.start(e, one, Shared, Wait{})}
			time.Sleep(100 * time.Millisecond)
			// The only session waits, so none can cancel the wait: it ends with its
			// slice.
			closes(t, e, e.config.Slice, 0)
			for _, r := range rs {
				<-r.done
				t.wantErr(r.err, ErrClosed)
			}
			if n := t.waiters(one); n != 0 {
				t.Errorf("%d sessions still wait for the lock", n)
			}
			o.unlock(one, Exclusive)
			t.free(one)
		})
	})
	t.Run("polling", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e, o := t.engine(sessions(1)), t.outsider()
			h := t.acquire(e, two, Exclusive)
			o.try(one, Exclusive)
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(105 * time.Millisecond)
			h.OnLoss(func(error) { go h.Release() })
			closes(t, e, 2*trip, 0)
			<-r.done
			t.wantErr(r.err, ErrClosed)
			o.unlock(one, Exclusive)
		})
	})
	t.Run("opening", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			t.refuse = func() (time.Duration, error) { return time.Hour, errSocket }
			e := t.engine()
			r := t.start(e, one, Exclusive, Wait{})
			closes(t, e, 0, 0)
			<-r.done
			t.wantErr(r.err, ErrClosed)
		})
	})
	t.Run("a server that hangs", func(t *testing.T) {
		for _, kind := range []string{"meet", "locks X1", "ping", "query"} {
			t.Run(kind, func(t *testing.T) {
				inBubble(t, func(t *bench) {
					t.always(kind, fault{cut: before})
					e := t.engine()
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(100 * time.Millisecond)
					within := trip
					switch kind {
					case "locks X1":
						within = closeTimeout // it may still come
					case "ping":
						<-r.done
						t.must(r.hold.Release())
						time.Sleep(6 * time.Second)
					case "query":
						<-r.done
						t.must(r.hold.Release())
						go e.Query(context.Background(), "SELECT 1")
						synctest.Wait()
					}
					closes(t, e, within, 0)
				})
			})
		}
	})
}

func TestQuery(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine(sessions(2))
		h := t.acquire(e, one, Exclusive)
		reply, err := e.Query(t.Context(), "SELECT", "a", "b")
		t.must(err)
		if reply != "answer to SELECT a b" {
			t.Error(reply)
		}
		t.once(1, "query", fault{err: pgError("42P01")})
		if _, err = e.Query(t.Context(), "SELECT"); sqlstate.Of(err) != "42P01" {
			t.Error(err)
		}
		t.once(1, "query", fault{cut: after})
		_, err = e.Query(t.Context(), "SELECT")
		t.wantErr(err, ErrUnavailable)
		ctx, cancel := context.WithCancel(t.Context())
		t.once(1, "query", fault{cut: before})
		time.AfterFunc(time.Second, cancel)
		_, err = e.Query(ctx, "SELECT")
		t.wantErr(err, context.Canceled)
		_, err = e.Query(ctx, "SELECT")
		t.wantErr(err, context.Canceled)
		time.Sleep(time.Minute)
		t.must(h.Err()) // a hanging query does not cost a lock
		t.must(h.Release())
	})
}

func TestDropped(t *testing.T) {
	inBubble(t, func(t *bench) {
		var log strings.Builder
		e := t.engine(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		h := t.acquire(e, one, Exclusive)
		e.Dropped("the lock")
		if s := e.Stats(); s.Dropped != 1 || s.Held != 1 {
			t.Errorf("%+v", s)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "the lock") {
			t.Errorf("the log has %q", log.String())
		}
		t.must(h.Release())
	})
}
