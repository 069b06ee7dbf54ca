package pglock_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// inThisDatabase is a condition on pg_locks: locks of this test's database.
const inThisDatabase = `database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// plainClients are clients that take an advisory lock in turns, wait for it in Postgres
// without a limit, and hold it for some time.
type plainClients struct {
	turns atomic.Int64
	stop  func()
}

func (d *db) plainClients(n int, key pglock.Key, hold time.Duration) *plainClients {
	d.t.Helper()
	r := &plainClients{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		conn := must1(pgx.Connect(d.t.Context(), d.dsn))
		wg.Go(func() {
			defer conn.Close(context.Background())
			for ctx.Err() == nil {
				// One statement for each turn, so that no turn is too short.
				_, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, key.ID())
				if err == nil {
					r.turns.Add(1)
					_, err = conn.Exec(ctx, `SELECT pg_sleep($1)`, hold.Seconds())
				}
				if err == nil {
					_, err = conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, key.ID())
				}
				if err != nil && ctx.Err() == nil {
					d.t.Errorf("a rival: %v", err)
					return
				}
			}
		})
	}
	r.stop = func() { cancel(); wg.Wait() }
	d.t.Cleanup(r.stop)
	return r
}

// Plain clients take a lock in turns and never give up their places in Postgres' queue. A
// Locker still gets its turn, whether they hold the lock for a shorter or longer time
// than one of its slices, and whatever their number.
func TestTurnsBesidePlainClients(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 5} {
		for _, hold := range []time.Duration{200 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d clients, %v", n, hold), func(t *testing.T) {
				t.Parallel()
				d := newDB(t)
				key := pglock.Int(4711)
				r := d.plainClients(n, key, hold)
				d.until(`SELECT count(*) >= $1 FROM pg_locks WHERE locktype = 'advisory' AND `+inThisDatabase, n)
				locker := d.locker()
				before := r.turns.Load()
				began := time.Now()
				held, err := locker.Lock(t.Context(), key, pglock.Wait(5*time.Minute))
				if err != nil {
					t.Fatalf("%v, after %d turns of the others", err, r.turns.Load()-before)
				}
				turns := r.turns.Load() - before
				t.Logf("acquired after %v and %d turns of the others", time.Since(began).Round(time.Millisecond), turns)
				// A plain client would acquire it after one turn of each of them. The
				// number must not grow with time.
				if most := int64(20 + 10*n); turns > most {
					t.Errorf("the others had %d turns meanwhile, more than %d", turns, most)
				}
				must(t, held.Unlock())
				r.stop()
			})
		}
	}
}

// A long wait does not make CREATE INDEX CONCURRENTLY fail if the holder of the lock runs
// it: it would wait for the end of our statement, which waits for the lock.
func TestLongWaitBesideCreateIndexConcurrently(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE orders (id int)`)
	key := pglock.Int(4712)
	r := d.plainClients(5, key, 700*time.Millisecond)
	locker := d.locker()
	got := make(chan error, 1)
	go func() {
		held, err := locker.Lock(context.Background(), key)
		if err == nil {
			err = held.Unlock()
		}
		got <- err
	}()
	// It requests the lock again and again until one of its waits is long.
	long := `SELECT count(*) > 0 FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'pglock' AND wait_event = 'advisory' AND clock_timestamp() - query_start > interval '1.2 s'`
	var seen bool
	for deadline := time.Now().Add(2 * time.Minute); !seen; {
		if time.Now().After(deadline) {
			t.Fatal("no wait became long")
		}
		select {
		case err := <-got:
			must(t, err)
			go func() {
				held, err := locker.Lock(context.Background(), key)
				if err == nil {
					err = held.Unlock()
				}
				got <- err
			}()
		default:
			d.scan(&seen, long)
		}
	}
	// Replace the current holder by one that builds an index.
	migration := must1(pgx.Connect(t.Context(), d.dsn))
	defer migration.Close(context.Background())
	must1(migration.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, key.ID()))
	r.stop()
	if _, err := migration.Exec(t.Context(), `CREATE INDEX CONCURRENTLY ON orders (id)`); err != nil {
		t.Errorf("CREATE INDEX CONCURRENTLY: %v", err)
	}
	must1(migration.Exec(t.Context(), `SELECT pg_advisory_unlock($1)`, key.ID()))
	must(t, <-got)
}

// A writer of another process gets its turn behind continuous readers of one Locker, even
// if that Locker cannot open a second session.
func TestWriterBehindReaders(t *testing.T) {
	t.Parallel()
	key := pglock.Name("shared")
	for name, opts := range map[string][]pglock.LockerOption{
		"one session": {pglock.Sessions(1)},
		"default":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			readers := d.locker(opts...)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			if opts == nil {
				// All other sessions wait for keys held by another session.
				holder := must1(pgx.Connect(t.Context(), d.dsn))
				defer holder.Close(context.Background())
				for i := range 20 {
					must1(holder.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, 100+i))
					wg.Go(func() {
						if held, err := readers.Lock(ctx, pglock.Int(int64(100+i))); err == nil {
							held.Unlock()
						}
					})
				}
			}
			var reads atomic.Int64
			for range 4 {
				wg.Go(func() {
					for ctx.Err() == nil {
						held, err := readers.Lock(ctx, key, pglock.Shared())
						if err != nil {
							if ctx.Err() == nil {
								t.Error(err)
							}
							return
						}
						reads.Add(1)
						time.Sleep(30 * time.Millisecond)
						held.Unlock()
					}
				})
			}
			for reads.Load() < 20 {
				time.Sleep(time.Millisecond)
			}
			writer := d.locker()
			held, err := writer.Lock(t.Context(), key, pglock.Wait(time.Minute))
			if err != nil {
				t.Fatalf("%v, after %d reads", err, reads.Load())
			}
			must(t, held.Unlock())
		})
	}
}

// The server has no free connection: a Locker waits on its only session.
func TestWaitGoesOnWithoutConnectionsLeft(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"max_connections": "10", "superuser_reserved_connections": "3", "max_wal_senders": "0",
	}})
	dsn := server.ConnString("postgres")
	d := databaseAt(t, dsn)
	role := "app"
	d.exec(`CREATE ROLE ` + role + ` LOGIN`)
	app := strings.Replace(dsn, "user=postgres", "user="+role, 1)
	locker := must1(pglock.New(source(t, app)))
	t.Cleanup(func() { locker.Close() })
	must(t, lock(t, locker, pglock.Name("mine")).Unlock())
	key := pglock.Int(4713)
	d.exec(`SELECT pg_advisory_lock($1)`, key.ID())
	for {
		conn, err := pgx.Connect(t.Context(), app)
		if err != nil {
			break // no more
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	mine := lock(t, locker, pglock.Name("mine"))
	got := make(chan error, 1)
	go func() {
		held, err := locker.Lock(context.Background(), key)
		if err == nil {
			err = held.Unlock()
		}
		got <- err
	}()
	for range 20 {
		must(t, lock(t, locker, pglock.Name("another")).Unlock())
		select {
		case err := <-got:
			t.Fatalf("the wait ended: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	d.exec(`SELECT pg_advisory_unlock($1)`, key.ID())
	must(t, <-got)
	must(t, mine.Unlock())
}
