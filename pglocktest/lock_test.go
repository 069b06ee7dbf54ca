package pglocktest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// program opens a session of a program under test.
func program(t *testing.T, dsn, sql string) (conn *pgx.Conn, pid int32) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	return conn, int32(conn.PgConn().PID())
}

// subject is a lock, and the statement with which a program takes it.
type subject struct {
	name string
	lock *Lock
	sql  string
}

func subjects(t testing.TB, dsn string) []subject {
	source := pgxlock.ConnString(dsn)
	return []subject{
		{"number", Key(t, source, pglock.Int(-7)), `SELECT pg_advisory_xact_lock(-7)`},
		{"pair", Key(t, source, pglock.Pair(-7, 3)), `SELECT pg_advisory_xact_lock(-7, 3)`},
		{"table", Table(t, source, "orders", pglock.ShareRowExclusive), `LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE`},
		{"odd table", Table(t, source, `Odd schema."odd.""table"""`, 0), `LOCK TABLE "Odd schema"."odd.""table""" IN ACCESS SHARE MODE`},
	}
}

const tables = `CREATE TABLE orders (); CREATE SCHEMA "Odd schema"; CREATE TABLE "Odd schema"."odd.""table""" ()`

func TestLock(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	program(t, dsn, tables)
	for _, s := range subjects(t, dsn) {
		t.Run(s.name, func(t *testing.T) {
			s.lock.t = t
			s.lock.WantFree()
			conn, pid := program(t, dsn, `SELECT 1`)
			for range 2 {
				holder := s.lock.Hold()
				result := make(chan error, 1)
				go func() {
					_, err := conn.Exec(context.Background(), `BEGIN; `+s.sql)
					result <- err
				}()
				if pids := s.lock.AwaitWaiters(1); !slices.Equal(pids, []int32{pid}) {
					t.Errorf("%v wait, want %d", pids, pid)
				}
				if pids := AwaitBlocked(t, s.lock.source, pid); !slices.Equal(pids, []int32{holder}) {
					t.Errorf("%v block, want %d", pids, holder)
				}
				s.lock.Release()
				if err := <-result; err != nil {
					t.Fatal(err)
				}
				if pids := s.lock.AwaitHeld(); !slices.Equal(pids, []int32{pid}) {
					t.Errorf("%v hold, want %d", pids, pid)
				}
				if r := record(t, func(tb testing.TB) { other := *s.lock; other.t = tb; other.WantFree() }); !r.failed ||
					!strings.Contains(r.output.String(), "held by pid") {
					t.Errorf("WantFree of a held lock: %v, %s", r.failed, r.output.String())
				}
				if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
					t.Fatal(err)
				}
				s.lock.WantFree()
			}

			// A session is terminated while another waits.
			if _, err := conn.Exec(t.Context(), `BEGIN; `+s.sql); err != nil {
				t.Fatal(err)
			}
			if pids := s.lock.Terminate(); !slices.Equal(pids, []int32{pid}) {
				t.Errorf("%v were terminated, want %d", pids, pid)
			}
			s.lock.WantFree()
			if err := conn.Ping(t.Context()); err == nil {
				t.Error("the session is still alive")
			}

			// Terminate does not end the Lock's own session, and Release accepts that
			// another ended it.
			s.lock.Hold()
			if r := record(t, func(tb testing.TB) { other := *s.lock; other.t = tb; other.Terminate() }); !r.failed {
				t.Error("Terminate succeeded although no other session holds the lock")
			}
			other := *s.lock
			other.holder, other.holderPID = nil, "0"
			if pids := other.Terminate(); len(pids) != 1 {
				t.Errorf("%v were terminated, want the holder", pids)
			}
			s.lock.Release()
			s.lock.AwaitFree()
		})
	}
}

func TestSharedLock(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	report := Key(t, pgxlock.ConnString(dsn), pglock.Name("report"))
	report.Hold(pglock.Shared())
	locker, err := pglock.New(pgxlock.ConnString(dsn))
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close()
	lock, err := locker.Lock(t.Context(), pglock.Name("report"), pglock.Shared())
	if err != nil {
		t.Fatal(err)
	}
	if pids := report.AwaitHeld(); !slices.Equal(pids, []int32{lock.PID()}) {
		t.Errorf("%v hold the lock, want %d", pids, lock.PID())
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
	if _, err := locker.TryLock(t.Context(), pglock.Name("report")); !errors.Is(err, pglock.ErrNotAcquired) {
		t.Errorf("got %v", err)
	}
}

func TestTerminateApplication(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	conn, pid := program(t, dsn, `SET application_name = 'billing, "odd"'`)
	_, _ = program(t, dsn, `SET application_name = 'billing'`)
	source := pgxlock.ConnString(dsn)
	if pids := TerminateApplication(t, source, `billing, "odd"`); !slices.Equal(pids, []int32{pid}) {
		t.Errorf("%v were terminated, want %d", pids, pid)
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("the session is still alive")
	}
	if r := record(t, func(tb testing.TB) { TerminateApplication(tb, source, "nobody") }); !r.failed {
		t.Error("an application without sessions was terminated")
	}
}

// A state that does not occur is reported, at once if it cannot occur.
func TestLockFails(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	source := pgxlock.ConnString(dsn)
	_, pid := program(t, dsn, tables+`; SELECT pg_advisory_lock(1), pg_advisory_lock(4)`)
	held, free := pglock.Int(1), pglock.Int(2)
	tests := []struct {
		name, want string
		run        func(testing.TB)
	}{
		{"twice", "already held by pid", func(t testing.TB) { l := Key(t, source, free); l.Hold(pglock.Shared()); l.Hold(pglock.Shared()) }},
		{"not held", "call Hold first", func(t testing.TB) { Key(t, source, free).Release() }},
		{"no table", "no such table", func(t testing.TB) { Table(t, source, "Orders", 0).AwaitHeld() }},
		{"no table to hold", "42P01", func(t testing.TB) { Table(t, source, "Orders", 0).Hold() }},
		{"option", "not supported", func(t testing.TB) { Table(t, source, "orders", 0).Hold(pglock.Shared()) }},
		{"nobody to end", "there are none", func(t testing.TB) { Key(t, source, free).Terminate() }},
		{"no server", "open a session", func(t testing.TB) { Key(t, pgxlock.ConnString("host=/nowhere"), free).WantFree() }},
		{"hold", "held by pid", func(t testing.TB) { Key(t, source, held).Hold() }},
		{"await free", "held by pid", func(t testing.TB) { Key(t, source, held).AwaitFree() }},
		{"await waiters", "0 sessions wait for", func(t testing.TB) { Key(t, source, pglock.Int(4)).AwaitWaiters(1) }},
		{"await held", "no session holds it or waits", func(t testing.TB) { Key(t, source, pglock.Int(3)).AwaitHeld() }},
		{"await blocked", "is not blocked", func(t testing.TB) { AwaitBlocked(t, source, pid) }},
	}
	results := make([]chan *recorder, len(tests))
	for i, test := range tests {
		results[i] = make(chan *recorder, 1)
		go func() { results[i] <- record(t, test.run) }()
	}
	for i, test := range tests {
		r := <-results[i]
		if !r.failed || !strings.Contains(r.output.String(), test.want) {
			t.Errorf("%s: failed is %v, said %q, want %q", test.name, r.failed, r.output.String(), test.want)
		}
	}
}
