package sqllock

import (
	"context"
	"database/sql"

	"github.com/pglock-go/pglock"
)

// Begin begins transactions on db, a *sql.DB or *sql.Conn, for [pglock.DoTx] and
// [pglock.DoTables]. opts may be nil.
func Begin(db interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}, opts *sql.TxOptions,
) pglock.Beginner[*sql.Tx] {
	return func(ctx context.Context) (pglock.Transaction[*sql.Tx], error) {
		tx, err := db.BeginTx(ctx, opts)
		if err != nil {
			return pglock.Transaction[*sql.Tx]{}, err
		}
		return pglock.Transaction[*sql.Tx]{
			Tx:       tx,
			Conn:     Tx(tx),
			Commit:   func(context.Context) error { return tx.Commit() },
			Rollback: func(context.Context) error { return tx.Rollback() },
		}, nil
	}
}
