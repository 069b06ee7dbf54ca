package sqllock

import (
	"context"
	"database/sql"

	"github.com/pglock-go/pglock"
)

// Begin returns a Beginner that begins transactions on db, a *sql.DB or *sql.Conn, for
// [pglock.DoTx] and [pglock.DoTables]. opts may be nil.
func Begin(db interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}, opts *sql.TxOptions,
) pglock.Beginner[*sql.Tx] {
	return BeginFunc(func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, opts) })
}

// BeginFunc returns a Beginner for a library built on database/sql, for [pglock.DoTx] and
// [pglock.DoTables]. begin is the library's function, and T its transaction type, such as
//
//	sqllock.BeginFunc(client.Tx) // ent
//	sqllock.BeginFunc(func(ctx context.Context) (*sqlx.Tx, error) { return db.BeginTxx(ctx, nil) })
//
// T must meet the requirements of [Tx].
func BeginFunc[T interface {
	ExecQueryer
	Commit() error
	Rollback() error
}](begin func(context.Context) (T, error),
) pglock.Beginner[T] {
	return func(ctx context.Context) (pglock.Transaction[T], error) {
		tx, err := begin(ctx)
		if err != nil {
			return pglock.Transaction[T]{}, err
		}
		return pglock.Transaction[T]{
			Tx:       tx,
			Conn:     Tx(tx),
			Commit:   func(context.Context) error { return tx.Commit() },
			Rollback: func(context.Context) error { return tx.Rollback() },
		}, nil
	}
}
