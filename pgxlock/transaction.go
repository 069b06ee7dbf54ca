package pgxlock

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// InTransaction reports whether a transaction is open, where that is known: pgx
// is told with every answer of the server's. It saves pglock the asking.
func (c queries) InTransaction() (open, known bool) {
	conn := c.conn()
	if conn == nil {
		return false, false
	}
	return conn.TxStatus() != 'I', true
}

// PID returns the number of the backend as the protocol told it, or 0 if that is not
// known. By it a pooler is found out.
func (c queries) PID() uint32 {
	if conn := c.conn(); conn != nil {
		return conn.PID()
	}
	return 0
}

// AskSimple runs sql by the simple query protocol, which prepares nothing, and returns
// the single value that it answers with.
func (c queries) AskSimple(ctx context.Context, sql string) (string, error) {
	conn := c.conn()
	if conn == nil {
		return "", errNoConn
	}
	return askSimple(ctx, conn, sql)
}

var errNoConn = errors.New("pgxlock: the transaction does not say on which connection it is")

// conn returns the connection beneath, or nil if that is not known.
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
