package pgxlock

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// InTransaction reports whether a transaction is open, if that is known. The server
// reports it with every reply, so no query is needed.
func (c queries) InTransaction() (open, known bool) {
	conn := c.conn()
	if conn == nil {
		return false, false
	}
	return conn.TxStatus() != 'I', true
}

// PID returns the backend's process ID from the protocol, or 0 if it is unknown. pglock
// uses it to detect a pooler.
func (c queries) PID() uint32 {
	if conn := c.conn(); conn != nil {
		return conn.PID()
	}
	return 0
}

// QueryTextSimple runs sql with the simple query protocol, which prepares nothing, and returns
// its single value.
func (c queries) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	conn := c.conn()
	if conn == nil {
		return "", errNoConn
	}
	return queryTextSimple(ctx, conn, sql)
}

var errNoConn = errors.New("pgxlock: the transaction does not expose its connection")

// conn returns the underlying connection, or nil if it is unknown.
func (c queries) conn() *pgconn.PgConn {
	var conn *pgx.Conn
	switch q := c.q.(type) {
	case *pgx.Conn:
		conn = q
	case pgx.Tx:
		conn = q.Conn()
	}
	if conn == nil {
		return nil
	}
	return conn.PgConn()
}
