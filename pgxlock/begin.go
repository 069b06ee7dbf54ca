package pgxlock

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
)

// Begin returns a Beginner that begins transactions on db, a *pgxpool.Pool or *pgx.Conn,
// for [pglock.DoTx] and [pglock.DoTables].
func Begin(db interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}, opts pgx.TxOptions,
) pglock.Beginner[pgx.Tx] {
	return func(ctx context.Context) (pglock.Transaction[pgx.Tx], error) {
		tx, err := db.BeginTx(ctx, opts)
		if err != nil {
			return pglock.Transaction[pgx.Tx]{}, err
		}
		return pglock.Transaction[pgx.Tx]{Tx: tx, Conn: Tx(tx), Commit: tx.Commit, Rollback: tx.Rollback}, nil
	}
}
