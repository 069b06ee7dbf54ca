package prioritize_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
)

// exampleServer returns a database with a table orders and a session that reads it
// without ending its transaction.
func exampleServer() (dsn string, forgetful *pgx.Conn, done func()) {
	ctx := context.Background()
	o, err := pgserver.FromEnv()
	check(err)
	o.Database, o.Log = "", os.Stderr
	server, err := pgserver.Start(ctx, o)
	check(err)
	dsn = server.ConnString("postgres")
	admin, err := pgx.Connect(ctx, dsn)
	check(err)
	for _, sql := range []string{"CREATE TABLE orders (id int)", "CREATE ROLE app LOGIN", "GRANT ALL ON orders TO app"} {
		_, err = admin.Exec(ctx, sql)
		check(err)
	}
	check(admin.Close(ctx))
	forgetful, err = pgx.Connect(ctx, dsn+" application_name=reports user=app")
	check(err)
	for _, sql := range []string{"BEGIN", "SELECT FROM orders"} {
		_, err = forgetful.Exec(ctx, sql)
		check(err)
	}
	return dsn, forgetful, func() {
		check(forgetful.Close(ctx))
		check(server.Stop())
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A migration that waits politely: each try waits only a moment, so that nobody waits
// long behind it, and it retries until the table is free.
func ExampleRetry() {
	dsn, forgetful, done := exampleServer()
	defer done()
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	migrate := func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
			return err
		})
	}
	err = prioritize.Retry(ctx, pgxlock.Pool(pool), migrate,
		prioritize.LockTimeout(2*time.Second),
		prioritize.Backoff(10*time.Millisecond, time.Second),
		prioritize.Budget(10*time.Minute),
		prioritize.OnEvent(func(e prioritize.Event) {
			if e.Kind == prioritize.Tried && e.Err != nil {
				fmt.Println("try", e.Try, "was blocked by", e.Blocked[0].Blocking.Application)
				forgetful.Exec(ctx, "COMMIT") // at last
			}
		}))
	fmt.Println(err)
	// Output:
	// try 1 was blocked by reports
	// <nil>
}

// The error of a Retry that gives up names the blockers.
func ExampleRetry_error() {
	dsn, _, done := exampleServer()
	defer done()
	ctx := context.Background()
	err := prioritize.Retry(ctx, pgxlock.ConnString(dsn), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}, prioritize.LockTimeout(2*time.Second), prioritize.Tries(1))

	var blocked *prioritize.Error
	if errors.As(err, &blocked) {
		for _, p := range blocked.Blocked {
			fmt.Printf("%s on %s is blocked by %s, which is %s\n",
				p.Mode, p.Target(), p.Blocking.Application, p.Blocking.State)
		}
	}
	// Output:
	// AccessExclusiveLock on public.orders is blocked by reports, which is idle in transaction
}

// A migration that clears its way: a session that runs a statement is canceled after
// a second, and one that is idle in a transaction is terminated two seconds later.
func ExampleRun() {
	dsn, _, done := exampleServer()
	defer done()
	ctx := context.Background()
	err := prioritize.Run(ctx, pgxlock.ConnString(dsn), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	},
		prioritize.After(time.Second),
		prioritize.CancelThenTerminate(2*time.Second),
		prioritize.LockTimeout(time.Minute),
		prioritize.OnEvent(func(e prioritize.Event) {
			switch e.Kind {
			case prioritize.Spared:
				fmt.Println("spared:", e.Blocked[0].Blocking.Application, e.Reason)
			case prioritize.Terminated:
				fmt.Println("terminated:", e.Blocked[0].Blocking.Application)
			}
		}))
	fmt.Println(err)
	// Output:
	// spared: reports idle
	// terminated: reports
	// <nil>
}

// Part of the caller's own transaction clears its way. It goes on afterwards.
func ExampleRunOn() {
	dsn, _, done := exampleServer()
	defer done()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	err = prioritize.RunOn(ctx, pgxlock.ConnString(dsn), pgxlock.Tx(tx), func(ctx context.Context) error {
		_, err := tx.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}, prioritize.After(100*time.Millisecond), prioritize.Terminate())
	check(err)
	fmt.Println(tx.Commit(ctx))
	// Output: <nil>
}

// Retry on the caller's own connection, without a watcher.
func ExampleRetryOn() {
	dsn, forgetful, done := exampleServer()
	defer done()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	err = prioritize.RetryOn(ctx, nil, pgxlock.Conn(conn), func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}, prioritize.LockTimeout(100*time.Millisecond), prioritize.OnEvent(func(e prioritize.Event) {
		if e.Err != nil {
			forgetful.Exec(ctx, "COMMIT")
		}
	}))
	fmt.Println(err)
	// Output: <nil>
}

// The sessions of another program, selected by application_name.
func ExampleRunFor() {
	dsn, _, done := exampleServer()
	defer done()
	ctx := context.Background()

	tool := func(ctx context.Context) error { // such as an exec.Cmd with PGAPPNAME set
		conn, err := pgx.Connect(ctx, dsn+" application_name=migrate-4711")
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}
	err := prioritize.RunFor(ctx, pgxlock.ConnString(dsn), prioritize.Who{Applications: []string{"migrate-4711"}}, tool,
		prioritize.Terminate(),
		prioritize.Max(10),
		prioritize.Only(inspect.Where("blocking_application", "!=", "payments")),
		prioritize.OnEvent(func(e prioritize.Event) {
			if e.Kind == prioritize.Terminated {
				fmt.Println("terminated:", e.Blocked[0].Blocking.Application)
			}
		}))
	fmt.Println(err)
	// Output:
	// terminated: reports
	// <nil>
}

// The sessions of another program: it is run again if it did not acquire a lock, and the
// last try clears the way.
func ExampleRetryFor() {
	dsn, _, done := exampleServer()
	defer done()
	ctx := context.Background()

	tool := func(ctx context.Context) error { // such as an exec.Cmd with PGAPPNAME and PGOPTIONS set
		conn, err := pgx.Connect(ctx, dsn+" application_name=migrate-4711 options='-c lock_timeout=2s'")
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}
	err := prioritize.RetryFor(ctx, pgxlock.ConnString(dsn), prioritize.Who{Applications: []string{"migrate-4711"}}, tool,
		prioritize.LockTimeout(2*time.Second),
		prioritize.Tries(2),
		prioritize.Terminate(),
		prioritize.OnEvent(func(e prioritize.Event) {
			switch e.Kind {
			case prioritize.Tried:
				fmt.Println("try", e.Try, "failed:", e.Err != nil)
			case prioritize.Terminated:
				fmt.Println("terminated:", e.Blocked[0].Blocking.Application)
			}
		}))
	fmt.Println(err)
	// Output:
	// try 1 failed: true
	// terminated: reports
	// try 2 failed: false
	// <nil>
}

// Dry run: without a policy no session is ended, but an event reports each one that
// would be.
func ExampleRun_dryRun() {
	dsn, forgetful, done := exampleServer()
	defer done()
	ctx := context.Background()
	err := prioritize.Run(ctx, pgxlock.ConnString(dsn), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	},
		prioritize.After(100*time.Millisecond),
		prioritize.Interval(20*time.Millisecond),
		prioritize.ClearQueue(), // tell of those who only wait ahead of us, too
		prioritize.OnEvent(func(e prioritize.Event) {
			if e.Kind == prioritize.Overdue {
				fmt.Println("in the way:", e.Blocked[0].Blocking.Application, e.String() != "")
				forgetful.Exec(ctx, "COMMIT") // somebody asked them to
			}
		}))
	fmt.Println(err)
	// Output:
	// in the way: reports true
	// <nil>
}

// A custom policy: ask the session's owner first.
func ExampleCall() {
	dsn, forgetful, done := exampleServer()
	defer done()
	ctx := context.Background()
	ask := func(ctx context.Context, blocked inspect.Pair) error {
		fmt.Println("please, end it:", blocked.Blocking.Application)
		_, err := forgetful.Exec(ctx, "COMMIT")
		return err
	}
	err := prioritize.Run(ctx, pgxlock.ConnString(dsn), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	}, prioritize.Call(ask), prioritize.Every(time.Minute), prioritize.After(100*time.Millisecond))
	fmt.Println(err)
	// Output:
	// please, end it: reports
	// <nil>
}

// Cancel the sessions that block when the first one is past its grace, once,
// including autovacuum. A cancel does nothing to a session that is idle in its
// transaction.
func ExampleCancel() {
	dsn, forgetful, done := exampleServer()
	defer done()
	ctx := context.Background()
	err := prioritize.Run(ctx, pgxlock.ConnString(dsn), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
		return err
	},
		prioritize.Cancel(), prioritize.Once(), prioritize.After(100*time.Millisecond),
		prioritize.Allow(inspect.Autovacuum),
		prioritize.OnEvent(func(e prioritize.Event) {
			if e.Kind == prioritize.Spared && e.Reason == inspect.Idle {
				fmt.Println("spared:", e.Blocked[0].Blocking.Application, e.Reason)
				forgetful.Exec(ctx, "COMMIT")
			}
		}))
	fmt.Println(err)
	// Output:
	// spared: reports idle
	// <nil>
}
