package prioritize_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// onConn runs a function on a connection of a pool, with Run or Retry. The function
// receives one that executes a statement.
type onConn func(ctx context.Context, fn func(ctx context.Context, exec func(string) error) error) error

// onConns returns Run and Retry on db.
func onConns[C any](db driver.Database[C], exec func(context.Context, C, string) error) map[string]onConn {
	with := func(fn func(context.Context, func(string) error) error) func(context.Context, C) error {
		return func(ctx context.Context, conn C) error {
			return fn(ctx, func(sql string) error { return exec(ctx, conn, sql) })
		}
	}
	return map[string]onConn{
		"Run": func(ctx context.Context, fn func(context.Context, func(string) error) error) error {
			return prioritize.Run(ctx, db, with(fn), prioritize.LockTimeout(time.Minute))
		},
		"Retry": func(ctx context.Context, fn func(context.Context, func(string) error) error) error {
			return prioritize.Retry(ctx, db, with(fn), prioritize.Tries(1))
		},
	}
}

// The connection returns to the pool, unless its state has changed: then it is closed.
func TestConnectionIsReusedOnlyUnchanged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	config, err := pgxpool.ParseConfig(s.dsn + " application_name=pool")
	s.must(err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	s.must(err)
	defer pool.Close()
	pools := map[string]map[string]onConn{"pgx": onConns(pgxlock.Pool(pool), func(ctx context.Context, conn *pgx.Conn, sql string) error {
		_, err := conn.Exec(ctx, sql)
		return err
	})}
	pid := map[string]func() (pid int32){"pgx": func() (pid int32) {
		s.must(pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid))
		return pid
	}}
	for _, driverName := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driverName, s.dsn)
		s.must(err)
		defer db.Close()
		db.SetMaxIdleConns(1)
		name := "database/sql, " + driverName
		pools[name] = onConns(sqllock.DB(db), func(ctx context.Context, conn *sql.Conn, query string) error {
			_, err := conn.ExecContext(ctx, query)
			return err
		})
		pid[name] = func() (pid int32) {
			s.must(db.QueryRow(`SELECT pg_backend_pid()`).Scan(&pid))
			return pid
		}
	}
	boom := errors.New("boom")
	for name, functions := range pools {
		for function, do := range functions {
			for what, test := range map[string]struct {
				fn    func(ctx context.Context, exec func(string) error) error
				want  error
				reuse bool
			}{
				"a success": {func(_ context.Context, exec func(string) error) error { return exec(`SELECT 1`) }, nil, true},
				"an error":  {func(context.Context, func(string) error) error { return boom }, boom, true},
				"an open transaction": {func(_ context.Context, exec func(string) error) error {
					return errors.Join(exec(`BEGIN`), exec(`SET LOCAL work_mem = '1MB'`))
				}, nil, false},
				"an aborted transaction": {func(_ context.Context, exec func(string) error) error {
					return errors.Join(exec(`BEGIN`), boom, exec(`SELECT 1/0`))
				}, boom, false},
			} {
				before := pid[name]()
				err := do(t.Context(), test.fn)
				if !errors.Is(err, test.want) {
					t.Errorf("%s, %s, %s: got %v, want %v", name, function, what, err, test.want)
				}
				if reused := pid[name]() == before; reused != test.reuse {
					t.Errorf("%s, %s, %s: the connection is reused: %v, want %v", name, function, what, reused, test.reuse)
				}
			}
			for what, leave := range map[string]func(){
				"a panic": func() { panic("a panic of fn's") },
				"Goexit":  runtime.Goexit,
			} {
				before := pid[name]()
				done := make(chan bool)
				go func() {
					defer close(done)
					defer func() { _ = recover() }()
					_ = do(t.Context(), func(context.Context, func(string) error) error { leave(); return nil })
				}()
				<-done
				if pid[name]() == before {
					t.Errorf("%s, %s: the connection is reused after %s", name, function, what)
				}
			}
		}
	}
	s.wantNoWatcher()
}

// A connection whose lock_timeout is not as before is closed. Without a lock timeout of
// its own, Run does not restore what fn sets.
func TestConnectionWithAChangedTimeoutIsClosed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	config, err := pgxpool.ParseConfig(s.dsn)
	s.must(err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	s.must(err)
	defer pool.Close()
	s.must(prioritize.Run(t.Context(), pgxlock.Pool(pool), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SET lock_timeout = '5s'`)
		return err
	}))
	var timeout string
	s.must(pool.QueryRow(t.Context(), `SHOW lock_timeout`).Scan(&timeout))
	if timeout != "0" {
		t.Errorf("lock_timeout of the pool's connection is %s", timeout)
	}
}

// Without a connection, fn is not run.
func TestNoConnectionNoRun(t *testing.T) {
	t.Parallel()
	fn := func(context.Context, *pgx.Conn) error { t.Error("fn was run"); return nil }
	nowhere := pgxlock.ConnString("host=/nonexistent connect_timeout=1")
	for name, err := range map[string]error{
		"Run":   prioritize.Run(t.Context(), nowhere, fn),
		"Retry": prioritize.Retry(t.Context(), nowhere, fn),
	} {
		if !errors.Is(err, pglock.ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := prioritize.Run(t.Context(), nil, fn); err == nil {
		t.Error("a nil Database is no error")
	}
}
