package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// installLeases creates the tables of leases.
func (d *db) installLeases() {
	d.t.Helper()
	d.exec(pglock.LeaseSQL("pglock"))
}

// everyPath runs a test directly and through poolers, with each driver.
func everyPath(t *testing.T, test func(t *testing.T, d *db, source driver.Source)) {
	t.Parallel()
	for name, mode := range map[string]pgbouncer.Mode{
		"direct": "", "transaction": pgbouncer.Transaction, "statement": pgbouncer.Statement, "session": pgbouncer.Session,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			sources := poolerSources(t, d.dsn)
			if mode != "" {
				var dsn string
				d, dsn, _ = pooled(t, mode)
				sources = poolerSources(t, dsn)
			}
			d.installLeases()
			for name, source := range sources {
				t.Run(name, func(t *testing.T) { test(t, d, source) })
			}
		})
	}
}

// leaseLocker returns a Locker with leases.
func leaseLocker(t *testing.T, source driver.Source, opts ...pglock.LockerOption) *pglock.Locker {
	t.Helper()
	return newLocker(t, source, append([]pglock.LockerOption{pglock.Leases(3 * time.Second)}, opts...)...)
}

// owner returns who holds a lease, from the table.
func (d *db) lease(name string) (owner string, token int64) {
	d.t.Helper()
	err := d.conn.QueryRow(d.t.Context(), "SELECT coalesce(owner, ''), token FROM pglock.lease WHERE name = $1 AND slot = 0", name).Scan(&owner, &token)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		d.t.Fatal(err)
	}
	return owner, token
}

// A lease excludes other Lockers, and its token grows with each holder.
func TestLeaseExcludes(t *testing.T) {
	everyPath(t, func(t *testing.T, d *db, source driver.Source) {
		a, b := leaseLocker(t, source), leaseLocker(t, source)
		key := pglock.Name(t.Name())
		first, err := a.Lock(t.Context(), key, pglock.Wait(10*time.Second))
		must(t, err)
		if owner, token := d.lease(key.LeaseName()); owner == "" || token != first.Token() || token == 0 {
			t.Errorf("the table says %q, %d, not %d", owner, token, first.Token())
		}
		_, err = b.Lock(t.Context(), key, pglock.NoWait())
		wantErr(t, err, pglock.ErrNotAcquired)
		var e *pglock.Error
		if !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].Token != first.Token() || e.Holders[0].Left <= 0 {
			t.Errorf("holders: %+v", e)
		}
		_, err = b.TryLock(t.Context(), key)
		wantErr(t, err, pglock.ErrNotAcquired)

		waited := make(chan *pglock.Lock, 1)
		go func() {
			lock, err := b.Lock(context.WithoutCancel(t.Context()), key, pglock.Wait(20*time.Second))
			if err != nil {
				t.Error(err)
			}
			waited <- lock
		}()
		for b.Stats().Waiting == 0 {
			time.Sleep(time.Millisecond)
		}
		must(t, first.Unlock())
		wantErr(t, first.Unlock(), pglock.ErrNotHeld)
		second := <-waited
		if second == nil {
			return
		}
		if second.Token() <= first.Token() {
			t.Errorf("token %d after %d", second.Token(), first.Token())
		}
		must(t, second.Unlock())
		if owner, token := d.lease(key.LeaseName()); owner != "" || token != second.Token() {
			t.Errorf("after the release the table says %q, %d", owner, token)
		}
		held, err := a.Holders(t.Context(), key)
		must(t, err)
		if len(held) > 0 {
			t.Errorf("holders: %v", held)
		}
	})
}

// Without its tables, a Locker says so.
func TestLeaseNotInstalled(t *testing.T) {
	everySource(t, func(t *testing.T, d *db) {
		locker := leaseLocker(t, d.source())
		_, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
		wantErr(t, err, pglock.ErrNotInstalled)
		if !strings.Contains(err.Error(), "pglock install") {
			t.Error(err)
		}
	})
}

// A lease survives the loss of every connection.
func TestLeaseSurvivesItsConnection(t *testing.T) {
	everyPath(t, func(t *testing.T, d *db, source driver.Source) {
		locker := leaseLocker(t, source)
		lock, err := locker.Lock(t.Context(), pglock.Name(t.Name()), pglock.Wait(10*time.Second))
		must(t, err)
		for range 3 {
			d.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
			other, err := locker.Lock(t.Context(), pglock.Name(t.Name()+" other"), pglock.Wait(10*time.Second))
			must(t, err)
			must(t, other.Unlock())
		}
		must(t, lock.Err())
		must(t, lock.Unlock())
	})
}

// Several leases of one session that has expired are taken over together.
func TestLeasesOfAnExpiredSession(t *testing.T) {
	everySource(t, func(t *testing.T, d *db) {
		d.installLeases()
		d.exec(`INSERT INTO pglock.session (id, until) VALUES ('gone', now() - interval '1 s');
			INSERT INTO pglock.lease (name, token, owner) VALUES ('a', 1, 'gone'), ('b', 2, 'gone'), ('c', 3, 'never')`)
		locks, err := leaseLocker(t, d.source()).LockAll(t.Context(), []pglock.Key{pglock.Name("a"), pglock.Name("b"), pglock.Name("c")}, pglock.NoWait())
		must(t, err)
		must(t, locks.Unlock())
	})
}

// If another process has ended the session, its holders are notified.
func TestLeaseEnded(t *testing.T) {
	everySource(t, func(t *testing.T, d *db) {
		d.installLeases()
		locker := leaseLocker(t, d.source())
		lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
		must(t, err)
		d.exec("UPDATE pglock.session SET until = '-infinity'")
		select {
		case <-lock.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("not notified")
		}
		wantErr(t, lock.Err(), pglock.ErrLost)
		wantErr(t, lock.Unlock(), pglock.ErrLost)
		again, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
		must(t, err)
		if again.Token() <= lock.Token() {
			t.Errorf("token %d after %d", again.Token(), lock.Token())
		}
		must(t, again.Unlock())
	})
}

// All leases of a process that was killed can be taken at once when they have expired.
func TestLeasesOfTheDead(t *testing.T) {
	everyPath(t, func(t *testing.T, d *db, source driver.Source) {
		keys := []pglock.Key{pglock.Name(t.Name()), pglock.Int(1), pglock.Pair(1, 2)}
		for _, key := range keys {
			d.exec("INSERT INTO pglock.session (id, until) VALUES ('dead', clock_timestamp()) ON CONFLICT (id) DO UPDATE SET until = EXCLUDED.until")
			d.exec("INSERT INTO pglock.lease (name, token, owner) VALUES ('" + key.LeaseName() + "', 1, 'dead') ON CONFLICT (name, slot) DO UPDATE SET owner = EXCLUDED.owner")
		}
		locks, err := leaseLocker(t, source).LockAll(t.Context(), keys, pglock.Wait(10*time.Second))
		must(t, err)
		must(t, locks.Unlock())
	})
}

// A fence keeps others from taking the lease over until the transaction ends, but not from
// renewing it. It fails as soon as somebody else has taken it.
func TestFence(t *testing.T) {
	t.Parallel()
	for _, isolation := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(isolation), func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.installLeases()
			a, b := leaseLocker(t, d.source()), leaseLocker(t, d.source())
			key := pglock.Name("a")
			lock, err := a.Lock(t.Context(), key)
			must(t, err)
			conn, err := pgx.Connect(t.Context(), d.dsn)
			must(t, err)
			defer conn.Close(context.Background())
			wantErr(t, pglock.Fence(t.Context(), pgxlock.Conn(conn), lock), pglock.ErrNoTransaction)

			tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: isolation})
			must(t, err)
			must(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), lock))
			// Its session ends, but the fenced transaction is not overtaken.
			d.exec("UPDATE pglock.session SET until = '-infinity'")
			<-lock.Done()
			_, err = b.TryLock(t.Context(), key)
			wantErr(t, err, pglock.ErrNotAcquired)
			must(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), lock))
			must(t, tx.Commit(t.Context()))

			// A transaction whose snapshot is older than the takeover does not pass.
			tx, err = conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: isolation})
			must(t, err)
			_, err = tx.Exec(t.Context(), "SELECT count(*) FROM pglock.lease")
			must(t, err)
			next, err := b.Lock(t.Context(), key, pglock.Wait(10*time.Second))
			must(t, err)
			wantErr(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), lock), pglock.ErrLost)
			must(t, tx.Rollback(t.Context()))
			tx, err = conn.Begin(t.Context())
			must(t, err)
			wantErr(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), lock), pglock.ErrLost)
			must(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), next))
			var fenced bool
			must(t, tx.QueryRow(t.Context(), "SELECT pglock.fence('a', $1)", next.Token()).Scan(&fenced))
			if !fenced {
				t.Error("the function does not agree")
			}
			must(t, tx.Rollback(t.Context()))
			must(t, next.Unlock())
		})
	}
}

// The names under which leases are stored differ if their keys do.
func TestLeaseNames(t *testing.T) {
	t.Parallel()
	seen := map[string]pglock.Key{}
	for _, key := range []pglock.Key{
		pglock.Name("a"), pglock.Name("#7"), pglock.Int(7), pglock.Pair(1, 2), pglock.Name("#1,2"), pglock.Name("##7"),
		pglock.Name(""), pglock.Name("a\x00"), pglock.Name("\xff"), pglock.Name(strings.Repeat("ä", 300)), pglock.Name("ä{}\"'\\,"),
		pglock.Name("#sha256:" + fmt.Sprintf("%064d", 0)), pglock.Int(-1), pglock.Pair(-1, -1), pglock.Name("#version"),
	} {
		name := key.LeaseName()
		if other, ok := seen[name]; ok {
			t.Errorf("%v and %v are both %q", key, other, name)
		}
		seen[name] = key
	}
	d := newDB(t)
	d.installLeases()
	locker := leaseLocker(t, d.source())
	for name, key := range seen {
		lock, err := locker.Lock(t.Context(), key, pglock.Wait(10*time.Second))
		must(t, err)
		if owner, token := d.lease(name); owner == "" || token != lock.Token() {
			t.Errorf("%q: the table says %q, %d, not %d", name, owner, token, lock.Token())
		}
		must(t, lock.Unlock())
	}
}

// A name or a note that the encoding of the database does not have is refused, and the requests
// that are sent with it are not.
func TestLeaseEncoding(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	var name string
	must(t, d.conn.QueryRow(t.Context(), "SELECT current_database() || '_latin1'").Scan(&name))
	d.exec("CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'")
	server := pgtest.Server(t)
	t.Cleanup(func() {
		if err := server.DropDatabase(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	latin := databaseAt(t, server.ConnString(name))
	latin.installLeases()
	locker := leaseLocker(t, latin.source())
	must(t, locker.Do(t.Context(), pglock.Name("first"), func(context.Context) error { return nil }))

	type result struct {
		lock *pglock.Lock
		err  error
	}
	const n = 100
	results := make(chan result, n)
	for i := range n {
		go func() {
			lock, err := locker.Lock(t.Context(), pglock.Name(fmt.Sprintf("Zürich %d", i)), pglock.Wait(20*time.Second), pglock.Note("ä"))
			results <- result{lock, err}
		}()
	}
	refused := map[string][]pglock.LockOption{"東京": nil, "Genève": {pglock.Note("東京")}}
	for name, opts := range refused {
		_, err := locker.Lock(t.Context(), pglock.Name(name), append(opts, pglock.Wait(20*time.Second))...)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "22P05" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range n {
		r := <-results
		must(t, r.err)
		must(t, r.lock.Unlock())
	}
}

// The statements of leases work at every isolation level: what Postgres cannot serialize is tried
// again. pglock itself asks for READ COMMITTED, which distributed databases do not all have.
func TestLeaseIsolation(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.installLeases()
			source := &isolatedSource{Source: d.source(), isolation: isolation}
			const processes, goroutines, rounds = 3, 4, 15
			keys := []pglock.Key{pglock.Name("a"), pglock.Name("b")}
			var holders [2]atomic.Int32
			var tokens [2]atomic.Int64
			var wg sync.WaitGroup
			for range processes {
				locker := leaseLocker(t, source)
				for g := range goroutines {
					wg.Go(func() {
						for round := range rounds {
							i := (g + round) % len(keys)
							lock, err := locker.Lock(t.Context(), keys[i], pglock.Wait(time.Minute))
							if err != nil {
								t.Error(err)
								return
							}
							if n := holders[i].Add(1); n != 1 {
								t.Errorf("%v has %d holders", keys[i], n)
							}
							if last := tokens[i].Swap(lock.Token()); last >= lock.Token() {
								t.Errorf("%v has token %d after %d", keys[i], lock.Token(), last)
							}
							holders[i].Add(-1)
							if err := lock.Unlock(); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
			}
			wg.Wait()
			t.Logf("%d statements, of which %d could not be serialized", source.statements.Load(), source.failures.Load())
			if source.statements.Load() == 0 {
				t.Error("no statement has run")
			}
		})
	}
}

// An isolatedSource opens sessions in which each statement runs at an isolation level.
type isolatedSource struct {
	driver.Source
	isolation            string
	statements, failures atomic.Int64
}

func (s *isolatedSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return isolatedSession{session, s}, nil
}

type isolatedSession struct {
	driver.Session
	source *isolatedSource
}

func (s isolatedSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if err := s.Exec(ctx, "SET default_transaction_isolation = '"+s.source.isolation+"'"); err != nil {
		return "", err
	}
	if level, err := s.Session.QueryText(ctx, "SELECT pg_catalog.current_setting('transaction_isolation')"); err != nil || level != s.source.isolation {
		return "", fmt.Errorf("the isolation level is %q: %w", level, err)
	}
	s.source.statements.Add(1)
	reply, err := s.Session.QueryText(ctx, sql, args...)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "40001" {
		s.source.failures.Add(1)
	}
	return reply, err
}
