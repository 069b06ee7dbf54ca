package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// Whatever pglock does on a pooled session, or refuses to do, the next client finds the
// session unchanged, as reported by Postgres: see stateOf.

// pooledState checks what pglock's functions leave on a pooled session.
type pooledState struct {
	t     *testing.T
	dsn   string
	state string
}

// throughOne starts a pooler with a single session, for a role with its own search_path.
// d is a direct connection to the database.
func throughOne(t *testing.T, mode pgbouncer.Mode) (*db, *pooledState) {
	t.Helper()
	d, dsn, _ := pooled(t, mode, "default_pool_size = 1", "server_reset_query =")
	d.exec(`CREATE SCHEMA app; CREATE TABLE app.orders (id int);
		ALTER ROLE postgres IN DATABASE ` + d.name() + ` SET search_path = app`)
	return d, &pooledState{t: t, dsn: dsn, state: stateOf(t, dsn)}
}

// wantUnchanged checks that the pooled session is unchanged, and that it works for other
// clients.
func (l *pooledState) wantUnchanged(verb string) {
	l.t.Helper()
	// A custom setting that ended with its transaction remains known, without a value:
	// Postgres forgets no name.
	if state := stateOf(l.t, l.dsn); strings.TrimSpace(state) != strings.TrimSpace(l.state) {
		l.t.Errorf("after %s the pooled session is\n%s\nand was\n%s", verb, state, l.state)
		l.state = state
	}
	conn, err := pgx.Connect(l.t.Context(), l.dsn+" default_query_exec_mode=simple_protocol")
	must(l.t, err)
	defer conn.Close(context.Background())
	if _, err := conn.Exec(l.t.Context(), `SELECT * FROM orders`); err != nil {
		l.t.Errorf("after %s the next client's statement fails: %v", verb, err)
	}
}

// conns returns a program's connections through the pooler, one of each kind.
func (l *pooledState) conns() map[string]func() (driver.Conn, func()) {
	l.t.Helper()
	open := func(driverName, more string) func() (driver.Conn, func()) {
		db := openSQL(l.t, driverName, l.dsn+more)
		return func() (driver.Conn, func()) {
			l.t.Helper()
			conn, err := db.Conn(l.t.Context())
			must(l.t, err)
			return sqllock.Conn(conn), func() { conn.Close() }
		}
	}
	return map[string]func() (driver.Conn, func()){
		"pgx": func() (driver.Conn, func()) {
			conn, err := pgx.Connect(l.t.Context(), l.dsn)
			must(l.t, err)
			return pgxlock.Conn(conn), func() { conn.Close(context.Background()) }
		},
		"database/sql, pgx":    open("pgx", ""),
		"database/sql, lib/pq": open("postgres", ""),
	}
}

func TestLookingThroughAPoolerLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement} {
		d, l := throughOne(t, mode)
		pool, err := pgxpool.New(t.Context(), l.dsn)
		must(t, err)
		defer pool.Close()
		queriers := map[string]driver.Querier{
			"a pool of pgx":    pgxlock.Pool(pool),
			"a pool on pgx":    sqllock.DB(openSQL(t, "pgx", l.dsn)),
			"a pool on lib/pq": sqllock.DB(openSQL(t, "postgres", l.dsn)),
		}
		for name, open := range l.conns() {
			conn, done := open()
			defer done()
			queriers[name] = conn
			guarded, shared, err := inspect.Guard(t.Context(), conn)
			must(t, err)
			l.wantUnchanged(string(mode) + ", Guard, " + name)
			if !shared {
				t.Errorf("%s, %s: Guard does not detect that the session is shared", mode, name)
			}
			queriers[name+", guarded"] = guarded
		}

		d.exec(`CREATE TABLE app.scene ()`)
		blocker, waiter := databaseAt(t, d.conn.Config().ConnString()), databaseAt(t, d.conn.Config().ConnString())
		for name, q := range queriers {
			blocker.exec(`BEGIN; LOCK TABLE app.scene`)
			waited := make(chan error, 1)
			go func() {
				_, err := waiter.conn.Exec(context.Background(), `SELECT FROM app.scene`)
				waited <- err
			}()
			d.until(`SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid = $1`, waiter.conn.PgConn().PID())
			step := func(verb string) string { return string(mode) + ", " + verb + ", " + name }

			// The name is resolved with the role's own search_path.
			locks, err := inspect.Locks(t.Context(), q, inspect.On("scene"), inspect.Where("query", "~", "scene|BEGIN"))
			if must(t, err); len(locks) != 2 {
				t.Errorf("%s: %d locks, want 2", step("Locks"), len(locks))
			}
			_, err = inspect.ReadSnapshot(t.Context(), q)
			must(t, err)
			l.wantUnchanged(step("Locks and Take"))
			pairs, err := inspect.Blocked(t.Context(), q, inspect.Where("blocking_state", "=", "idle in transaction"), inspect.PIDs(int32(waiter.conn.PgConn().PID())))
			must(t, err)
			if len(pairs) != 1 || pairs[0].Blocking.PID != int32(blocker.conn.PgConn().PID()) {
				t.Fatalf("%s: %v", step("Blocked"), pairs)
			}
			l.wantUnchanged(step("Blocked"))
			outcomes, err := inspect.Cancel(t.Context(), q, inspect.SessionsOf([]inspect.Lock{*pairs[0].Lock}))
			must(t, err)
			if !outcomes[0].Signaled {
				t.Errorf("%s: %+v", step("Cancel"), outcomes)
			}
			if err := <-waited; err == nil || !strings.Contains(err.Error(), "57014") {
				t.Errorf("%s: the waiter's error is %v", step("Cancel"), err)
			}
			l.wantUnchanged(step("Cancel"))
			outcomes, err = inspect.Terminate(t.Context(), q, inspect.BlockersOf(pairs), inspect.DryRun())
			must(t, err)
			if outcomes[0].Signaled {
				t.Errorf("%s: it no longer blocks any session: %+v", step("Terminate"), outcomes)
			}
			victims, err := inspect.Locks(t.Context(), q, inspect.PIDs(int32(blocker.conn.PgConn().PID())))
			must(t, err)
			outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(victims), inspect.WaitGone(20*time.Second))
			must(t, err)
			if len(outcomes) != 1 || !outcomes[0].Ended {
				t.Errorf("%s: %+v", step("Terminate"), outcomes)
			}
			l.wantUnchanged(step("Terminate"))
			blocker = databaseAt(t, d.conn.Config().ConnString())
		}
	}
}

// A function that changes a session setting, or watches a session, is refused if a pooler
// may lend the session to others; in a transaction it works.
func TestTimeoutsAndRunsThroughAPoolerLeaveNothing(t *testing.T) {
	t.Parallel()
	never := func(context.Context) error { t.Error("the function ran"); return nil }
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement, pgbouncer.Session} {
		var d *db
		l := &pooledState{t: t}
		if mode == pgbouncer.Session { // each connection has its own session, so there is nothing to detect
			d, l.dsn, _ = pooled(t, mode)
		} else {
			d, l = throughOne(t, mode)
		}
		direct := d.source()
		for name, open := range l.conns() {
			conn, done := open()
			for verb, do := range map[string]func() error{
				"WithLockTimeout": func() error {
					return pglock.WithLockTimeout(t.Context(), conn, time.Second, never)
				},
				"WithStatementTimeout": func() error {
					return pglock.WithStatementTimeout(t.Context(), conn, pglock.NoTimeout, never)
				},
				"Run": func() error {
					return prioritize.RunOn(t.Context(), direct, conn, never)
				},
				"Run with a lock timeout": func() error {
					return prioritize.RunOn(t.Context(), direct, conn, never, prioritize.LockTimeout(time.Second))
				},
				"Retry": func() error {
					return prioritize.RetryOn(t.Context(), direct, conn, never)
				},
				"Retry without a watcher": func() error {
					return prioritize.RetryOn(t.Context(), nil, conn, never)
				},
			} {
				err := do()
				wantErr(t, err, pglock.ErrPooler)
				for _, wrong := range []error{pglock.ErrNotAcquired, pglock.ErrUnavailable} {
					if errors.Is(err, wrong) {
						t.Errorf("%s: %s: %v", mode, verb, err)
					}
				}
				if says := err.Error(); !strings.Contains(says, "transaction") || !strings.Contains(says, "directly") || strings.Contains(says, "AllowPooler") {
					t.Errorf("%s: the advice of %s: %v", mode, verb, err)
				}
				if mode == pgbouncer.Session {
					continue
				}
				l.wantUnchanged(string(mode) + ", " + verb + ", " + name)
			}
			done()
		}
		if mode == pgbouncer.Session {
			continue
		}

		// The watcher's source, with each driver.
		for name, source := range poolerSources(t, l.dsn) {
			ran := false
			fn := func(context.Context) error { ran = true; return nil }
			for verb, err := range map[string]error{
				"RunFor": prioritize.RunFor(t.Context(), source, prioritize.Who{Applications: []string{"migration"}}, fn, prioritize.Terminate()),
				"Run":    prioritize.RunOn(t.Context(), source, pgxlock.Conn(d.conn), fn),
			} {
				wantErr(t, err, pglock.ErrPooler)
				if errors.Is(err, pglock.ErrUnavailable) || !strings.Contains(err.Error(), "watcher") {
					t.Errorf("%s: %v", verb, err)
				}
				if ran {
					t.Errorf("%s, %s ran without a watcher", verb, name)
				}
				l.wantUnchanged(string(mode) + ", the source of " + verb + ", " + name)
			}
		}
	}
}

// A function that works in a transaction leaves nothing behind, whether it succeeds or
// not, and whether the transaction commits or not.
func TestTransactionsThroughAPoolerLeaveNothing(t *testing.T) {
	t.Parallel()
	d, l := throughOne(t, pgbouncer.Transaction)
	ctx := t.Context()
	key, taken := pglock.Name("job"), pglock.Name("taken")
	d.exec(`CREATE TABLE app.taken ()`)
	holder := databaseAt(t, d.conn.Config().ConnString())
	holder.exec(`BEGIN; LOCK TABLE app.taken`)
	holder.exec(`SELECT pg_advisory_xact_lock($1)`, taken.ID())
	brief := pglock.Wait(5 * time.Millisecond)
	refused := func(err error) error {
		if !errors.Is(err, pglock.ErrNotAcquired) {
			return errors.Join(errors.New("want ErrNotAcquired"), err)
		}
		return nil
	}
	verbs := map[string]func(conn driver.Conn) error{
		"LockTx":              func(c driver.Conn) error { return pglock.LockTx(ctx, c, key) },
		"LockTx that waits":   func(c driver.Conn) error { return pglock.LockTx(ctx, c, key, pglock.Wait(time.Minute)) },
		"LockTx in vain":      func(c driver.Conn) error { return refused(pglock.LockTx(ctx, c, taken, brief)) },
		"LockTx in vain, now": func(c driver.Conn) error { return refused(pglock.LockTx(ctx, c, taken, pglock.NoWait())) },
		"TryLockTx":           func(c driver.Conn) error { return pglock.TryLockTx(ctx, c, key) },
		"TryLockTx in vain":   func(c driver.Conn) error { return refused(pglock.TryLockTx(ctx, c, taken)) },
		"LockAllTx":           func(c driver.Conn) error { return pglock.LockAllTx(ctx, c, []pglock.Key{key, pglock.Pair(1, 2)}) },
		"LockAllTx in vain":   func(c driver.Conn) error { return refused(pglock.LockAllTx(ctx, c, []pglock.Key{key, taken}, brief)) },
		"LockTables": func(c driver.Conn) error {
			return pglock.LockTables(ctx, c, pglock.Tables("orders"), pglock.Wait(time.Minute))
		},
		"LockTables in vain": func(c driver.Conn) error { return refused(pglock.LockTables(ctx, c, pglock.Tables("taken"), brief)) },
		"LockTables, no waiting": func(c driver.Conn) error {
			return refused(pglock.LockTables(ctx, c, pglock.Tables("taken"), pglock.NoWait()))
		},
		"WithLockTimeout": func(c driver.Conn) error {
			return pglock.WithLockTimeout(ctx, c, time.Second, func(context.Context) error { return nil })
		},
		"WithStatementTimeout": func(c driver.Conn) error {
			return pglock.WithStatementTimeout(ctx, c, time.Second, func(context.Context) error { return nil })
		},
		"Retry": func(c driver.Conn) error {
			return prioritize.RetryOn(ctx, nil, c, func(context.Context) error { return nil })
		},
		"Run": func(c driver.Conn) error {
			return prioritize.RunOn(ctx, d.source(), c, func(context.Context) error { return nil }, prioritize.LockTimeout(time.Second))
		},
	}
	pool, err := pgxpool.New(ctx, l.dsn)
	must(t, err)
	defer pool.Close()
	native, pq := openSQL(t, "pgx", l.dsn), openSQL(t, "postgres", l.dsn)
	errStop := errors.New("stop")
	for verb, do := range verbs {
		for _, outcome := range []error{nil, errStop} {
			for name, run := range map[string]func() error{
				"pgx": func() error {
					return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
						return errors.Join(do(pgxlock.Tx(tx)), outcome)
					})
				},
				"database/sql, pgx":    func() error { return inTx(ctx, native, do, outcome) },
				"database/sql, lib/pq": func() error { return inTx(ctx, pq, do, outcome) },
			} {
				if err := run(); outcome == nil && err != nil || outcome != nil && (!errors.Is(err, errStop) || err.Error() != "stop") {
					t.Errorf("%s, %s: %v", verb, name, err)
				}
				l.wantUnchanged(verb + ", " + name)
			}
		}
	}

	// The functions that begin the transaction themselves.
	for name, do := range map[string]func(pglock.Key) error{
		"pgx": func(k pglock.Key) error {
			return pglock.DoTx(ctx, pgxlock.Pool(pool), k, func(context.Context, pgx.Tx) error { return nil }, pglock.NoWait())
		},
		"database/sql, pgx": func(k pglock.Key) error {
			return pglock.DoTx(ctx, sqllock.DB(native), k, func(context.Context, *sql.Tx) error { return nil }, pglock.NoWait())
		},
		"database/sql, lib/pq": func(k pglock.Key) error {
			return pglock.DoTx(ctx, sqllock.DB(pq), k, func(context.Context, *sql.Tx) error { return nil }, pglock.NoWait())
		},
		"tables, database/sql, pgx": func(k pglock.Key) error {
			table := "orders"
			if k == taken {
				table = "taken"
			}
			return pglock.DoTables(ctx, sqllock.DB(native), pglock.Tables(table), func(context.Context, *sql.Tx) error { return nil }, pglock.NoWait())
		},
	} {
		must(t, do(key))
		l.wantUnchanged("a begin, " + name)
		wantErr(t, do(taken), pglock.ErrNotAcquired)
		l.wantUnchanged("a failed begin, " + name)
	}
}

// inTx runs do in a transaction, and commits it if outcome is nil.
func inTx(ctx context.Context, db *sql.DB, do func(driver.Conn) error, outcome error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(do(sqllock.Tx(tx)), outcome); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
