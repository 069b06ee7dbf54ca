package pgxlock

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/driver"
)

// Conn returns a driver.Conn for the caller's connection, such as the one of a
// *pgxpool.Conn: pgxlock.Conn(c.Conn()). Like pgx's own, it is not safe for concurrent
// use. The caller remains responsible for closing the connection.
func Conn(conn *pgx.Conn) driver.Conn { return queries{conn, modeOf(conn)} }

// Tx returns a driver.Conn for the caller's transaction, on a connection or a pool. The
// caller remains responsible for ending the transaction.
func Tx(tx pgx.Tx) driver.Conn { return queries{tx, modeOf(tx.Conn())} }

// querier has the methods common to pgx's connections, transactions and pools.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// queries runs statements without preparing them. Each runs rarely, and a prepared
// statement belongs to a session, which a transaction pooler may exchange between
// transactions.
type queries struct {
	q    querier
	mode pgx.QueryExecMode
}

// modeOf returns the execution mode for a statement that must not be prepared: the
// connection's own mode if it prepares nothing.
func modeOf(conn *pgx.Conn) pgx.QueryExecMode {
	if conn == nil { // a transaction that is not pgx's own
		return pgx.QueryExecModeExec
	}
	return modeIn(conn.Config())
}

func modeIn(config *pgx.ConnConfig) pgx.QueryExecMode {
	if config.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		return pgx.QueryExecModeSimpleProtocol
	}
	return pgx.QueryExecModeExec
}

func (c queries) Exec(ctx context.Context, sql string, args ...any) error {
	_, err := c.q.Exec(ctx, sql, append([]any{c.mode}, args...)...)
	return err
}

func (c queries) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	r, err := c.q.Query(ctx, sql, append([]any{c.mode}, args...)...)
	if err != nil {
		return nil, err
	}
	return rows{r}, nil
}

// rows gives pgx.Rows the Close method of driver.Rows.
type rows struct{ pgx.Rows }

func (r rows) Close() error {
	r.Rows.Close()
	return r.Rows.Err()
}
