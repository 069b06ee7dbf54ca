package pglock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgbouncer"
)

// leaseOf returns the holder of a lease and its token, from the table.
func (d *db) leaseOf(key pglock.Key) (owner string, token int64) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lease(key.LeaseName())
}

// A loop around Do with Every on each machine is a schedule of the fleet: by the database's
// clock, no two runs begin within the period.
func TestEveryInTheFleet(t *testing.T) {
	test := func(t *testing.T, d *db, source driver.Source) {
		const period, want = 700 * time.Millisecond, 4
		key := pglock.Name(t.Name())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var mu sync.Mutex
		var began []int64
		running := 0
		var wg sync.WaitGroup
		for range 3 {
			locker := leaseLocker(t, source)
			for range 2 {
				wg.Go(func() {
					for ctx.Err() == nil {
						err := locker.Do(ctx, key, func(context.Context) error {
							// A token is the time at which the lease was taken, in microseconds.
							_, at := d.leaseOf(key)
							mu.Lock()
							began = append(began, at)
							running++
							if running > 1 {
								t.Error("two run at once")
							}
							if len(began) > want {
								cancel()
							}
							mu.Unlock()
							time.Sleep(10 * time.Millisecond)
							mu.Lock()
							running--
							mu.Unlock()
							return nil
						}, pglock.Every(period))
						if err != nil && ctx.Err() == nil {
							t.Error(err)
							cancel()
						}
					}
				})
			}
		}
		wg.Wait()
		if len(began) <= want {
			t.Fatalf("%d runs in a minute", len(began))
		}
		for i := range began[1:] {
			if gap := time.Duration(began[i+1]-began[i]) * time.Microsecond; gap < period {
				t.Errorf("run %d began %v after the one before", i+1, gap)
			}
		}
	}
	t.Parallel()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		d := newDB(t)
		d.installLeases()
		test(t, d, d.source())
	})
	t.Run("pooler", func(t *testing.T) {
		t.Parallel()
		d, dsn, _ := pooled(t, pgbouncer.Transaction)
		d.installLeases()
		test(t, d, source(t, dsn))
	})
}

// A holder that crashed has used the period up, and a function that fails has not.
func TestEveryAfterACrash(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	key := pglock.Name("job")
	a, b := leaseLocker(t, d.source()), leaseLocker(t, d.source())
	none := func(context.Context) error { t.Error("it runs before it is due"); return nil }

	var token int64
	err := a.Do(t.Context(), key, func(ctx context.Context) error {
		_, token = d.leaseOf(key)
		// Its session ends, as if the process had crashed and its time to live were over.
		d.exec("UPDATE pglock.session SET until = '-infinity' WHERE id = (SELECT owner FROM pglock.lease WHERE name = 'job')")
		<-ctx.Done()
		return nil
	}, pglock.Every(time.Hour))
	wantErr(t, err, pglock.ErrLost)

	must(t, b.Do(t.Context(), key, none, pglock.Every(time.Hour), pglock.SkipIfHeld()))
	for _, opt := range []pglock.DoOption{pglock.NoWait(), pglock.Wait(2 * time.Second)} {
		err = b.Do(t.Context(), key, none, pglock.Every(time.Hour), opt)
		wantErr(t, err, pglock.ErrNotAcquired)
		if e := new(pglock.Error); !strings.Contains(err.Error(), "not due for ") || !errors.As(err, &e) || e.Due < 50*time.Minute || e.Due > time.Hour || len(e.Holders) > 0 {
			t.Errorf("the error does not say when it is due: %v, %+v", err, e)
		}
	}
	var due int64
	d.scan(&due, `SELECT (extract(epoch FROM free_at) * 1000000)::bigint FROM pglock.lease WHERE name = 'job'`)
	if period := time.Duration(due-token) * time.Microsecond; period < time.Hour || period > time.Hour+time.Second {
		t.Errorf("it is due %v after it was taken", period)
	}
	// Without an option it waits, and so does a Lock without Every.
	d.scan(&due, `UPDATE pglock.lease SET free_at = clock_timestamp() + interval '2 s' WHERE name = 'job'
		RETURNING (extract(epoch FROM free_at) * 1000000)::bigint`)
	must(t, b.Do(t.Context(), key, func(context.Context) error {
		if _, next := d.leaseOf(key); next < due {
			t.Errorf("the next run began %v too early", time.Duration(due-next)*time.Microsecond)
		}
		return nil
	}, pglock.Every(time.Hour)))
	_, err = b.Lock(t.Context(), key, pglock.Wait(2*time.Second))
	wantErr(t, err, pglock.ErrNotAcquired)
}

// A function that fails leaves the run to others, and one that panics does not.
func TestEveryAfterAnError(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	key := pglock.Name("job")
	a, b := leaseLocker(t, d.source()), leaseLocker(t, d.source())
	failed := errors.New("failed")
	err := a.Do(t.Context(), key, func(context.Context) error { return failed }, pglock.Every(time.Hour))
	wantErr(t, err, failed)

	ran := false
	func() {
		defer func() { recover() }()
		_ = b.Do(t.Context(), key, func(context.Context) error { ran = true; panic("failed") }, pglock.Every(time.Hour), pglock.NoWait())
	}()
	if !ran {
		t.Error("it does not run after an error")
	}
	err = a.Do(t.Context(), key, func(context.Context) error { return nil }, pglock.Every(time.Hour), pglock.NoWait())
	wantErr(t, err, pglock.ErrNotAcquired)
	if !strings.Contains(err.Error(), "not due for 59m") {
		t.Error(err)
	}
	// A request that does not wait says the same while another one of its process waits.
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		waited <- a.Do(ctx, key, func(context.Context) error { return nil }, pglock.Every(1<<63-1))
	}()
	for a.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	err = a.Do(t.Context(), key, func(context.Context) error { return nil }, pglock.Every(time.Hour), pglock.NoWait())
	wantErr(t, err, pglock.ErrNotAcquired)
	if !strings.Contains(err.Error(), "not due for 59m") {
		t.Error(err)
	}
	cancel()
	err = <-waited
	wantErr(t, err, context.Canceled)
	if !strings.Contains(err.Error(), "not due for 59m") {
		t.Error(err)
	}
}

// Once and for all is the largest period.
func TestEveryForever(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	key := pglock.Name("job")
	locker := leaseLocker(t, d.source())
	runs := 0
	for range 2 {
		must(t, locker.Do(t.Context(), key, func(context.Context) error { runs++; return nil }, pglock.Every(1<<63-1), pglock.SkipIfHeld()))
	}
	if runs != 1 {
		t.Errorf("%d runs", runs)
	}
}

// A note is published with the lease, also with each of several.
func TestNote(t *testing.T) {
	everyPath(t, func(t *testing.T, d *db, source driver.Source) {
		a, b := leaseLocker(t, source), leaseLocker(t, source)
		one, two := pglock.Name(t.Name()), pglock.Name(t.Name()+" two")
		note := `10.0.0.7:8080 "ä" {a,b} \ $1 ` + strings.Repeat("ü", 80)
		first, err := a.LockAll(t.Context(), []pglock.Key{one, two}, pglock.Note(note), pglock.Wait(10*time.Second))
		must(t, err)
		held, err := b.Holders(t.Context(), one, two)
		must(t, err)
		for _, key := range []pglock.Key{one, two} {
			if len(held[key]) != 1 || held[key][0].Note != note {
				t.Errorf("%v: %+v", key, held[key])
			}
		}
		_, err = b.Lock(t.Context(), one, pglock.NoWait())
		wantErr(t, err, pglock.ErrNotAcquired)
		if !strings.Contains(err.Error(), "10.0.0.7:8080") {
			t.Error(err)
		}
		must(t, first.Unlock())
		// The next holder says nothing.
		second, err := b.Lock(t.Context(), one, pglock.Wait(10*time.Second))
		must(t, err)
		held, err = a.Holders(t.Context(), one)
		must(t, err)
		if len(held[one]) != 1 || held[one][0].Note != "" {
			t.Errorf("%+v", held[one])
		}
		must(t, second.Unlock())
	})
}
