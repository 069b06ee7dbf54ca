package pglock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// The token of an advisory lock grows with each holder, also if the lock is handed over within
// the process.
func TestFenced(t *testing.T) {
	everySource(t, func(t *testing.T, d *db) {
		a, b := d.locker(), d.locker()
		key := pglock.Name("a")
		var last int64
		take := func(l *pglock.Locker, opts ...pglock.LockOption) *pglock.Lock {
			held := lock(t, l, key, append(opts, pglock.Fenced(), pglock.Wait(20*time.Second))...)
			if held.Token() <= last {
				t.Errorf("token %d after %d", held.Token(), last)
			}
			last = held.Token()
			return held
		}
		for range 3 {
			for _, l := range []*pglock.Locker{a, b} {
				must(t, take(l).Unlock())
			}
		}
		// Handed over: the next holder waits while the lock is held.
		held := take(a)
		next := make(chan *pglock.Lock)
		go func() { next <- take(a) }()
		for a.Stats().Waiting == 0 {
			time.Sleep(time.Millisecond)
		}
		must(t, held.Unlock())
		must(t, (<-next).Unlock())
		must(t, take(b, pglock.Slots(2)).Unlock())
		must(t, take(b, pglock.Shared()).Unlock())

		// It is of the same kind as what Postgres says.
		var now int64
		d.scan(&now, `SELECT txid_current()`)
		if now <= last {
			t.Errorf("the transaction ID is %d, the token %d", now, last)
		}
		plain := lock(t, a, key)
		if plain.Token() != 0 {
			t.Errorf("a lock without Fenced has the token %d", plain.Token())
		}
		must(t, plain.Unlock())
	})
}

// One token stands for all locks of LockAll, on whatever sessions they are.
func TestFencedAll(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	a, b := d.locker(), d.locker()
	keys := []pglock.Key{pglock.Int(1), pglock.Int(2), pglock.Int(3)}
	held := lock(t, b, keys[1], pglock.Fenced())
	got := make(chan *pglock.Lock)
	go func() {
		all, err := a.LockAll(context.WithoutCancel(t.Context()), keys, pglock.Fenced(), pglock.Wait(20*time.Second))
		if err != nil {
			t.Error(err)
		}
		got <- all
	}()
	d.untilWaiting(1, keys[1])
	must(t, held.Unlock())
	all := <-got
	if all == nil {
		return
	}
	if all.Token() <= held.Token() {
		t.Errorf("token %d after %d", all.Token(), held.Token())
	}
	must(t, all.Err())
	must(t, all.Unlock())
	must(t, lock(t, b, keys[1], pglock.NoWait()).Unlock())
}

// A tokenSource calls a function before each statement that makes a token.
type tokenSource struct {
	driver.Source
	before func(ctx context.Context)
}

func (s tokenSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return tokenSession{session, s.before}, nil
}

type tokenSession struct {
	driver.Session
	before func(ctx context.Context)
}

// Watch is not supported, so that a loss is not noticed at once.
func (s tokenSession) Watch(context.Context) error { return errors.ErrUnsupported }

func (s tokenSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if strings.Contains(sql, "txid_current") {
		s.before(ctx)
	}
	return s.Session.QueryText(ctx, sql, args...)
}

// A lock whose session ends before the token is made is not returned, even if the loss is not
// noticed: another session may hold the lock by then, with a smaller token.
func TestFencedLostMeanwhile(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		d := newDB(t)
		keys := []pglock.Key{pglock.Int(1), pglock.Int(2)}
		classid, objid, objsubid := keys[1].PgLocks()
		// Ends the session that holds the last lock, and gives the lock to another session.
		before := func(context.Context) {
			d.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND `+inThisDatabase+`
				AND classid = $1 AND objid = $2 AND objsubid = $3 AND pid <> pg_backend_pid()`, classid, objid, objsubid)
			d.exec(`SELECT pg_advisory_lock(2)`)
		}
		locker, other := newLocker(t, tokenSource{d.source(), before}), d.locker()
		held := lock(t, other, keys[1])
		// It waits, so that the last lock is on another session than the first.
		got := make(chan error)
		go func() {
			ctx := context.WithoutCancel(t.Context())
			var err error
			if all {
				_, err = locker.LockAll(ctx, keys, pglock.Fenced(), pglock.Wait(20*time.Second))
			} else {
				_, err = locker.Lock(ctx, keys[1], pglock.Fenced(), pglock.Wait(20*time.Second))
			}
			got <- err
		}()
		d.untilWaiting(1, keys[1])
		must(t, held.Unlock())
		err := <-got
		wantErr(t, err, pglock.ErrUnavailable)
		if errors.Is(err, pglock.ErrLost) {
			t.Errorf("the caller never had the lock: %v", err)
		}
		d.exec(`SELECT pg_advisory_unlock_all()`)
		if n := d.held(); n > 0 {
			t.Errorf("%d locks are left", n)
		}
	}
}

// If there is no token in time, the lock is released.
func TestFencedInTime(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	late := make(chan struct{})
	locker := newLocker(t, tokenSource{d.source(), func(context.Context) { <-late }})
	key := pglock.Int(1)
	_, err := locker.Lock(t.Context(), key, pglock.Fenced(), pglock.Wait(2*time.Second))
	wantErr(t, err, pglock.ErrUnavailable)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is ctx's: %v", err)
	}
	late <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		d.until(`SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase)
		cancel()
	}()
	_, err = locker.Lock(ctx, key, pglock.Fenced())
	wantErr(t, err, pglock.ErrUnavailable)
	wantErr(t, err, context.Canceled)
	close(late)
	d.until(`SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase)
}
