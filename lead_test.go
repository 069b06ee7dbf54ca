package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// bothLockers runs a test with a function that returns Lockers of advisory locks, and with one
// that returns Lockers of leases.
func bothLockers(t *testing.T, test func(t *testing.T, d *db, newLocker func() *pglock.Locker)) {
	bothKinds(t, 1, func(t *testing.T, s slots) { test(t, s.db, s.newLocker) })
}

// lose ends all sessions that hold a lock or a lease.
func (d *db) lose(leases bool) {
	if leases {
		d.exec(`UPDATE pglock.session SET until = '-infinity'`)
		return
	}
	d.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase)
}

// A leader that lost its lock campaigns again, until its function returns without a loss.
func TestLeadAfterALoss(t *testing.T) {
	bothKinds(t, 1, func(t *testing.T, s slots) {
		failed := errors.New("failed")
		terms := 0
		began := time.Now()
		err := s.newLocker().Lead(t.Context(), s.key(), func(ctx context.Context) error {
			if terms++; terms == 3 {
				return failed
			}
			s.lose(s.leases)
			<-ctx.Done()
			wantErr(t, context.Cause(ctx), pglock.ErrLost)
			if terms == 1 {
				return nil // a function may well return nil when its ctx is done
			}
			return ctx.Err()
		})
		wantErr(t, err, failed)
		if errors.Is(err, pglock.ErrLost) || terms != 3 {
			t.Errorf("after %d terms: %v", terms, err)
		}
		if took := time.Since(began); took < 2300*time.Millisecond {
			t.Errorf("it paused too little: it took %v", took)
		}
		s.wantFree()
	})
}

// If one failure ends both the function and the lock, nobody knows which came first: the leader
// campaigns again. After a function that returned nil it does not.
func TestLeadLossNoticedLate(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	locker := newLocker(t, tokenSource{d.source(), nil}) // which does not watch its sessions
	terms := 0
	err := locker.Lead(t.Context(), pglock.Name("a"), func(context.Context) error {
		if terms++; terms <= 2 {
			d.lose(false)
		}
		if terms == 1 {
			return errors.New("the connection broke")
		}
		return nil
	})
	wantErr(t, err, pglock.ErrLost)
	if terms != 2 {
		t.Errorf("%d terms", terms)
	}
}

// Errors about other locks are the function's own.
func TestLeadReturnsTheErrorOfItsFunction(t *testing.T) {
	bothLockers(t, func(t *testing.T, d *db, newLocker func() *pglock.Locker) {
		locker := newLocker()
		key := pglock.Name("a")
		for _, want := range []error{nil, pglock.ErrLost, pglock.ErrUnavailable, pglock.ErrNotAcquired} {
			terms := 0
			err := locker.Lead(t.Context(), key, func(context.Context) error { terms++; return want })
			if !errors.Is(err, want) || terms != 1 {
				t.Errorf("%v after %d terms, want %v", err, terms, want)
			}
		}
		// The ctx of Lead may itself be canceled because of a loss.
		ctx, cancel := context.WithCancelCause(t.Context())
		err := locker.Lead(ctx, key, func(ctx context.Context) error {
			cancel(pglock.ErrLost)
			<-ctx.Done()
			return ctx.Err()
		})
		wantErr(t, err, context.Canceled)
	})
}

// One leads at a time, and the next one when it resigns.
func TestLeadInTurn(t *testing.T) {
	bothLockers(t, func(t *testing.T, d *db, newLocker func() *pglock.Locker) {
		key := pglock.Name("a")
		var leading atomic.Int32
		errs := make(chan error)
		lockers := []*pglock.Locker{newLocker(), newLocker(), newLocker()}
		for _, locker := range lockers {
			go func() {
				errs <- locker.Lead(context.WithoutCancel(t.Context()), key, func(ctx context.Context) error {
					if leading.Add(1) != 1 {
						t.Error("two lead")
					}
					defer leading.Add(-1)
					time.Sleep(50 * time.Millisecond)
					return ctx.Err()
				})
			}()
		}
		for range lockers {
			must(t, <-errs)
		}

		// Another one leads.
		held := lock(t, lockers[0], key)
		nothing := func(context.Context) error { t.Error("it leads"); return nil }
		for _, opt := range []pglock.LockOption{pglock.NoWait(), pglock.Wait(time.Second)} {
			wantErr(t, lockers[1].Lead(t.Context(), key, nothing, opt), pglock.ErrNotAcquired)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := lockers[1].Lead(ctx, key, nothing)
		wantErr(t, err, pglock.ErrNotAcquired)
		wantErr(t, err, context.DeadlineExceeded)
		go func() { errs <- lockers[1].Lead(context.WithoutCancel(t.Context()), key, nothing) }()
		for lockers[1].Stats().Waiting == 0 {
			time.Sleep(time.Millisecond)
		}
		must(t, lockers[1].Close())
		wantErr(t, <-errs, pglock.ErrClosed)
		must(t, held.Unlock())

		// Close tells the leader.
		err = lockers[0].Lead(t.Context(), key, func(ctx context.Context) error {
			go func() { errs <- lockers[0].Close() }()
			<-ctx.Done()
			return context.Cause(ctx)
		})
		wantErr(t, err, pglock.ErrClosed)
		must(t, <-errs)
	})
}

// With slots, several lead at a time.
func TestLeadWithSlots(t *testing.T) {
	bothLockers(t, func(t *testing.T, d *db, newLocker func() *pglock.Locker) {
		locker := newLocker()
		must(t, locker.Lead(t.Context(), pglock.Name("a"), func(context.Context) error {
			return newLocker().Lead(t.Context(), pglock.Name("a"), func(context.Context) error {
				return nil
			}, pglock.Slots(2), pglock.NoWait())
		}, pglock.Slots(2)))
	})
}

// downSource is a Source of a server that cannot be reached, at first or forever.
type downSource struct {
	driver.Source
	down  int
	opens []time.Time
}

func (s *downSource) Open(ctx context.Context) (driver.Session, error) {
	s.opens = append(s.opens, time.Now())
	if len(s.opens) > s.down {
		return s.Source.Open(ctx)
	}
	return nil, errors.New("connection refused")
}

// A leader campaigns again if no server replies.
func TestLeadWithoutAServer(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	source := &downSource{Source: d.source(), down: 1}
	terms := 0
	must(t, newLocker(t, source).Lead(t.Context(), pglock.Name("a"), func(context.Context) error { terms++; return nil }))
	if terms != 1 || len(source.opens) < 2 {
		t.Errorf("%d terms, %d connections", terms, len(source.opens))
	}
}

// The pauses between campaigns grow from a second to half a minute.
func TestLeadPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &downSource{down: 1000}
		locker, err := pglock.New(source)
		must(t, err)
		defer locker.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Minute, cancel)
		err = locker.Lead(ctx, pglock.Name("a"), func(context.Context) error { t.Error("it leads"); return nil })
		wantErr(t, err, pglock.ErrUnavailable)
		wantErr(t, err, context.Canceled)
		for i, want := 1, time.Second; i < len(source.opens); i, want = i+1, min(2*want, 30*time.Second) {
			if gap := source.opens[i].Sub(source.opens[i-1]); gap < want*4/5 || gap > want*6/5 {
				t.Errorf("pause %d was %v, not about %v", i, gap, want)
			}
		}
		if n := len(source.opens); n < 15 || n > 35 {
			t.Errorf("%d campaigns in ten minutes", n)
		}
	})
}

// Watch yields the holders at once and after each change, and goes on after an error.
func TestWatch(t *testing.T) {
	bothKinds(t, 2, func(t *testing.T, s slots) {
		a, b := s.newLocker(), s.newLocker()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var held *pglock.Lock
		var seen []string
		step := 0
		for holders, err := range a.Watch(ctx, s.key()) {
			step++
			must(t, err)
			seen = append(seen, fmt.Sprint(len(holders)))
			switch step {
			case 1:
				held = lock(t, b, s.key())
			case 2:
				if !s.leases && holders[0].PID != held.PID() || holders[0].Token != held.Token() {
					t.Errorf("holder %+v", holders[0])
				}
				must(t, held.Unlock())
				held = lock(t, a, s.key())
			case 3:
				must(t, held.Unlock())
			case 4:
				cancel()
			default:
				t.Fatal("it goes on after its ctx is done")
			}
		}
		if got := strings.Join(seen, " "); got != "0 1 1 0" {
			t.Errorf("the numbers of holders were %s", got)
		}
		// A loop may end by itself.
		for range a.Watch(t.Context(), s.key()) {
			break
		}
	})
}

// Errors are yielded. When they end, the holders are yielded again. Close ends the loop.
func TestWatchErrors(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	source := &downSource{Source: d.source(), down: 1}
	locker := newLocker(t, source)
	step := 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for holders, err := range locker.Watch(ctx, pglock.Name("a")) {
		switch step++; step {
		case 1:
			wantErr(t, err, pglock.ErrUnavailable)
		case 2:
			must(t, err)
			if len(holders) > 0 {
				t.Errorf("holders: %v", holders)
			}
			must(t, locker.Close())
		case 3:
			wantErr(t, err, pglock.ErrClosed)
		default:
			t.Fatal("it goes on after Close")
		}
	}
	if step != 3 {
		t.Errorf("%d steps", step)
	}
}
