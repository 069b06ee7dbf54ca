package pglock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// waiterPID returns the pid of the backend that waits for key, if it is not the pid not.
func (d *db) waiterPID(key pglock.Key, not int32) (pid int32) {
	d.t.Helper()
	classid, objid, objsubid := key.PgLocks()
	const which = `pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid <> $1
		AND classid = $2 AND objid = $3 AND objsubid = $4
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	// Between two slices there is no waiter, so one may be gone by the next poll.
	for pid == 0 {
		d.until(`SELECT EXISTS (SELECT `+which+`)`, not, classid, objid, objsubid)
		d.scan(&pid, `SELECT coalesce((SELECT `+which+` LIMIT 1), 0)`, not, classid, objid, objsubid)
	}
	return pid
}

// locking is a running call of Lock.
type locking struct {
	lock *pglock.Lock
	err  error
}

func start(locker *pglock.Locker, ctx context.Context, key pglock.Key, opts ...pglock.LockOption) <-chan locking {
	got := make(chan locking, 1)
	go func() {
		lock, err := locker.Lock(ctx, key, opts...)
		got <- locking{lock, err}
	}()
	return got
}

// If a session ends while LockAll waits for another key, the locks on it are lost;
// LockAll takes them again before it returns.
func TestLostWhileTakingAll(t *testing.T) { everySource(t, testLostWhileTakingAll) }

func testLostWhileTakingAll(t *testing.T, d *db) {
	other, locker := d.locker(), d.locker()
	held := lock(t, other, pglock.Int(2))
	got := make(chan locking, 1)
	go func() {
		all, err := locker.LockAll(context.Background(), []pglock.Key{pglock.Int(1), pglock.Int(2)})
		got <- locking{all, err}
	}()
	d.untilWaiting(1, pglock.Int(2))
	first, err := other.Holders(t.Context(), pglock.Int(1))
	must(t, err)
	holders := first[pglock.Int(1)]
	if len(holders) != 1 {
		t.Fatalf("%d sessions hold the first lock", len(holders))
	}
	d.terminate(holders[0].PID)
	d.until(`SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)`, holders[0].PID)
	for locker.Stats().Lost == 0 { // with the heartbeat, if the driver cannot watch the session
		time.Sleep(time.Millisecond)
	}
	must(t, held.Unlock())
	all := <-got
	must(t, all.err)
	must(t, all.lock.Err())
	if n := d.held(); n != 2 {
		t.Errorf("%d of 2 locks are held", n)
	}
	must(t, all.lock.Unlock())
}

// If a backend is terminated while it waits, the waiter loses only its place in Postgres'
// lock queue.
func TestTerminatedWhileWaiting(t *testing.T) { everySource(t, testTerminatedWhileWaiting) }

func testTerminatedWhileWaiting(t *testing.T, d *db) {
	holder, locker := d.locker(), d.locker()
	key := pglock.Name("job")
	held := lock(t, holder, key)
	mine := lock(t, locker, pglock.Name("mine")) // on a session of its own
	got := start(locker, context.Background(), key)
	first := d.waiterPID(key, 0)
	d.terminate(first)
	d.waiterPID(key, first)
	must(t, held.Unlock())
	second := <-got
	must(t, second.err)
	d.wantAvailable(key, false)
	must(t, mine.Err())
	must(t, second.lock.Unlock())
	must(t, mine.Unlock())
	d.wantAvailable(key, true)
}

// Backends are terminated at any moment, even while they lock and unlock: no handle
// claims a lock that another session holds, and nothing is left.
func TestTerminatedAtAnyMoment(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	key := pglock.Name("job")
	const enough = 10 // sessions killed
	var killed atomic.Int32
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		conn, err := pgx.Connect(context.Background(), d.dsn)
		if err != nil {
			t.Error(err)
			killed.Store(enough)
			return
		}
		defer conn.Close(context.Background())
		for {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			var n int32
			if err := conn.QueryRow(context.Background(), `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (
				SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pglock'
				ORDER BY random() LIMIT 1) a`).Scan(&n); err != nil {
				t.Error(err)
				n = enough
			}
			killed.Add(n)
		}
	}()
	var wg sync.WaitGroup
	var inside, done, lost, other atomic.Int32
	for range 2 {
		locker := d.locker(engine.HandOver(time.Millisecond))
		for range 4 {
			wg.Go(func() {
				for n := 0; n < 200 || killed.Load() < enough; n++ {
					err := locker.Do(t.Context(), key, func(ctx context.Context) error {
						// A function that lost its lock may still run beside the next
						// holder until its ctx is canceled.
						if inside.Add(1) > 1 && ctx.Err() == nil {
							other.Add(1)
						}
						defer inside.Add(-1)
						return nil
					})
					switch {
					case err == nil:
						done.Add(1)
					case errors.Is(err, pglock.ErrLost), errors.Is(err, pglock.ErrUnconfirmed):
						lost.Add(1)
					case !errors.Is(err, pglock.ErrUnavailable):
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	close(stop)
	<-stopped
	t.Logf("%d sessions killed; %d times done, %d lost or unconfirmed, %d together", killed.Load(), done.Load(), lost.Load(), other.Load())
	if done.Load() == 0 {
		t.Error("nothing was tested")
	}
	d.until(`SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

// The server stops in each of its modes, and starts again.
func TestServerStopsAndComesBack(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	key := pglock.Name("job")
	for how, stop := range map[string]func() error{
		"fast":      func() error { return server.Shutdown(t.Context(), pgserver.Fast) },
		"immediate": func() error { return server.Shutdown(t.Context(), pgserver.Immediate) },
		"kill -9":   server.Kill,
	} {
		t.Run(how, func(t *testing.T) {
			holder := newLocker(t, source(t, server.ConnString("postgres")))
			waiter := newLocker(t, source(t, server.ConnString("postgres")))
			held := lock(t, holder, key)
			waiting := start(waiter, context.Background(), key)
			databaseOn(t, server).untilWaiting(1, key)
			working := make(chan error, 1)
			running := make(chan struct{})
			go func() {
				working <- holder.Do(context.Background(), pglock.Name("work"), func(ctx context.Context) error {
					close(running)
					<-ctx.Done()
					return context.Cause(ctx)
				})
			}()
			<-running
			must(t, stop())
			wantErr(t, <-working, pglock.ErrLost)
			<-held.Done()
			wantErr(t, held.Unlock(), pglock.ErrLost)
			wantRefusal(t, (<-waiting).err, pglock.ErrUnavailable)
			_, err := holder.TryLock(t.Context(), key)
			wantRefusal(t, err, pglock.ErrUnavailable)

			must(t, server.Restart(t.Context()))
			for _, locker := range []*pglock.Locker{holder, waiter} { // the old handle has no effect
				must(t, lock(t, locker, key).Unlock())
			}
			wantErr(t, held.Unlock(), pglock.ErrLost)
			must(t, holder.Close())
			must(t, waiter.Close())
		})
	}
}

// Timeouts set for the whole database or role do not apply to a Locker's sessions.
func TestTimeoutsOfTheDatabase(t *testing.T) { everySource(t, testTimeoutsOfTheDatabase) }

func testTimeoutsOfTheDatabase(t *testing.T, d *db) {
	idle := false // whether the server ends idle sessions
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"} {
		var known bool
		d.scan(&known, `SELECT count(*) > 0 FROM pg_settings WHERE name = $1`, name)
		if known {
			d.exec(fmt.Sprintf(`ALTER DATABASE %s SET %s = '400ms'`, d.name(), name))
			idle = idle || name == "idle_session_timeout"
		}
	}
	holder, locker := d.locker(), d.locker()
	key := pglock.Name("job")
	held := lock(t, holder, key)
	got := start(locker, context.Background(), key)
	waiting := d.waiterPID(key, 0)

	// The timeouts have passed by now: they have ended two other sessions, which began
	// later.
	for range 2 {
		conn, err := pgx.Connect(t.Context(), d.dsn)
		must(t, err)
		defer conn.Close(context.Background())
		_, err = conn.Exec(t.Context(), `SELECT pg_sleep(20)`)
		if state := sqlState(err); state != "57014" && state != "25P04" {
			t.Fatalf("the database's timeouts have no effect: %v", err)
		}
		if idle {
			d.until(`SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1`, conn.PgConn().PID())
		}
	}
	must(t, held.Err())
	// A single statement has waited for longer than they allow, and was not repeated. A
	// wait in Postgres ends by itself after 750 ms.
	d.until(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'
		AND clock_timestamp() - query_start > '600ms')`, waiting)
	if now := d.waiterPID(key, 0); now != waiting {
		t.Errorf("session %d waits, want %d", now, waiting)
	}
	must(t, held.Unlock())
	second := <-got
	must(t, second.err)
	must(t, second.lock.Unlock())
	for _, locker := range []*pglock.Locker{holder, locker} {
		if s := locker.Stats(); s.Lost > 0 {
			t.Errorf("locks were lost: %+v", s)
		}
	}
}

func sqlState(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}

// The application's pool does not affect the locks, even if its connections are
// short-lived or all in use.
func TestPoolOfOneConnection(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	config, err := pgxpool.ParseConfig(d.dsn)
	must(t, err)
	config.MaxConns = 1
	config.MaxConnLifetime = time.Millisecond
	config.HealthCheckPeriod = 5 * time.Millisecond
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	locker := newLocker(t, pgxlock.Pool(pool))
	key := pglock.Name("job")
	held := lock(t, locker, key)
	pids := map[int32]bool{}
	for len(pids) < 4 {
		var pid int32
		must(t, pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid))
		pids[pid] = true
	}
	if pids[held.PID()] {
		t.Error("the lock is on a connection of the pool")
	}
	must(t, held.Err())
	d.wantAvailable(key, false)

	conn, err := pool.Acquire(t.Context()) // the only one
	must(t, err)
	defer conn.Release()
	other := d.locker()
	theirs := lock(t, other, pglock.Name("other"))
	got := start(locker, context.Background(), pglock.Name("other"))
	d.untilWaiting(1, pglock.Name("other"))
	must(t, theirs.Unlock())
	second := <-got
	must(t, second.err)
	must(t, second.lock.Unlock())
	must(t, held.Unlock())
	d.wantAvailable(key, true)
}

// sqllock.DB takes its session out of the pool permanently, so that the pool's limits do
// not end it.
func TestLifetimeOfSQLPool(t *testing.T) {
	t.Parallel()
	for _, driverName := range []string{"pgx", "postgres"} {
		d := newDB(t)
		pool := openSQL(t, driverName, d.dsn)
		pool.SetMaxOpenConns(2)
		pool.SetConnMaxLifetime(time.Millisecond)
		pool.SetConnMaxIdleTime(time.Millisecond)
		locker := newLocker(t, sqllock.DB(pool))
		key := pglock.Name("job")
		held := lock(t, locker, key)
		pids := map[int32]bool{}
		for len(pids) < 4 {
			var pid int32
			must(t, pool.QueryRow(`SELECT pg_backend_pid()`).Scan(&pid))
			pids[pid] = true
		}
		if pids[held.PID()] {
			t.Errorf("%s: the session of a lock ran an application's query", driverName)
		}
		must(t, held.Err())
		d.wantAvailable(key, false)
		must(t, held.Unlock())
		d.wantAvailable(key, true)
		must(t, locker.Close())
	}
}

// An administrator's pg_cancel_backend does not harm a session that holds, waits, locks
// or unlocks.
func TestCancelledFromOutside(t *testing.T) { everySource(t, testCancelledFromOutside) }

func testCancelledFromOutside(t *testing.T, d *db) {
	holder, locker := d.locker(), d.locker()
	key := pglock.Name("job")
	held := lock(t, holder, key)
	got := start(locker, context.Background(), key)
	d.waiterPID(key, 0)
	// The sessions are open by now: a cancel while connecting is a different case.
	admin := connect(t, d.dsn)
	for i := range 150 {
		cancelled := make(chan error, 1)
		go func() {
			_, err := admin.Exec(t.Context(), `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), $1)`, d.conn.PgConn().PID())
			cancelled <- err
		}()
		other := lock(t, holder, pglock.Int(int64(i)))
		must(t, other.Unlock())
		must(t, <-cancelled)
	}
	must(t, held.Err())
	must(t, held.Unlock())
	second := <-got
	switch {
	case second.err == nil:
		must(t, second.lock.Unlock())
	case sqlState(second.err) != "57014": // canceled while it opened another session
		t.Fatal(second.err)
	default:
		wantErr(t, second.err, pglock.ErrUnavailable)
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}

// Ten thousand locks need one session.
func TestTenThousandLocks(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"max_locks_per_transaction": "256"}})
	d := databaseOn(t, server)
	locker := d.locker()
	must(t, lock(t, locker, pglock.Name("job")).Unlock()) // the session is open now
	const n = 10_000
	before, began := locker.Stats(), time.Now()
	all, err := locker.LockAll(t.Context(), ints(n))
	must(t, err)
	took := time.Since(began)
	var sessions, held int
	d.scan(&held, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted`)
	d.scan(&sessions, `SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'`)
	if held != n || sessions != 1 {
		t.Errorf("%d locks are held, on %d sessions", held, sessions)
	}
	trips := locker.Stats().RoundTrips - before.RoundTrips
	began = time.Now()
	must(t, all.Unlock())
	t.Logf("%d locks taken in %v and %d round trips, released in %v", n, took, trips, time.Since(began))
	if trips > 20 {
		t.Errorf("they took %d round trips", trips)
	}

	// The same as ten thousand handles, requested by many goroutines.
	handles := make([]*pglock.Lock, n)
	began = time.Now()
	var wg sync.WaitGroup
	for g := range 100 {
		wg.Go(func() {
			for i := g; i < n; i += 100 {
				var err error
				if handles[i], err = locker.TryLock(t.Context(), pglock.Int(int64(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	took = time.Since(began)
	d.scan(&sessions, `SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'`)
	if s := locker.Stats(); s.Held != n || sessions != 1 {
		t.Errorf("%d locks are held, on %d sessions", s.Held, sessions)
	}
	began = time.Now()
	for g := range 100 {
		wg.Go(func() {
			for i := g; i < n; i += 100 {
				if err := handles[i].Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d handles taken by 100 goroutines in %v, released in %v", n, took, time.Since(began))
	if held := d.held(); held != 0 {
		t.Errorf("%d locks are left", held)
	}
}

// A dropped handle is reported, and its lock stays locked: the work that it guards may
// still be running.
func TestDroppedHandle(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	var log lockedBuffer
	locker := d.locker(pglock.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	key := pglock.Name("dropped")
	func() { _ = lock(t, locker, key) }()
	func() { must(t, lock(t, locker, pglock.Name("unlocked")).Unlock()) }()
	deadline := time.Now().Add(20 * time.Second)
	for locker.Stats().Dropped == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the dropped handle was not noticed")
		}
		runtime.GC()
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `"dropped`) && !strings.Contains(s, `\"dropped\"`) {
		t.Errorf("the log says %q", s)
	}
	if s := locker.Stats(); s.Dropped != 1 || s.Held != 1 {
		t.Errorf("stats: %+v", s)
	}
	d.wantAvailable(key, false)
	var pid int32
	d.scan(&pid, `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	d.terminate(pid) // only this or the end of the process releases it
}

// lockedBuffer is a buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// The lock is released however its function ends.
func TestDoEndsWithItsFunction(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	locker := d.locker()
	key := pglock.Name("job")
	for how, end := range map[string]func(){
		"panic":  func() { panic("oh") },
		"Goexit": runtime.Goexit,
	} {
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			locker.Do(t.Context(), key, func(context.Context) error {
				d.wantAvailable(key, false)
				end()
				return nil
			})
			t.Errorf("%s: Do returned", how)
		}()
		if got := <-done; (got != nil) != (how == "panic") {
			t.Errorf("%s: recovered %v", how, got)
		}
		d.wantAvailable(key, true)
	}
	if s := locker.Stats(); s.Held != 0 {
		t.Errorf("stats: %+v", s)
	}
}
