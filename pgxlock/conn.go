package pgxlock

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock"
)

// Conn lets pglock work on the caller's connection, such as the one inside a
// *pgxpool.Conn: pgxlock.Conn(c.Conn()). Like pgx's own, it serves one goroutine
// at a time. It stays the caller's to close.
func Conn(conn *pgx.Conn) pglock.Conn { return queries{conn, modeOf(conn)} }

// Tx lets pglock work in the caller's transaction, from a connection or a pool.
// It stays the caller's to end.
func Tx(tx pgx.Tx) pglock.Conn { return queries{tx, modeOf(tx.Conn())} }

// querier is what pgx's connections, transactions and pools have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// queries runs statements without preparing them: each runs seldom, and a
// prepared statement is a name in a session, which a transaction pooler may swap
// between two transactions.
type queries struct {
	q    querier
	mode pgx.QueryExecMode
}

// modeOf is how to run a statement that is not to be prepared: as the connection
// does it, where its owner chose one of the ways that prepare nothing.
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

func (c queries) Query(ctx context.Context, sql string, args ...any) (pglock.Rows, error) {
	r, err := c.q.Query(ctx, sql, append([]any{c.mode}, args...)...)
	if err != nil {
		return nil, err
	}
	return rows{r}, nil
}

// rows gives pgx.Rows the Close that the seam has.
type rows struct{ pgx.Rows }

func (r rows) Close() error {
	r.Rows.Close()
	return r.Rows.Err()
}
