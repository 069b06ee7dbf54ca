package sqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pglock-go/pglock/driver"
)

// pgx prepares the statements it runs, under names that stay on the session. A pooler may
// lend the session to other clients, so pglock runs its own statements in pgx's mode
// "exec", which leaves nothing prepared. pgx accepts the mode as a statement's first
// argument, and database/sql passes that through unchanged. The type of the mode cannot
// be named without importing pgx, but it can be taken from the field in which pgx stores
// a connection's mode. If a future pgx has no such field, or if another driver wraps
// pgx's, statements run in the connection's own mode.

// unpreparedOn returns the argument for statements on conn, or nil if none is needed.
func unpreparedOn(conn *sql.Conn) (mode any) {
	err := conn.Raw(func(raw any) error {
		mode = unprepared(reflect.ValueOf(raw))
		return nil
	})
	if err != nil {
		return nil
	}
	return mode
}

// unpreparedIn returns the argument for statements in tx, or nil if none is needed. No
// method of *sql.Tx returns the driver's connection.
func unpreparedIn(tx *sql.Tx) any {
	conn := field(reflect.ValueOf(tx), "dc", "ci")
	if !conn.IsValid() || conn.Kind() != reflect.Interface {
		return nil
	}
	return unprepared(conn.Elem())
}

// unprepared returns the argument for statements on the driver's own connection.
func unprepared(conn reflect.Value) any {
	if !conn.IsValid() || conn.Kind() != reflect.Pointer || !isPgx(conn.Type()) {
		return nil
	}
	now := field(conn, "conn", "config", "DefaultQueryExecMode")
	if !now.IsValid() || !now.CanInt() {
		return nil
	}
	named := func(n int64) (any, string) {
		mode := reflect.New(now.Type()).Elem()
		mode.SetInt(n)
		s, _ := mode.Interface().(fmt.Stringer)
		if s == nil {
			return nil, ""
		}
		return mode.Interface(), s.String()
	}
	switch _, name := named(now.Int()); name {
	case "exec", "simple protocol", "":
		return nil
	}
	for n := range int64(16) {
		if mode, name := named(n); name == "exec" {
			return mode
		}
	}
	return nil
}

// isPgx reports whether t is a type of pgx's driver for database/sql.
func isPgx(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	path := t.PkgPath()
	return strings.HasPrefix(path, "github.com/jackc/pgx/") && strings.HasSuffix(path, "/stdlib")
}

// field returns the field at the end of a path of fields, or the zero Value.
func field(v reflect.Value, names ...string) reflect.Value {
	for _, name := range names {
		if v = reflect.Indirect(v); v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		if v = v.FieldByName(name); !v.IsValid() {
			return v
		}
	}
	return v
}

// withMode returns the arguments of a statement with the mode, if any, before them.
func withMode(mode any, args []any) []any {
	if mode == nil {
		return args
	}
	return append([]any{mode}, args...)
}

// queryPool runs a query on any connection of a pool. With pgx, it checks out a
// connection until the rows are closed, since the mode can be found only there.
func queryPool(ctx context.Context, pool *sql.DB, query string, args []any) (driver.Rows, error) {
	if !isPgx(reflect.TypeOf(pool.Driver())) {
		rows, err := pool.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		return rows, nil
	}
	var lost error
	for range maxTries { // as database/sql does for stale connections in the pool
		conn, err := pool.Conn(ctx)
		if err != nil {
			return nil, err
		}
		rows, err := conn.QueryContext(ctx, query, withMode(unpreparedOn(conn), args)...)
		if err == nil {
			return connRows{rows, conn.Close}, nil
		}
		conn.Close()
		if !errors.Is(err, sqldriver.ErrBadConn) {
			return nil, err
		}
		lost = err
	}
	return nil, lost
}

// connRows release their connection when they are closed.
type connRows struct {
	driver.Rows
	release func() error
}

func (r connRows) Close() error {
	err := r.Rows.Close()
	if back := r.release(); !errors.Is(back, sql.ErrConnDone) {
		err = errors.Join(err, back)
	}
	return err
}
