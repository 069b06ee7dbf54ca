package examples_test

import (
	"context"
	"database/sql"
	"reflect"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// An Order names its table in Bun's tag.
type Order struct {
	bun.BaseModel `bun:"table:shop_orders"`

	ID int64 `bun:",pk,autoincrement"`
}

// bunTable returns the table that Bun uses for a model.
func bunTable(db *bun.DB, model any) string {
	return db.Table(reflect.TypeOf(model)).Name
}

func TestBun(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	pool, err := sql.Open("pgx", dsn)
	must(t, err)
	db := bun.NewDB(pool, pgdialect.New())
	defer db.Close()
	_, err = db.NewCreateTable().Model((*Order)(nil)).Exec(t.Context())
	must(t, err)
	second := other(t, dsn)
	key := pglock.Name("orders")

	orders := bunTable(db, Order{})
	err = db.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		if err := pglock.LockTables(ctx, sqllock.Tx(tx), pglock.Tables(orders)); err != nil {
			return err
		}
		if err := pglock.LockTx(ctx, sqllock.Tx(tx), key); err != nil {
			return err
		}
		canLock(t, second, "shop_orders", false)
		canAcquire(t, second, key, false)
		_, err := tx.NewInsert().Model(&Order{}).Exec(ctx)
		return err
	})
	must(t, err)
	canLock(t, second, "shop_orders", true)
	canAcquire(t, second, key, true)
}
