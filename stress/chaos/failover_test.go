package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
	"github.com/pglock-go/pglock/stress/chaos"
)

// A cluster is a primary with a standby, and the driver that connects to them.
type cluster struct {
	t                *testing.T
	primary, standby *pgserver.Server
	source           func(dsn string) driver.Source
}

// eachDriver runs a test on a new cluster for each driver.
func eachDriver(t *testing.T, test func(c *cluster)) {
	t.Parallel()
	for name, source := range map[string]func(string) driver.Source{
		"pgx":                  func(dsn string) driver.Source { return pgxlock.ConnString(dsn) },
		"database/sql, pgx":    func(dsn string) driver.Source { return sqllock.ConnString("pgx", dsn) },
		"database/sql, lib/pq": func(dsn string) driver.Source { return sqllock.ConnString("postgres", dsn) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{t: t, source: source}
			c.primary = pgtest.Own(t, pgserver.Options{TCP: true})
			c.standby = pgtest.Standby(t, c.primary)
			test(c)
		})
	}
}

// either returns a connection string with both servers that selects the one that
// accepts writes.
func either(first, second *pgserver.Server) string {
	return fmt.Sprintf("host=%s,%s port=%d,%d user=postgres dbname=postgres sslmode=disable target_session_attrs=read-write",
		first.Host(), second.Host(), first.Port(), second.Port())
}

func (c *cluster) locker(dsn string, opts ...pglock.LockerOption) *pglock.Locker {
	c.t.Helper()
	locker, err := pglock.New(c.source(dsn), append([]pglock.LockerOption{pglock.Heartbeat(time.Second)}, opts...)...)
	c.must(err)
	c.t.Cleanup(func() { locker.Close() })
	return locker
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) want(err, want error) {
	c.t.Helper()
	if !errors.Is(err, want) {
		c.t.Fatalf("got error %v, want %v", err, want)
	}
}

func (c *cluster) lock(locker *pglock.Locker, key pglock.Key, opts ...pglock.LockOption) *pglock.Lock {
	c.t.Helper()
	lock, err := locker.Lock(c.t.Context(), key, opts...)
	c.must(err)
	return lock
}

// heldOn reports whether the lock is held on a server.
func (c *cluster) heldOn(server *pgserver.Server, key pglock.Key) (held bool) {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), server.ConnString("postgres"))
	c.must(err)
	defer conn.Close(context.Background())
	c.must(conn.QueryRow(c.t.Context(), `SELECT NOT pg_try_advisory_lock($1)`, key.ID()).Scan(&held))
	return held
}

// pings waits until a Locker has received n more responses from its server.
func (c *cluster) pings(locker *pglock.Locker, n uint64) {
	c.t.Helper()
	for before := locker.Stats().RoundTrips; locker.Stats().RoundTrips < before+n+1; {
		select {
		case <-c.t.Context().Done():
			c.t.Fatal("no pings")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c *cluster) promote() {
	c.t.Helper()
	c.must(c.standby.Promote(c.t.Context()))
}

// The primary is killed under load and the standby promoted. Holders are notified when
// the primary dies. Requests fail with ErrUnavailable until there is a primary again,
// and then succeed there. A lock is never granted while another holder has not been
// notified.
func TestFailoverOfAKilledPrimary(t *testing.T) {
	eachDriver(t, func(c *cluster) {
		const lockers, goroutines, keys = 3, 4, 4
		var (
			inside         [keys]atomic.Int32 // holders of the key that have not been notified
			conflicts      atomic.Int32       // how often there were two
			stop           atomic.Bool
			promotionBegun atomic.Bool // there is a new primary
			before         atomic.Int32
			after          atomic.Int32
			first          atomic.Int64 // when the first lock was acquired there, in Unix nanoseconds
			mu             sync.Mutex
			outcomes       = map[string]int{}
			wg             sync.WaitGroup
		)
		defer wg.Wait()
		defer stop.Store(true)
		work := func(locker *pglock.Locker, i int) {
			for !stop.Load() {
				n := i % keys
				i++
				err := locker.Do(c.t.Context(), pglock.Int(int64(n)), func(ctx context.Context) error {
					if inside[n].Add(1) > 1 {
						conflicts.Add(1)
					}
					defer inside[n].Add(-1)
					if promotionBegun.Load() {
						first.CompareAndSwap(0, time.Now().UnixNano())
						after.Add(1)
					} else {
						before.Add(1)
					}
					select {
					case <-ctx.Done():
					case <-time.After(time.Millisecond):
					}
					return nil
				})
				outcome := "done"
				for _, known := range []error{pglock.ErrLost, pglock.ErrUnconfirmed, pglock.ErrUnavailable} {
					if errors.Is(err, known) {
						outcome = known.Error()
						err = nil
						time.Sleep(10 * time.Millisecond) // between two tries
						break
					}
				}
				if err != nil {
					c.t.Error(err)
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			}
		}
		dsn := either(c.primary, c.standby)
		var all []*pglock.Locker
		for range lockers {
			locker := c.locker(dsn)
			all = append(all, locker)
			for i := range goroutines {
				wg.Go(func() { work(locker, i) })
			}
		}
		long := pglock.Name("long")
		holder, waiter := c.locker(dsn), c.locker(dsn)
		held := c.lock(holder, long)
		waiting := make(chan error, 1)
		go func() {
			_, err := waiter.Lock(context.Background(), long)
			waiting <- err
		}()
		reach(c, "the load, and a waiter", func() bool { return before.Load() > 50 && waiter.Stats().Waiting == 1 })

		killed := time.Now()
		c.must(c.primary.Kill())
		<-held.Done() // before any promotion
		notified := time.Since(killed)
		c.want(held.Err(), pglock.ErrLost)
		c.want(<-waiting, pglock.ErrUnavailable)
		_, err := holder.TryLock(c.t.Context(), pglock.Name("another"))
		c.want(err, pglock.ErrUnavailable)
		for _, locker := range all { // and so are all other holders
			reach(c, "all holders to be notified", func() bool { return locker.Stats().Held == 0 })
		}

		promoting := time.Now()
		promotionBegun.Store(true)
		c.promote()
		promoted := time.Since(promoting)
		again := c.lock(waiter, long)
		reach(c, "the load to go on", func() bool { return after.Load() > 50 })
		c.want(held.Unlock(), pglock.ErrLost)
		_, err = holder.Lock(c.t.Context(), long, pglock.NoWait())
		c.want(err, pglock.ErrNotAcquired)
		c.must(again.Unlock())
		stop.Store(true)
		wg.Wait()
		if n := conflicts.Load(); n > 0 {
			c.t.Errorf("two held the same lock %d times", n)
		}
		for n := range keys {
			if c.heldOn(c.standby, pglock.Int(int64(n))) {
				c.t.Errorf("lock %d is left", n)
			}
		}
		c.t.Logf("notified %v after the kill; promotion took %v, the first lock was acquired %v after its start; %v",
			notified, promoted, time.Unix(0, first.Load()).Sub(promoting), outcomes)
	})
}

// The standby is promoted while the primary keeps running: two servers grant the same
// lock, and no holder is notified until the old primary is stopped.
func TestFailoverWhileThePrimaryLives(t *testing.T) {
	eachDriver(t, func(c *cluster) {
		key := pglock.Name("job")
		old := c.locker(either(c.primary, c.standby))
		oldLock := c.lock(old, key)
		c.promote()
		newer := c.locker(either(c.standby, c.primary))
		newLock := c.lock(newer, key, pglock.NoWait())
		c.pings(old, 3)
		if err := errors.Join(oldLock.Err(), newLock.Err()); err != nil {
			c.t.Fatal("a holder was notified:", err)
		}
		if !c.heldOn(c.primary, key) || !c.heldOn(c.standby, key) {
			c.t.Fatal("the lock is not held twice")
		}
		// A Locker stays with the server that it is connected to, and a connection string
		// with both servers selects the first: neither avoids the old primary.
		other := pglock.Name("other")
		stale := c.lock(old, other)
		late := c.lock(c.locker(either(c.primary, c.standby)), pglock.Name("late"))
		if !c.heldOn(c.primary, other) || c.heldOn(c.standby, other) || !c.heldOn(c.primary, late.Keys()[0]) {
			c.t.Fatal("the locks are not on the old primary")
		}
		c.must(late.Unlock())
		c.must(stale.Unlock())

		// Only fencing the old primary ends this.
		c.must(c.primary.Kill())
		<-oldLock.Done()
		c.want(oldLock.Err(), pglock.ErrLost)
		c.must(newLock.Err())
		_, err := old.Lock(c.t.Context(), key, pglock.NoWait())
		c.want(err, pglock.ErrNotAcquired)
		c.must(newLock.Unlock())
		c.must(c.lock(old, key).Unlock())
	})
}

// The machine of the primary is cut off and the standby promoted. The holder is notified
// by its heartbeat and not before. If the heartbeat is longer than the promotion takes,
// two hold the same lock in the meantime.
func TestFailoverOfAPrimaryThatIsCutOff(t *testing.T) {
	eachDriver(t, func(c *cluster) {
		proxy, err := chaos.NewProxy(fmt.Sprintf("127.0.0.1:%d", c.primary.Port()))
		c.must(err)
		defer proxy.Close()
		dsn := proxy.ConnString(c.primary.TCPConnString("postgres"))
		slowKey, quickKey := pglock.Name("slow"), pglock.Name("quick")
		slow := c.lock(c.locker(dsn, pglock.Heartbeat(10*time.Minute)), slowKey)
		quick := c.lock(c.locker(dsn), quickKey)
		defer proxy.Heal()
		cut := time.Now()
		c.must(proxy.BlackHole())
		c.promote()
		newer := c.locker(c.standby.ConnString("postgres"))
		taken := c.lock(newer, slowKey)
		granted := time.Since(cut)
		c.must(slow.Err()) // both hold it
		c.must(taken.Err())
		<-quick.Done()
		c.want(quick.Err(), pglock.ErrLost)
		c.t.Logf("after the cut: the promoted server granted the same lock: %v; notified by a heartbeat of 1s: %v", granted, time.Since(cut))
		c.must(c.lock(newer, quickKey).Unlock())
		c.must(taken.Unlock())
		// The network is back, but what it dropped is lost.
		proxy.Heal()
		if err := slow.Unlock(); !errors.Is(err, pglock.ErrLost) && !errors.Is(err, pglock.ErrUnconfirmed) {
			c.t.Errorf("unlocking on a session that was cut off: %v", err)
		}
	})
}

// A standby grants no locks in any way. Once promoted, it grants them to the same
// Locker.
func TestFailoverOfALockerAtTheStandby(t *testing.T) {
	eachDriver(t, func(c *cluster) {
		key := pglock.Name("job")
		locker := c.locker(c.standby.ConnString("postgres"))
		picky := c.locker(c.standby.ConnString("postgres") + " target_session_attrs=read-write")
		_, err := locker.Lock(context.Background(), key) // it does not wait for a promotion
		c.want(err, pglock.ErrStandby)
		_, err = locker.TryLock(c.t.Context(), key)
		c.want(err, pglock.ErrStandby)
		_, err = locker.LockAll(c.t.Context(), []pglock.Key{key, pglock.Int(1)})
		c.want(err, pglock.ErrStandby)
		err = locker.Do(c.t.Context(), key, func(context.Context) error { c.t.Error("fn ran"); return nil }, pglock.SkipIfHeld())
		c.want(err, pglock.ErrStandby)
		_, err = picky.Lock(c.t.Context(), key)
		c.want(err, pglock.ErrUnavailable)
		if c.heldOn(c.standby, key) {
			c.t.Fatal("the lock is held on the standby")
		}
		c.promote()
		held := c.lock(locker, key)
		_, err = picky.Lock(c.t.Context(), key, pglock.NoWait())
		c.want(err, pglock.ErrNotAcquired)
		c.must(held.Unlock())
		c.must(c.lock(picky, key).Unlock())
	})
}

// reach waits until reached returns true. The time limit of the test bounds the wait.
func reach(c *cluster, what string, reached func() bool) {
	c.t.Helper()
	for !reached() {
		select {
		case <-c.t.Context().Done():
			c.t.Fatalf("waiting for %s: %v", what, c.t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
