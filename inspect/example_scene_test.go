package inspect_test

import (
	"context"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

// exampleShop returns a pool on a database in which "checkout" has changed an order
// and is idle in its transaction, and "migrate" waits to alter the table.
func exampleShop() (pool *pgxpool.Pool, done func()) {
	ctx := context.Background()
	e := &pgtest.Example{}
	dsn := pgtest.Database(e)
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	e.Cleanup(pool.Close)
	_, err = pool.Exec(ctx, `CREATE TABLE orders (id int, state text); INSERT INTO orders VALUES (1, 'new')`)
	check(err)

	checkout, err := pgx.Connect(ctx, dsn+" application_name=checkout")
	check(err)
	e.Cleanup(func() { checkout.Close(ctx) })
	for _, statement := range []string{"BEGIN", "UPDATE orders SET state = 'paid'"} {
		_, err = checkout.Exec(ctx, statement)
		check(err)
	}
	migrate, err := pgx.Connect(ctx, dsn+" application_name=migrate")
	check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = migrate.Exec(ctx, "ALTER TABLE orders ADD note text") // it may be ended
	}()
	e.Cleanup(func() {
		checkout.Close(ctx)
		<-ended
		migrate.Close(ctx)
	})
	for {
		waits, err := inspect.Locks(ctx, pgxlock.Pool(pool), inspect.On("orders"), inspect.Where("granted", "=", "false"))
		check(err)
		if len(waits) > 0 {
			return pool, e.Done
		}
		time.Sleep(10 * time.Millisecond)
	}
}
