package inspect_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/pgxannotate"
	"github.com/pglock-go/pglock/pgxlock"
)

func ExampleLocks() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	waits, err := inspect.Locks(ctx, pgxlock.Pool(pool),
		inspect.On("app.orders"),
		inspect.Where("granted", "=", "false"),
		inspect.Where("wait_duration", ">", "5s"))
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range waits {
		fmt.Println(l.PID, l.Mode, l.Target(), l.WaitDuration, l.Application, l.Query)
	}
}

func ExampleSnapshot_Forest() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	snapshot, err := inspect.Take(ctx, pgxlock.Pool(pool))
	if err != nil {
		log.Fatal(err)
	}
	var show func(trees []*inspect.Tree)
	show = func(trees []*inspect.Tree) {
		for _, t := range trees {
			fmt.Printf("%*d %s, %d behind it", 2*t.Depth+6, t.PID, t.State, t.Behind)
			if t.Pair != nil {
				fmt.Printf(", waits for %s of %s (%s)", t.Pair.Mode, t.Pair.Target(), t.Pair.Block)
			}
			fmt.Println()
			show(t.Blocked)
		}
	}
	show(snapshot.Forest())
}

func ExampleTerminate() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	q := pgxlock.Pool(pool)

	pairs, err := inspect.Blocked(ctx, q,
		inspect.On("app.orders"),
		inspect.Where("blocking_state", "=", "idle in transaction"),
		inspect.Where("blocking_duration", ">", "5 minutes"))
	if err != nil {
		log.Fatal(err)
	}
	outcomes, err := inspect.Terminate(ctx, q, inspect.BlockersOf(pairs), inspect.WaitGone(10*time.Second))
	for _, o := range outcomes {
		fmt.Println(o.Victim.PID, o.Status, o.Reason, o.Grant)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleAnnotate() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	db := pgxannotate.DB(pool)
	ctx = inspect.Annotate(ctx, "job", "nightly-report")
	if _, err := db.Exec(ctx, "UPDATE app.orders SET sent = true"); err != nil {
		log.Fatal(err)
	}
}
