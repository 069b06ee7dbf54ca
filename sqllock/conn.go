package sqllock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/pglock-go/pglock"
)

// ExecQueryer is what the transactions of database/sql, and of most of what is
// built on it, have in common. GORM has it as tx.Statement.ConnPool, and ent
// with its feature sql/execquery.
type ExecQueryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Tx lets pglock work in the caller's transaction: a *sql.Tx, or what wraps one.
// It stays the caller's to end.
//
// Where tx embeds a *sql.Tx, as those of Bun, sqlx and GORM's prepared statements
// do, pglock talks to that one and bypasses the rest, such as the wrapper's own
// placeholders. Statements without parameters
// must reach the driver as they are: some of pglock's are several statements in
// one string.
//
// A pool, such as a *sql.DB, is no transaction, though it has the methods: what
// pglock does with it is an error that says so.
func Tx(tx ExecQueryer) pglock.Conn { return newConn(tx) }

// Conn lets pglock work on one connection of the caller's, which goes back to
// its pool only when the caller closes it. It serves one goroutine at a time.
func Conn(conn *sql.Conn) pglock.Conn { return queries{conn, unpreparedOn(conn)} }

// newConn finds what to talk to.
func newConn(x ExecQueryer) pglock.Conn {
	switch inner := innermost(x).(type) {
	case *sql.DB:
		return noConn{fmt.Errorf("sqllock: a %T is a pool of connections: what is to be locked or set needs one of them, or a transaction", x)}
	case nil:
		return noConn{fmt.Errorf("sqllock: a nil %T", x)}
	case *sql.Tx:
		return queries{inner, unpreparedIn(inner)}
	case *sql.Conn:
		return Conn(inner)
	case ExecQueryer:
		return queries{inner, nil}
	}
	return queries{x, nil}
}

// innermost is the *sql.Tx, *sql.Conn or *sql.DB that x is or wraps, or else x.
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
	mode any // what pgx is to be given before a statement's arguments, or nil
}

// Exec runs a statement. Those without arguments are sent as they are by pgx and lib/pq.
func (q queries) Exec(ctx context.Context, query string, args ...any) error {
	if len(args) > 0 {
		args = with(q.mode, args)
	}
	_, err := q.x.ExecContext(ctx, query, args...)
	return err
}

func (q queries) Query(ctx context.Context, query string, args ...any) (pglock.Rows, error) {
	rows, err := q.x.QueryContext(ctx, query, with(q.mode, args)...)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// PID returns the number of the backend as the protocol told it, or 0 if that is not
// known, such as in a transaction. By it a pooler is found out.
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

// AskSimple runs query by the simple query protocol, which prepares nothing, and returns
// the single value that it answers with. A transaction does not lead to the driver's
// connection.
func (q queries) AskSimple(ctx context.Context, query string) (string, error) {
	conn, ok := q.x.(*sql.Conn)
	if !ok {
		return "", fmt.Errorf("sqllock: a %T has no simple query protocol: %w", q.x, errors.ErrUnsupported)
	}
	return askSimple(ctx, conn, query)
}

// InTransaction reports whether a transaction is open, where that is known. It
// saves pglock the asking.
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

// noConn is what is no connection: it fails at whatever is asked of it.
type noConn struct{ err error }

func (c noConn) Exec(context.Context, string, ...any) error { return c.err }

func (c noConn) Query(context.Context, string, ...any) (pglock.Rows, error) { return nil, c.err }
