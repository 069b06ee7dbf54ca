package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// World provides the variables that the code in the guides uses but does not declare.
// The method with the same name creates the variable, such as Pool for pool. If several
// methods are possible, a comment before the block selects one:
// <!-- doctest: tx=SQLTx -->.
type World struct {
	ctx  context.Context
	dsn  string
	ends []func()

	blocked driver.Querier // reads the server of the running scene; nil if there is none
}

// check exits if err is not nil: a variable of the block could not be created.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "before the block:", err)
		os.Exit(3)
	}
}

// atEnd calls f after the block, in reverse order.
func (w *World) atEnd(f func()) { w.ends = append(w.ends, f) }

func (w *World) end() {
	for i := len(w.ends) - 1; i >= 0; i-- {
		w.ends[i]()
	}
}

// User is a model for GORM and Bun.
type User struct {
	bun.BaseModel `bun:"table:users"`

	ID int64 `bun:",pk"`
}

// TableName returns the table's name, for GORM.
func (*User) TableName() string { return "users" }

// Ctx returns a context that is canceled if the block takes far too long.
func (w *World) Ctx() context.Context { return w.ctx }

// DSN returns a connection string.
func (w *World) DSN() string { return w.dsn }

// Pool returns a pool of pgx.
func (w *World) Pool() *pgxpool.Pool {
	pool, err := pgxpool.New(w.ctx, w.dsn)
	check(err)
	w.atEnd(pool.Close)
	return pool
}

// Config returns the configuration of a connection.
func (w *World) Config() *pgx.ConnConfig {
	config, err := pgx.ParseConfig(w.dsn)
	check(err)
	return config
}

// Conn returns a connection of pgx.
func (w *World) Conn() *pgx.Conn {
	conn, err := pgx.Connect(w.ctx, w.dsn)
	check(err)
	w.atEnd(func() { check(conn.Close(context.Background())) })
	return conn
}

// Tx returns a transaction of pgx.
func (w *World) Tx() pgx.Tx {
	tx, err := w.Conn().Begin(w.ctx)
	check(err)
	w.atEnd(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// LockConn returns a transaction for pglock.
func (w *World) LockConn() driver.Conn { return pgxlock.Tx(w.Tx()) }

// DB returns a pool of database/sql.
func (w *World) DB() *sql.DB {
	db, err := sql.Open("pgx", w.dsn)
	check(err)
	w.atEnd(func() { check(db.Close()) })
	return db
}

// SQLDB returns a pool of database/sql, next to a pglock database named db.
func (w *World) SQLDB() *sql.DB { return w.DB() }

// SQLConn returns a connection of database/sql.
func (w *World) SQLConn() *sql.Conn {
	conn, err := w.DB().Conn(w.ctx)
	check(err)
	w.atEnd(func() { _ = conn.Close() })
	return conn
}

// SQLTx returns a transaction of database/sql.
func (w *World) SQLTx() *sql.Tx {
	tx, err := w.DB().BeginTx(w.ctx, nil)
	check(err)
	w.atEnd(func() { _ = tx.Rollback() })
	return tx
}

// GormDB returns a database of GORM.
func (w *World) GormDB() *gorm.DB {
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: w.DB()}), &gorm.Config{})
	check(err)
	return db
}

// BunDB returns a database of Bun.
func (w *World) BunDB() *bun.DB { return bun.NewDB(w.DB(), pgdialect.New()) }

// Locker returns a Locker on a pool of pgx.
func (w *World) Locker() *pglock.Locker {
	locker, err := pglock.New(pgxlock.Pool(w.Pool()))
	check(err)
	w.atEnd(func() { _ = locker.Close() })
	return locker
}

// Other returns a second Locker, which stands for another machine.
func (w *World) Other() *pglock.Locker { return w.Locker() }

// Held returns a lock that another Locker holds.
func (w *World) Held() *pglock.Lock {
	lock, err := w.Locker().Lock(w.ctx, pglock.Name("nightly-report"))
	check(err)
	w.atEnd(func() { check(lock.Unlock()) })
	return lock
}

// Key returns a key.
func (w *World) Key() pglock.Key { return pglock.Name("nightly-report") }

// Report returns work that must not run twice at a time.
func (w *World) Report() func(context.Context) error {
	return func(context.Context) error { return nil }
}

// Rebuild returns a named function.
func (w *World) Rebuild() func(context.Context) error { return rebuild }

func rebuild(context.Context) error { return nil }

// Migrate returns a migration that takes a strong lock.
func (w *World) Migrate() func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text`)
		return err
	}
}

// Q returns a Querier for package inspect.
func (w *World) Q() driver.Querier { return pgxlock.Pool(w.Pool()) }

// scene opens two sessions: one waits for "reports", which is idle in its transaction.
// It returns a Querier to observe them.
func (w *World) scene() driver.Querier {
	if w.blocked != nil {
		return w.blocked
	}
	config := w.Config()
	config.RuntimeParams["application_name"] = "reports"
	blocker, err := pgx.ConnectConfig(w.ctx, config)
	check(err)
	w.atEnd(func() { _ = blocker.Close(context.Background()) })
	_, err = blocker.Exec(w.ctx, `BEGIN; UPDATE app.orders SET note = 'x'`)
	check(err)
	waiter := w.Conn()
	pid := waiter.PgConn().PID()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.Exec(w.ctx, `BEGIN; LOCK TABLE app.orders`)
	}()
	w.atEnd(func() {
		_ = blocker.Close(context.Background())
		<-done
	})
	w.blocked = pgxlock.Pool(w.Pool())
	for {
		locks, err := inspect.Locks(w.ctx, w.blocked, inspect.PIDs(int32(pid)), inspect.Where("granted", "=", "false"))
		check(err)
		if len(locks) == 1 {
			return w.blocked
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Locks returns the locks that are waited for.
func (w *World) Locks() []inspect.Lock {
	locks, err := inspect.Locks(w.ctx, w.scene(), inspect.Where("granted", "=", "false"))
	check(err)
	return locks
}

// Sessions returns sessions that hold a lock on a table, or wait for one.
func (w *World) Sessions() []inspect.Session {
	sessions, err := inspect.Sessions(w.ctx, w.scene(), inspect.On("app.orders"))
	check(err)
	return sessions
}

// Pairs returns waiters and their blockers.
func (w *World) Pairs() []inspect.Pair {
	pairs, err := inspect.Blocked(w.ctx, w.scene())
	check(err)
	return pairs
}

// Snapshot returns a snapshot with one waiting session.
func (w *World) Snapshot() *inspect.Snapshot {
	snapshot, err := inspect.ReadSnapshot(w.ctx, w.scene())
	check(err)
	return snapshot
}
