package pglock_test

import (
	"context"
	"database/sql"
	"strconv"
	"testing"

	"github.com/pglock-go/pglock/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"

	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// way is one way to begin a transaction.
type way struct {
	name  string
	begin func(t *testing.T, dsn string) *tx
}

// tx is a transaction, used through driver.Conn.
type tx struct {
	driver.Conn
	t      *testing.T
	commit func() error
	back   func() error
}

var ways = []way{
	{"pgx.Tx", func(t *testing.T, dsn string) *tx {
		conn := connect(t, dsn)
		return pgxTx(t, must1(conn.Begin(t.Context())))
	}},
	{"pgxpool.Tx", func(t *testing.T, dsn string) *tx {
		pool := must1(pgxpool.New(t.Context(), dsn))
		t.Cleanup(pool.Close)
		return pgxTx(t, must1(pool.Begin(t.Context())))
	}},
	{"pgx.Conn", func(t *testing.T, dsn string) *tx {
		conn := connect(t, dsn)
		must1(conn.Exec(t.Context(), "BEGIN"))
		return &tx{
			Conn: pgxlock.Conn(conn), t: t,
			commit: func() error { _, err := conn.Exec(context.Background(), "COMMIT"); return err },
			back:   func() error { _, err := conn.Exec(context.Background(), "ROLLBACK"); return err },
		}
	}},
	{"sql.Tx by pgx", func(t *testing.T, dsn string) *tx { return sqlTx(t, "pgx", dsn) }},
	{"sql.Tx by lib/pq", func(t *testing.T, dsn string) *tx { return sqlTx(t, "postgres", dsn) }},
	{"sql.Conn by lib/pq", func(t *testing.T, dsn string) *tx {
		conn := sqlConn(t, "postgres", dsn)
		must1(conn.ExecContext(t.Context(), "BEGIN"))
		return &tx{
			Conn: sqllock.Conn(conn), t: t,
			commit: func() error { _, err := conn.ExecContext(context.Background(), "COMMIT"); return err },
			back:   func() error { _, err := conn.ExecContext(context.Background(), "ROLLBACK"); return err },
		}
	}},
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	conn := must1(pgx.Connect(t.Context(), dsn))
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func openSQL(t *testing.T, driverName, dsn string) *sql.DB {
	pool := must1(sql.Open(driverName, dsn))
	t.Cleanup(func() { pool.Close() })
	return pool
}

func sqlConn(t *testing.T, driverName, dsn string) *sql.Conn {
	conn := must1(openSQL(t, driverName, dsn).Conn(t.Context()))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func pgxTx(t *testing.T, inner pgx.Tx) *tx {
	return &tx{
		Conn: pgxlock.Tx(inner), t: t,
		commit: func() error { return inner.Commit(context.Background()) },
		back:   func() error { return inner.Rollback(context.Background()) },
	}
}

func sqlTx(t *testing.T, driverName, dsn string) *tx {
	inner := must1(openSQL(t, driverName, dsn).BeginTx(context.Background(), nil))
	return &tx{Conn: sqllock.Tx(inner), t: t, commit: inner.Commit, back: inner.Rollback}
}

// eachWay runs test in every way, each in its own database. begin begins a transaction on
// a separate connection, and rolls it back at the end if necessary.
func eachWay(t *testing.T, test func(t *testing.T, d *db, begin func() *tx)) {
	t.Parallel()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			d := newDB(t)
			test(t, d, func() *tx {
				tx := w.begin(t, d.dsn)
				t.Cleanup(func() { tx.back() })
				return tx
			})
		})
	}
}

// InTransaction calls the adapter's method, if it has one.
func (tx *tx) InTransaction() (open, known bool) {
	if reporter, ok := tx.Conn.(driver.TransactionReporter); ok {
		return reporter.InTransaction()
	}
	return false, false
}

func (tx *tx) exec(sql string) {
	tx.t.Helper()
	if err := tx.Exec(context.Background(), sql); err != nil {
		tx.t.Fatalf("%s: %v", sql, err)
	}
}

func (tx *tx) text(sql string) (s string) {
	tx.t.Helper()
	rows, err := tx.Query(context.Background(), sql)
	if err != nil {
		tx.t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(&s); err != nil {
			tx.t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := rows.Err(); err != nil {
		tx.t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func (tx *tx) pid() int {
	tx.t.Helper()
	return must1(strconv.Atoi(tx.text(`SELECT pg_backend_pid()::text`)))
}

// usable checks that the transaction is still open and can continue.
func (tx *tx) usable() {
	tx.t.Helper()
	tx.exec(`CREATE TEMP TABLE usable () ON COMMIT DROP; DROP TABLE usable`)
	tx.exec(`SAVEPOINT is_there_a_transaction; RELEASE SAVEPOINT is_there_a_transaction`)
}

func (tx *tx) end(commit bool) {
	tx.t.Helper()
	end := tx.back
	if commit {
		end = tx.commit
	}
	if err := end(); err != nil {
		tx.t.Fatal(err)
	}
}

// heldBy returns the number of advisory locks of the backend.
func (d *db) heldBy(pid int) (n int) {
	d.t.Helper()
	d.scan(&n, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = $1`, pid)
	return n
}
