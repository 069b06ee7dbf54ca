package sqllock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/pglock-go/pglock/driver"
)

// An ExecQueryer runs statements. The transactions of database/sql and of most libraries
// built on it implement it: GORM's as tx.Statement.ConnPool, and ent's with its feature
// sql/execquery.
type ExecQueryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Tx returns a driver.Conn for the caller's transaction: a *sql.Tx, or a type that wraps
// one. The caller remains responsible for ending the transaction.
//
// If tx embeds a *sql.Tx, as the transactions of Bun, sqlx and GORM's prepared statements
// do, pglock uses the *sql.Tx and bypasses the wrapper, including its placeholder syntax.
// Statements without parameters must reach the driver unchanged: some of pglock's consist
// of several statements in one string.
//
// A pool, such as a *sql.DB, has these methods but is not a transaction. With a pool,
// every function of pglock returns an error that says so.
func Tx(tx ExecQueryer) driver.Conn { return newConn(tx) }

// Conn returns a driver.Conn for one of the caller's connections, which returns to its
// pool only when the caller closes it. It is not safe for concurrent use.
func Conn(conn *sql.Conn) driver.Conn { return queries{conn, unpreparedOn(conn)} }

// newConn returns a Conn for x, or for the transaction or connection that x wraps.
func newConn(x ExecQueryer) driver.Conn {
	switch inner := innermost(x).(type) {
	case *sql.DB:
		return errConn{fmt.Errorf("sqllock: a %T is a pool: use a transaction, or one of its connections", x)}
	case nil:
		return errConn{fmt.Errorf("sqllock: a nil %T", x)}
	case *sql.Tx:
		return queries{inner, unpreparedIn(inner)}
	case *sql.Conn:
		return Conn(inner)
	case ExecQueryer:
		return queries{inner, nil}
	}
	return queries{x, nil}
}

// innermost returns the *sql.Tx, *sql.Conn or *sql.DB that x is or wraps, else x.
func innermost(x any) any {
	switch x.(type) {
	case *sql.Tx, *sql.Conn, *sql.DB:
		if reflect.ValueOf(x).IsNil() {
			return nil
		}
		return x
	}
	v := reflect.ValueOf(x)
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	if v.Kind() != reflect.Struct {
		return x
	}
	for _, name := range []string{"Tx", "Conn", "DB", "ConnPool"} {
		field, ok := v.Type().FieldByName(name)
		if !ok || !field.Anonymous || !field.IsExported() {
			continue
		}
		value, err := v.FieldByIndexErr(field.Index)
		if err != nil || !value.CanInterface() {
			continue
		}
		switch inner := innermost(value.Interface()).(type) {
		case *sql.Tx, *sql.Conn, *sql.DB:
			return inner
		}
	}
	return x
}

// queries runs statements without preparing them, unless a driver insists.
type queries struct {
	x    ExecQueryer
	mode any // pgx's execution mode, to pass before a statement's arguments, or nil
}

// Exec runs a statement. pgx and lib/pq send one without arguments unchanged.
func (q queries) Exec(ctx context.Context, query string, args ...any) error {
	if len(args) > 0 {
		args = withMode(q.mode, args)
	}
	_, err := q.x.ExecContext(ctx, query, args...)
	return err
}

func (q queries) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	rows, err := q.x.QueryContext(ctx, query, withMode(q.mode, args)...)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// PID returns the backend's process ID from the protocol, or 0 if it is unknown, such as
// in a transaction. pglock uses it to detect a pooler.
func (q queries) PID() (pid uint32) {
	conn, ok := q.x.(*sql.Conn)
	if !ok {
		return 0
	}
	err := conn.Raw(func(raw any) error {
		inner := unwrap(raw)
		pid = pidOf(inner, nativeOf(inner))
		return nil
	})
	if err != nil {
		return 0
	}
	return pid
}

// QueryTextSimple runs query with the simple query protocol, which prepares nothing, and
// returns its single value. It fails in a transaction, which does not expose the driver's
// connection.
func (q queries) QueryTextSimple(ctx context.Context, query string) (string, error) {
	conn, ok := q.x.(*sql.Conn)
	if !ok {
		return "", fmt.Errorf("sqllock: a %T has no simple query protocol: %w", q.x, errors.ErrUnsupported)
	}
	return queryTextSimple(ctx, conn, query)
}

// InTransaction reports whether a transaction is open, if that is known, which saves a
// query.
func (q queries) InTransaction() (open, known bool) {
	switch x := q.x.(type) {
	case *sql.Tx:
		return true, true
	case *sql.Conn:
		err := x.Raw(func(raw any) error {
			inner := unwrap(raw)
			status, ok := txStatusOf(inner, nativeOf(inner))
			open, known = status != 'I', ok
			return nil
		})
		return open, known && err == nil
	}
	return false, false
}

// An errConn is a Conn whose methods all return err.
type errConn struct{ err error }

func (c errConn) Exec(context.Context, string, ...any) error { return c.err }

func (c errConn) Query(context.Context, string, ...any) (driver.Rows, error) { return nil, c.err }
