package inspect_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// The waits for one table.
func ExampleLocks() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()

	waits, err := inspect.Locks(ctx, pgxlock.Pool(pool),
		inspect.On("orders"),
		inspect.Where("granted", "=", "false"),
		inspect.Where("application", "~", "^mig"))
	check(err)
	for _, l := range waits {
		fmt.Println(l.Application, "waits for", l.Mode, "on", l.Target(), "to run", l.Query)
	}
	// Output: migrate waits for AccessExclusiveLock on public.orders to run ALTER TABLE orders ADD note text
}

// A session that holds no lock can be found and ended, too.
func ExampleSessions() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	sessions, err := inspect.Sessions(ctx, q,
		inspect.Where("database", "=", pool.Config().ConnConfig.Database),
		inspect.Where("state", "=", "idle in transaction"))
	check(err)
	for _, s := range sessions {
		fmt.Println(s.Application, "is", s.State, "after:", s.Query)
	}
	outcomes, err := inspect.Terminate(ctx, q, inspect.VictimsOf(sessions), inspect.DryRun())
	check(err)
	fmt.Println(len(outcomes), "would be ended")
	// Output:
	// checkout is idle in transaction after: UPDATE orders SET state = 'paid'
	// 1 would be ended
}

// The waiters and their blockers.
func ExampleBlocked() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()

	pairs, err := inspect.Blocked(ctx, pgxlock.Pool(pool), inspect.On("orders"))
	check(err)
	for _, p := range pairs {
		fmt.Printf("%s waits for %s, which is %s and has %s (hard: %t)\n",
			p.Application, p.Blocking.Application, p.Blocking.State, p.Held.Mode, p.Hard)
	}
	// Output: migrate waits for checkout, which is idle in transaction and has RowExclusiveLock (hard: true)
}

// The leases that are held, and by which program.
func ExampleLeases() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	_, err := pool.Exec(ctx, pglock.LeaseSQL("pglock"))
	check(err)
	locker, err := pglock.New(pgxlock.Pool(pool), pglock.Leases(30*time.Second))
	check(err)
	defer locker.Close()
	lease, err := locker.Lock(ctx, pglock.Name("nightly-report"))
	check(err)

	leases, err := inspect.Leases(ctx, pgxlock.Pool(pool), "pglock")
	check(err)
	for _, l := range leases {
		fmt.Println(l.Name, "is held:", l.Held(), "token:", l.Token == lease.Token(), "process:", l.Process == int32(os.Getpid()))
	}
	// Output: nightly-report is held: true token: true process: true
}

// A snapshot of all locks, and a description of the server.
func ExampleReadSnapshot() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()

	snapshot, err := inspect.ReadSnapshot(ctx, pgxlock.Pool(pool))
	check(err)
	fmt.Println("sees all:", snapshot.Server.SeesAll, "may end all:", snapshot.Server.SignalsAll)
	for _, grant := range snapshot.Server.Grants() {
		fmt.Println("would help:", grant)
	}
	// Output: sees all: true may end all: true
}

// Draw the tree of waiting sessions.
func ExampleSnapshot_Forest() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()

	snapshot, err := inspect.ReadSnapshot(ctx, pgxlock.Pool(pool))
	check(err)
	var show func(trees []*inspect.Tree)
	show = func(trees []*inspect.Tree) {
		for _, t := range trees {
			fmt.Printf("%s%s, %d behind it", strings.Repeat("  ", t.Depth), t.Application, t.Behind)
			if t.Pair != nil {
				fmt.Printf(", waits for %s (hard: %t)", t.Pair.Target(), t.Pair.Hard)
			}
			fmt.Println()
			show(t.Blocked)
		}
	}
	show(snapshot.Forest())
	// Output:
	// checkout, 1 behind it
	//   migrate, 0 behind it, waits for public.orders (hard: true)
}

// Trees of selected pairs.
func ExampleSnapshot_Forest_pairs() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()

	pairs, err := inspect.Blocked(ctx, pgxlock.Pool(pool), inspect.On("orders"))
	check(err)
	snapshot := inspect.Snapshot{Pairs: pairs}
	for _, t := range snapshot.Forest() {
		fmt.Println(t.Application, "keeps", t.Behind, "waiting")
	}
	// Output: checkout keeps 1 waiting
}

// Canceling a session that runs no statement would release nothing, so it is left
// alone.
func ExampleCancel() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	locks, err := inspect.Locks(ctx, q, inspect.On("orders"))
	check(err)
	outcomes, err := inspect.Cancel(ctx, q, inspect.SessionsOf(locks))
	check(err)
	for _, o := range outcomes {
		fmt.Printf("%s: signaled %t, reason %q\n", o.Victim.Application, o.Signaled, o.Reason)
	}
	// Unordered output:
	// migrate: signaled true, reason ""
	// checkout: signaled false, reason "idle"
}

// End the sessions that block a table and are idle, if they still block it at that
// moment.
func ExampleTerminate() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	pairs, err := inspect.Blocked(ctx, q,
		inspect.On("orders"),
		inspect.Where("blocking_state", "=", "idle in transaction"))
	check(err)
	victims := inspect.BlockersOf(pairs)

	would, err := inspect.Terminate(ctx, q, victims, inspect.DryRun())
	check(err)
	fmt.Println("would end", would[0].Victim.Application)

	outcomes, err := inspect.Terminate(ctx, q, victims, inspect.WaitGone(10*time.Second))
	check(err)
	for _, o := range outcomes {
		fmt.Println(o.Victim.Application, "signaled:", o.Signaled, "gone:", o.Ended)
	}
	// Output:
	// would end checkout
	// checkout signaled: true gone: true
}

// Of all sessions that lock a table, end only those that do not wait themselves: the
// others go on.
func ExampleOnlyRoots() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	locks, err := inspect.Locks(ctx, q, inspect.On("orders"))
	check(err)
	outcomes, err := inspect.Terminate(ctx, q, inspect.SessionsOf(locks), inspect.OnlyRoots())
	check(err)
	for _, o := range outcomes {
		fmt.Printf("%s: signaled %t, reason %q\n", o.Victim.Application, o.Signaled, o.Reason)
	}
	// Unordered output:
	// checkout: signaled true, reason ""
	// migrate: signaled false, reason "waiting"
}

// Some classes of sessions are left alone unless they are allowed. Other sessions are
// left alone if they are not among the victims.
func ExampleAllow() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	locks, err := inspect.Locks(ctx, q, inspect.On("orders"), inspect.Where("granted", "=", "true"))
	check(err)
	victims := slices.DeleteFunc(inspect.SessionsOf(locks), func(v inspect.Victim) bool {
		return v.Application == "checkout" // a session of ours
	})
	outcomes, err := inspect.Terminate(ctx, q, victims, inspect.Allow(inspect.Autovacuum))
	check(err)
	fmt.Println(len(outcomes))
	// Output: 0
}

// A connection for inspecting locks must not get stuck itself.
func ExampleGuard() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	conn, err := pool.Acquire(ctx)
	check(err)
	defer conn.Conn().Close(ctx) // its settings are not for others
	defer conn.Release()

	guarded, shared, err := inspect.Guard(ctx, pgxlock.Conn(conn.Conn()))
	check(err)
	fmt.Println("lent by a pooler:", shared)
	pairs, err := inspect.Blocked(ctx, guarded)
	check(err)
	fmt.Println(len(pairs) > 0)
	var timeout string
	check(conn.QueryRow(ctx, "SHOW lock_timeout").Scan(&timeout))
	fmt.Println(timeout)
	// Output:
	// lent by a pooler: false
	// true
	// 2s
}

// Filters as people write them. Errors are reported at once.
func ExampleParseFilter() {
	f, err := inspect.ParseFilter("wait_duration > 5 seconds")
	fmt.Println(f.String(), err)
	_, err = inspect.ParseFilter("waiting > 5 seconds")
	fmt.Println(err != nil)
	fmt.Println(inspect.PIDs(4711, 4712), inspect.Where("pid", "~", "47").Err() != nil)
	fmt.Println(inspect.Where("state", "in", "active", "idle in transaction"))
	fmt.Println(inspect.Where("context.request_id", "is not null"))
	// Output:
	// wait_duration > 5 seconds <nil>
	// true
	// pids 4711 4712 true
	// state in ('active', 'idle in transaction')
	// context.request_id is not null
}

// A list of locks with columns that the user selects.
func ExampleAttributes() {
	ctx := context.Background()
	pool, done := exampleShop()
	defer done()
	q := pgxlock.Pool(pool)

	locks, err := inspect.Locks(ctx, q, inspect.On("orders"), inspect.Where("granted", "=", "false"))
	check(err)
	for _, a := range inspect.Attributes() {
		if a.Name == "mode" || a.Name == "relation" {
			fmt.Println(a.Name, a.Type, a.Value(&locks[0]))
		}
	}
	pairs, err := inspect.Blocked(ctx, q, inspect.On("orders"))
	check(err)
	for _, a := range inspect.PairAttributes() {
		if a.Name == "blocking_application" {
			fmt.Println(a.Name, a.Type, a.PairValue(&pairs[0]))
		}
	}
	for _, a := range inspect.SessionAttributes() {
		if a.Name == "application" {
			fmt.Println(a.Name, a.Type, a.Value(&inspect.Lock{Session: locks[0].Session}))
		}
	}
	// Output:
	// mode string AccessExclusiveLock
	// relation string orders
	// blocking_application string checkout
	// application string migrate
}

// The annotations of a statement are visible to anyone who inspects its locks.
func ExampleAnnotate() {
	ctx := inspect.Annotate(context.Background(), "job", "nightly-report")
	fmt.Println(inspect.Comment(ctx, "UPDATE orders SET state = 'sent'"))
	// Output: UPDATE orders SET state = 'sent' /*job='nightly-report'*/
}

// A comment with the annotations of ctx.
func ExampleComment() {
	ctx := inspect.Annotate(context.Background(), "request", "4711")
	fmt.Println(inspect.Comment(ctx, "SELECT 1"))
	fmt.Println(inspect.Comment(context.Background(), "SELECT 1"))
	// Output:
	// SELECT 1 /*request='4711'*/
	// SELECT 1
}

// A comment that django-pgactivity and django-pglock read.
func ExampleDjangoComment() {
	ctx := inspect.Annotate(context.Background(), "job", "nightly-report")
	fmt.Println(inspect.Comment(ctx, "UPDATE orders SET state = 'sent'", inspect.DjangoComment()))
	// Output:
	// /*pga_context={"job": "nightly-report"}*/
	// UPDATE orders SET state = 'sent'
}

// A context keeps its types.
func ExampleContext_Lookup() {
	session := inspect.Session{Context: `{"n":3,"deep":{"a":[1,null]}}`}
	n, ok := session.Context.Lookup("n")
	fmt.Println(n, ok)
	first, ok := session.Context.Lookup("deep.a.0")
	fmt.Println(first, ok)
	_, ok = session.Context.Lookup("deep.a.1")
	fmt.Println(ok)
	var values struct{ N int }
	check(json.Unmarshal([]byte(session.Context), &values))
	fmt.Println(values.N)
	// Output:
	// 3 true
	// 1 true
	// false
	// 3
}

// A prepared transaction has no process to signal; a statement ends it.
func ExamplePrepared_Remedy() {
	prepared := &inspect.Prepared{GID: "order 42", Owner: "app", Database: "shop"}
	fmt.Println(prepared.Remedy())
	// Output: ROLLBACK PREPARED 'order 42'
}
