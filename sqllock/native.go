package sqllock

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"reflect"
	"strings"
)

// native is pgx's own connection beneath database/sql, a *pgconn.PgConn. The interface
// uses only types of the standard library, so that this package imports no driver.
type native interface {
	PID() uint32
	TxStatus() byte
	IsClosed() bool
	Close(context.Context) error
	CleanupDone() chan (struct{})
	WaitForNotification(context.Context) error
}

// simple runs sql with pgx's simple query protocol and returns the rows of all its
// statements. That prepares nothing, whatever the pool's configuration says. The types of
// PgConn.Exec and its result cannot be named without importing pgx.
func simple(ctx context.Context, n native, sql string) ([][][]byte, error) {
	call := func(v reflect.Value, method string, args ...reflect.Value) []reflect.Value {
		if m := v.MethodByName(method); m.IsValid() && m.Type().NumIn() == len(args) {
			return m.Call(args)
		}
		return nil
	}
	reader := call(reflect.ValueOf(n), "Exec", reflect.ValueOf(ctx), reflect.ValueOf(sql))
	if len(reader) != 1 {
		return nil, errNoSimple
	}
	out := call(reader[0], "ReadAll")
	if len(out) != 2 || out[0].Kind() != reflect.Slice {
		return nil, errNoSimple
	}
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, err
	}
	var all [][][]byte
	for i := range out[0].Len() {
		result := reflect.Indirect(out[0].Index(i))
		if result.Kind() != reflect.Struct || !result.FieldByName("Rows").IsValid() {
			return nil, errNoSimple
		}
		rows, ok := result.FieldByName("Rows").Interface().([][][]byte)
		if !ok {
			return nil, errNoSimple
		}
		all = append(all, rows...)
	}
	return all, nil
}

var errNoSimple = errors.New("sqllock: the simple query protocol of this version of pgx is not supported")

// unwrap returns the driver's connection inside one that a tracing driver wrapped around
// it, if the wrapper exposes it.
func unwrap(conn any) any {
	for {
		wrapper, ok := conn.(interface{ Raw() sqldriver.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.Raw()
	}
}

// nativeOf returns the pgx connection of conn, or nil. It calls conn.Conn(), which
// returns a *pgx.Conn, and that one's PgConn(): types that cannot be named without
// importing pgx.
func nativeOf(conn any) native {
	v := reflect.ValueOf(conn)
	if !v.IsValid() {
		return nil
	}
	if v = pgxResult(v.MethodByName("Conn")); !v.IsValid() {
		return nil
	}
	if v = pgxResult(v.MethodByName("PgConn")); !v.IsValid() {
		return nil
	}
	n, _ := v.Interface().(native)
	return n
}

// pgxResult calls a method without parameters whose only result is a pointer to a pgx
// type.
func pgxResult(method reflect.Value) reflect.Value {
	if !method.IsValid() {
		return reflect.Value{}
	}
	t := method.Type()
	if t.NumIn() != 0 || t.NumOut() != 1 || t.Out(0).Kind() != reflect.Pointer ||
		!strings.HasPrefix(t.Out(0).Elem().PkgPath(), "github.com/jackc/pgx/") {
		return reflect.Value{}
	}
	result := method.Call(nil)[0]
	if result.IsNil() {
		return reflect.Value{}
	}
	return result
}

// pidOf returns the backend's process ID from the protocol, or 0 if it is unknown. pglock
// uses it to detect a pooler. lib/pq keeps it for cancel requests in an unexported field,
// which reflection can read; if a future version has no such field, only this detection
// is lost.
func pidOf(conn any, n native) uint32 {
	if n != nil {
		return n.PID()
	}
	for _, name := range []string{"pid", "processID"} {
		if field := pqField(conn, name); field.IsValid() && field.CanInt() {
			return uint32(field.Int())
		}
	}
	return 0
}

// txStatusOf returns the transaction status that the server sent with its last reply: I
// for none, T for an open one, E for an aborted one. lib/pq keeps it in an unexported
// field, too.
func txStatusOf(conn any, n native) (status byte, known bool) {
	if n != nil {
		return n.TxStatus(), true
	}
	field := pqField(conn, "txnStatus")
	if !field.IsValid() || !field.CanUint() {
		return 0, false
	}
	status = byte(field.Uint())
	return status, status == 'I' || status == 'T' || status == 'E'
}

// pqField returns a field of lib/pq's own connection, or the zero Value.
func pqField(conn any, name string) reflect.Value {
	v := reflect.Indirect(reflect.ValueOf(conn))
	if v.Kind() != reflect.Struct || v.Type().PkgPath() != "github.com/lib/pq" {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}
