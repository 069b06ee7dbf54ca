package prioritize_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// retry returns options that keep the tests fast.
func retry(opts ...prioritize.RetryOption) []prioritize.RetryOption {
	return append([]prioritize.RetryOption{
		prioritize.LockTimeout(time.Second),
		prioritize.Backoff(10*time.Millisecond, 50*time.Millisecond),
	}, opts...)
}

// surelySeen is a lock_timeout within which the watcher polls, even if the machine is
// slow. It is for functions that call untilWatched first.
func surelySeen() prioritize.RetryOption { return prioritize.LockTimeout(4 * time.Second) }

// untilWatched waits until the watcher has a session and polls. It opens one only
// while a try runs.
func (l *log) untilWatched() { l.untilKind(prioritize.Watching) }

func TestRetryUntilTheWayIsFree(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Tried && e.Try == 2 {
			idle.do("COMMIT")
		}
	}
	s.must(prioritize.RetryOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, me.conn, func(tx pgx.Tx) error {
			log.untilWatched()
			_, err := tx.Exec(ctx, alter)
			return err
		})
	}, retry(surelySeen(), log.option())...))
	tries := log.of(prioritize.Tried)
	if len(tries) < 3 {
		t.Fatalf("%d tries, want 3", len(tries))
	}
	for i, e := range tries {
		last := i == len(tries)-1
		if e.Try != i+1 || (e.Err == nil) != last || (e.Pause > 0) == last {
			t.Errorf("try %d: %+v", i+1, e)
		}
	}
	s.wantCode(tries[0].Err, "55P03")
	if b := tries[0].Blocked; len(b) != 1 || b[0].Blocking.PID != idle.pid {
		t.Errorf("the first try was blocked by %v", b)
	}
	if !s.is("SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'w')") {
		t.Error("it is not done")
	}
	var timeout string
	s.must(me.conn.QueryRow(t.Context(), "SHOW lock_timeout").Scan(&timeout))
	if timeout != "0" {
		t.Errorf("lock_timeout is %s afterwards", timeout)
	}
	s.wantNoWatcher()
}

func TestRetryGivesUp(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]prioritize.RetryOption{
		"after tries": prioritize.Tries(3), "after a time": prioritize.Budget(1200 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			idle := s.session("idle").do("BEGIN", "SELECT FROM t")
			me, log := s.session("me"), s.log()
			err := prioritize.RetryOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
				_, err := me.conn.Exec(ctx, alter)
				return err
			}, retry(opt, log.option())...)
			s.wantCode(err, "55P03")
			var e *prioritize.Error
			if !errors.As(err, &e) || e.Tries != len(log.of(prioritize.Tried)) || e.Tries < 2 || e.Op != "retry" || e.Cause != nil {
				t.Fatalf("got %#v", err)
			}
			if got := blocking(err); !slices.Equal(got, []int32{idle.pid}) {
				t.Errorf("the error names %v", got)
			}
			hasWord(t, err.Error(), "gave up after", "public.t", `"idle"`)
			if last := log.of(prioritize.Tried)[e.Tries-1]; last.Pause != 0 {
				t.Errorf("after the last try: %+v", last)
			}
			idle.do("COMMIT")
		})
	}
}

// A deadlock is retried.
func TestRetryAfterDeadlock(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	other := s.session("other").do("SET deadlock_timeout = '1h'", "BEGIN", "UPDATE t SET v = 1 WHERE id = 2")
	me, log := s.session("me"), s.log()
	me.do("SET deadlock_timeout = '50ms'")
	tries := 0
	s.must(prioritize.RetryOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, me.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "UPDATE t SET v = 2 WHERE id = 1"); err != nil {
				return err
			}
			if tries++; tries == 1 {
				other.await("UPDATE t SET v = 1 WHERE id = 1; COMMIT")
			}
			_, err := tx.Exec(ctx, "UPDATE t SET v = 2 WHERE id = 2")
			return err
		})
	}, retry(prioritize.LockTimeout(10*time.Second), log.option())...))
	s.wantCode(log.of(prioritize.Tried)[0].Err, "40P01")
	s.must(other.Join())
}

// Inside the caller's transaction each try is a savepoint, and earlier work stays.
func TestRetryInATransaction(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	log := s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Tried && e.Try == 1 {
			idle.do("COMMIT")
		}
	}
	me := s.session("me")
	tx, err := me.conn.Begin(t.Context())
	s.must(err)
	defer tx.Rollback(context.Background())
	_, err = tx.Exec(t.Context(), "CREATE TABLE before (i int)")
	s.must(err)
	_, err = tx.Exec(t.Context(), "SET LOCAL lock_timeout = '7s'")
	s.must(err)
	s.must(prioritize.RetryOn(t.Context(), source(t, s.dsn), pgxlock.Tx(tx), func(ctx context.Context) error {
		if _, err := tx.Exec(ctx, "INSERT INTO before VALUES (1)"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, alter)
		return err
	}, retry(log.option())...))
	var rows int
	s.must(tx.QueryRow(t.Context(), "SELECT count(*) FROM before").Scan(&rows))
	if rows != 1 {
		t.Errorf("%d rows, want those of the last try alone", rows)
	}
	var timeout string
	s.must(tx.QueryRow(t.Context(), "SHOW lock_timeout").Scan(&timeout))
	if timeout != "7s" {
		t.Errorf("lock_timeout is %s afterwards", timeout)
	}
	s.must(tx.Commit(t.Context()))
}

// Other errors are returned as they are, at once.
func TestRetryOtherErrors(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	me, log := s.session("me"), s.log()
	boom := errors.New("boom")
	err := prioritize.RetryOn(t.Context(), nil, pgxlock.Conn(me.conn), func(context.Context) error { return boom }, retry(log.option())...)
	if err != boom || len(log.of(prioritize.Tried)) != 1 {
		t.Errorf("got %v", err)
	}
	err = prioritize.RetryOn(t.Context(), nil, pgxlock.Conn(me.conn), func(ctx context.Context) error {
		_, err := me.conn.Exec(ctx, "SELECT 1/0")
		return err
	}, retry()...)
	s.wantCode(err, "22012")
	s.must(prioritize.RetryOn(t.Context(), nil, pgxlock.Conn(me.conn), func(ctx context.Context) error {
		_, err := me.conn.Exec(ctx, "SELECT 1")
		return err
	}))
}

// A lock that pglock did not acquire is retried as well.
func TestRetryNotAcquired(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	holder := s.session("holder").do("SELECT pg_advisory_lock(7)")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Tried && e.Try == 1 {
			holder.do("SELECT pg_advisory_unlock(7)")
		}
	}
	s.must(prioritize.RetryOn(t.Context(), nil, pgxlock.Conn(me.conn), func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, me.conn, func(tx pgx.Tx) error {
			return pglock.TryLockTx(ctx, pgxlock.Tx(tx), pglock.Int(7))
		})
	}, retry(log.option())...))
	if n := len(log.of(prioritize.Tried)); n != 2 {
		t.Errorf("%d tries, want 2", n)
	}
}

// ctx ends a try and a pause, and the error is both.
func TestRetryEndsWithContext(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Tried {
			cancel(why)
		}
	}
	err := prioritize.RetryOn(ctx, source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		log.untilWatched()
		_, err := me.conn.Exec(ctx, alter)
		return err
	}, retry(surelySeen(), log.option(), prioritize.Backoff(time.Hour, time.Hour))...)
	s.wantCode(err, "55P03")
	if !errors.Is(err, why) || !slices.Equal(blocking(err), []int32{idle.pid}) {
		t.Errorf("got %v", err)
	}
	hasWord(t, err.Error(), "enough")

	short, stop := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer stop()
	err = prioritize.RetryOn(short, source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		_, err := me.conn.Exec(ctx, alter)
		return err
	}, prioritize.LockTimeout(time.Minute))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	idle.do("COMMIT")
}

// If the watcher's source does not work, Retry goes on without names.
func TestRetryWithoutWatcher(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := prioritize.RetryOn(t.Context(), source(t, "host=/nonexistent connect_timeout=1"), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		_, err := me.conn.Exec(ctx, alter)
		return err
	}, retry(log.option(), prioritize.Tries(2))...)
	s.wantCode(err, "55P03")
	if n := len(log.of(prioritize.Watcher)); n != 1 {
		t.Errorf("the loss was reported %d times", n)
	}
	idle.do("COMMIT")
}

// The same through database/sql, with both drivers.
func TestDatabaseSQL(t *testing.T) {
	t.Parallel()
	for _, driverName := range []string{"pgx", "postgres"} {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			db, err := sql.Open(driverName, s.dsn)
			s.must(err)
			defer db.Close()
			conn, err := db.Conn(t.Context())
			s.must(err)
			defer conn.Close()
			source := sqllock.ConnString(driverName, s.dsn)

			idle, log := s.session("idle").do("BEGIN", "SELECT FROM t"), s.log()
			log.hear = func(e prioritize.Event) {
				if e.Kind == prioritize.Tried && e.Try == 1 {
					idle.do("COMMIT")
				}
			}
			s.must(prioritize.RetryOn(t.Context(), source, sqllock.Conn(conn), func(ctx context.Context) error {
				tx, err := conn.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				defer tx.Rollback()
				if _, err := tx.ExecContext(ctx, alter); err != nil {
					return err
				}
				return tx.Commit()
			}, retry(log.option())...))

			idle.do("BEGIN", "SELECT FROM t")
			tx, err := conn.BeginTx(t.Context(), nil)
			s.must(err)
			defer tx.Rollback()
			s.must(prioritize.RunOn(t.Context(), source, sqllock.Tx(tx), func(ctx context.Context) error {
				_, err := tx.ExecContext(ctx, "ALTER TABLE t ADD COLUMN x int")
				return err
			}, prioritize.After(soon), prioritize.Terminate(), prioritize.Allow(inspect.Superusers), log.option()))
			idle.wantAlive(false)

			// Inside a transaction, even if the driver cannot report that there is
			// one.
			next := s.session("next")
			next.do("SELECT pg_advisory_lock(1)")
			log.hear = func(e prioritize.Event) {
				if e.Kind == prioritize.Tried && e.Err != nil {
					next.do("SELECT pg_advisory_unlock_all()")
				}
			}
			s.must(prioritize.RetryOn(t.Context(), source, sqllock.Tx(tx), func(ctx context.Context) error {
				_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(1)")
				return err
			}, retry(log.option())...))
			s.must(tx.Commit())
			s.wantNoWatcher()
		})
	}
}
