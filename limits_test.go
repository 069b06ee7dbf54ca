package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// databaseOn returns a database of a test's own server.
func databaseOn(t *testing.T, server *pgserver.Server) *db {
	t.Helper()
	return databaseAt(t, server.ConnString("postgres"))
}

func newLocker(t *testing.T, source driver.Source, opts ...pglock.LockerOption) *pglock.Locker {
	t.Helper()
	locker, err := pglock.New(source, opts...)
	must(t, err)
	t.Cleanup(func() { locker.Close() })
	return locker
}

func (d *db) name() (name string) {
	d.t.Helper()
	d.scan(&name, `SELECT current_database()`)
	return name
}

// wantRefusal checks that err is want and not ErrNotAcquired, and that its text contains
// all of says.
func wantRefusal(t *testing.T, err, want error, says ...string) {
	t.Helper()
	if want != nil {
		wantErr(t, err, want)
	}
	if err == nil || errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("got error %v, which reports another holder", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
}

func ints(n int) []pglock.Key {
	keys := make([]pglock.Key, n)
	for i := range keys {
		keys[i] = pglock.Int(int64(1000 + i))
	}
	return keys
}

// The server has no room for more locks: existing locks stay valid, failed requests leave
// none behind, and there is room again after an unlock.
func TestLockTableFull(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"max_locks_per_transaction": "10", "max_connections": "12", "max_prepared_transactions": "0",
	}})
	d := databaseOn(t, server)
	locker := d.locker()
	key := pglock.Name("job")
	held := lock(t, locker, key)

	// The observing session needs room for its own locks, so it uses as few as possible.
	count := func() (n int) {
		d.scan(&n, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'`)
		return n
	}

	before := locker.Stats().RoundTrips
	_, err := locker.LockAll(t.Context(), ints(20_000))
	wantRefusal(t, err, pglock.ErrLockTableFull, "max_locks_per_transaction", "53200")
	if n := count(); n != 1 {
		t.Errorf("%d locks are held, want only the first one", n)
	}
	if n := locker.Stats().RoundTrips - before; n > 100 {
		t.Errorf("it took %d round trips to find that there is no room", n)
	}

	// Fill the lock table, and request one more lock with each function.
	var all []*pglock.Lock
	taken := 0
	for n := 1000; n > 0; {
		lock, err := locker.LockAll(t.Context(), ints(20_000)[taken:taken+n])
		if err != nil {
			wantRefusal(t, err, pglock.ErrLockTableFull)
			n /= 2
			continue
		}
		all = append(all, lock)
		taken += n
	}
	_, err = locker.TryLock(t.Context(), pglock.Name("more"))
	wantRefusal(t, err, pglock.ErrLockTableFull)
	_, err = locker.Lock(t.Context(), pglock.Name("more"))
	wantRefusal(t, err, pglock.ErrLockTableFull)
	err = locker.Do(t.Context(), pglock.Pair(1, 2), func(context.Context) error { t.Error("it ran"); return nil }, pglock.SkipIfHeld())
	wantRefusal(t, err, pglock.ErrLockTableFull)
	if n := count(); n != taken+1 {
		t.Errorf("%d locks are held, not %d", n, taken+1)
	}
	must(t, held.Err())
	for _, lock := range all {
		must(t, lock.Unlock())
	}
	must(t, lock(t, locker, pglock.Name("more")).Unlock())
	d.wantAvailable(key, false)
	must(t, held.Unlock())
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}

// The server has no free connection. Held locks stay held.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"max_connections": "8"}})
	d := databaseOn(t, server)
	holder, locker := d.locker(), d.locker()
	key := pglock.Name("job")
	held := lock(t, holder, key)

	var others []*pgx.Conn
	for {
		conn, err := pgx.Connect(t.Context(), d.dsn)
		if err != nil {
			break
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		others = append(others, conn)
	}
	_, err := locker.Lock(t.Context(), pglock.Name("other"))
	wantRefusal(t, err, pglock.ErrUnavailable, "53300")
	_, err = locker.TryLock(t.Context(), pglock.Name("other"))
	wantRefusal(t, err, pglock.ErrUnavailable, "53300")

	// A Locker with a session can continue, unless it must wait for a lock.
	must(t, lock(t, holder, pglock.Name("other")).Unlock())
	must(t, held.Err())
	if n := d.held(); n != 1 {
		t.Errorf("%d locks are held", n)
	}

	for _, conn := range others {
		must(t, conn.Close(context.Background()))
	}
	d.until(`SELECT count(*) < 4 FROM pg_stat_activity WHERE backend_type = 'client backend'`)
	must(t, lock(t, locker, pglock.Name("other")).Unlock())
	must(t, held.Unlock())
	d.wantAvailable(key, true)
}

// CREATE INDEX CONCURRENTLY waits for a statement that waits in Postgres. If the holder
// of the lock runs it, that is a deadlock. Waiting in slices prevents it, unless a slice
// is longer than Postgres' deadlock_timeout.
func TestConcurrentIndexOfTheHolder(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE t (n int)`)
	for _, slice := range []time.Duration{0, 3 * time.Second} {
		var opts []pglock.LockerOption
		if slice > 0 {
			opts = append(opts, engine.Slice(slice))
		}
		locker := d.locker(opts...)
		key := pglock.Name("job")
		holder, err := pgx.Connect(t.Context(), d.dsn)
		must(t, err)
		defer holder.Close(context.Background())
		_, err = holder.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, key.ID())
		must(t, err)
		// Either session may detect a deadlock. It should be ours, which waits only for
		// its slice; on a slow machine with a long slice, it could be the holder.
		_, err = holder.Exec(t.Context(), `SET deadlock_timeout = '1min'`)
		must(t, err)
		type outcome struct {
			lock *pglock.Lock
			err  error
		}
		got := make(chan outcome, 1)
		go func() {
			lock, err := locker.Lock(context.Background(), key)
			got <- outcome{lock, err}
		}()
		d.untilWaiting(1, key)
		_, err = holder.Exec(t.Context(), `CREATE INDEX CONCURRENTLY ON t (n)`)
		must(t, err)
		if slice == 0 {
			_, err = holder.Exec(t.Context(), `SELECT pg_advisory_unlock($1)`, key.ID())
			must(t, err)
			second := <-got
			must(t, second.err)
			must(t, second.lock.Unlock())
		} else {
			wantRefusal(t, (<-got).err, pglock.ErrDeadlock, "40P01")
			must(t, holder.Close(context.Background()))
			must(t, lock(t, locker, key).Unlock())
		}
		d.wantAvailable(key, true)
		must(t, locker.Close())
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// A standby grants no locks, since they would not exclude sessions on the primary. After
// promotion it does. A connection string with both hosts finds the primary.
func TestStandbyAndFailover(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, pgserver.Options{})
	standby := pgtest.Standby(t, primary)
	key := pglock.Name("job")
	onStandby := databaseOn(t, standby)
	locker := onStandby.locker()
	for range 2 {
		_, err := locker.Lock(t.Context(), key)
		wantRefusal(t, err, pglock.ErrStandby, "target_session_attrs=read-write")
	}
	if n := onStandby.held(); n != 0 {
		t.Errorf("%d locks are held on the standby", n)
	}

	either := newLocker(t, source(t, fmt.Sprintf("host=%s,%s user=postgres dbname=postgres sslmode=disable target_session_attrs=read-write",
		standby.Host(), primary.Host())))
	held := lock(t, either, key)
	databaseOn(t, primary).wantAvailable(key, false)

	// The primary's machine fails. The lock was only in its memory.
	must(t, primary.Kill())
	<-held.Done()
	wantErr(t, held.Err(), pglock.ErrLost)
	onStandby.exec(`SELECT pg_promote()`)
	onStandby.wantAvailable(key, true)
	held = lock(t, either, key)
	_, err := locker.Lock(t.Context(), key, pglock.NoWait())
	wantErr(t, err, pglock.ErrNotAcquired)
	must(t, held.Unlock())
	must(t, lock(t, locker, key).Unlock())
}

// A server that is starting, in recovery without accepting connections, or shutting down.
func TestServerNotReady(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	dsn := server.ConnString("postgres")
	locker := newLocker(t, source(t, dsn))
	key := pglock.Name("job")
	held := lock(t, locker, key)

	// It waits for existing clients, and rejects new ones.
	down := make(chan error, 1)
	go func() { down <- server.Shutdown(context.Background(), pgserver.Smart) }()
	for refused := false; !refused; {
		conn, err := pgx.Connect(t.Context(), dsn)
		if refused = err != nil; !refused {
			conn.Close(t.Context())
		}
	}
	other := newLocker(t, source(t, dsn))
	_, err := other.Lock(t.Context(), key)
	wantRefusal(t, err, pglock.ErrUnavailable, "57P03")
	must(t, held.Err())
	must(t, held.Unlock())
	must(t, locker.Close())
	must(t, <-down)

	_, err = other.Lock(t.Context(), key) // by now there is no socket
	wantRefusal(t, err, pglock.ErrUnavailable)

	// In recovery, without accepting connections.
	data := filepath.Join(server.Folder(), "data")
	run(t, "/bin/sh", "-c", `cp -p "$1/PG_VERSION" "$1/standby.signal" && echo "hot_standby = off" >>"$1/postgresql.conf"`, "sh", data)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := server.Restart(ctx); err == nil {
		t.Fatal("the server accepts connections")
	}
	for sqlState(err) != "57P03" { // until the server listens
		_, err = other.Lock(t.Context(), key)
		wantRefusal(t, err, pglock.ErrUnavailable)
	}

	must(t, os.Remove(filepath.Join(data, "standby.signal")))
	must(t, server.Restart(t.Context()))
	must(t, lock(t, other, key).Unlock())
}

// A missing permission is a separate error, which names it.
func TestPermission(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{HBA: []string{"local all locked scram-sha-256", "host all locked all scram-sha-256"}})
	d := databaseOn(t, server)
	d.exec(`CREATE ROLE app LOGIN; CREATE ROLE locked LOGIN PASSWORD 'right'`)
	d.exec(`CREATE DATABASE own`)
	d.exec(`REVOKE CONNECT ON DATABASE own FROM PUBLIC`)
	key := pglock.Name("job")

	_, err := newLocker(t, source(t, server.ConnString("postgres")+" user=locked password=wrong")).Lock(t.Context(), key)
	wantRefusal(t, err, pglock.ErrUnavailable, "28P01")
	if strings.Contains(err.Error(), "wrong") {
		t.Errorf("the error contains the password: %v", err)
	}
	must(t, lock(t, newLocker(t, source(t, server.ConnString("postgres")+" user=locked password=right")), key).Unlock())

	elsewhere := newLocker(t, source(t, server.ConnString("own")+" user=app"))
	_, err = elsewhere.Lock(t.Context(), key)
	wantRefusal(t, err, pglock.ErrUnavailable, "42501", `"own"`)
	d.exec(`GRANT CONNECT ON DATABASE own TO app`)
	must(t, lock(t, elsewhere, key).Unlock())
	must(t, elsewhere.Close())

	// Every role may take advisory locks, unless that is revoked.
	locker := newLocker(t, source(t, server.ConnString("postgres")+" user=app"))
	held := lock(t, locker, key)
	for function, opts := range map[string][]pglock.TryOption{
		"pg_try_advisory_lock(bigint)":        nil,
		"pg_try_advisory_lock_shared(bigint)": {pglock.Shared()},
	} {
		d.exec(`REVOKE EXECUTE ON FUNCTION ` + function + ` FROM PUBLIC`)
		_, err = locker.TryLock(t.Context(), pglock.Name("other"), opts...)
		wantRefusal(t, err, nil, "42501", "permission denied")
		_, err = locker.LockAll(t.Context(), ints(3), lockOptions(opts)...)
		wantRefusal(t, err, nil, "42501")
		must(t, held.Err())
		d.exec(`GRANT EXECUTE ON FUNCTION ` + function + ` TO PUBLIC`)
		must(t, lock(t, locker, pglock.Name("other"), lockOptions(opts)...).Unlock())
	}
	if n := d.held(); n != 1 {
		t.Errorf("%d locks are held", n)
	}
	d.exec(`REVOKE EXECUTE ON FUNCTION pg_advisory_lock(bigint) FROM PUBLIC`)
	other := d.locker() // as a superuser
	theirs := lock(t, other, pglock.Name("other"))
	_, err = locker.Lock(t.Context(), pglock.Name("other"))
	wantRefusal(t, err, nil, "42501")
	must(t, theirs.Unlock())
	d.exec(`GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC`)

	// It cannot be unlocked any more, so the session is closed, which releases the lock.
	d.exec(`REVOKE EXECUTE ON FUNCTION pg_advisory_unlock(bigint) FROM PUBLIC`)
	err = held.Unlock()
	wantErr(t, err, pglock.ErrUnconfirmed)
	wantRefusal(t, err, nil, "42501")
	d.until(`SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'`)
	d.exec(`GRANT EXECUTE ON FUNCTION pg_advisory_unlock(bigint) TO PUBLIC`)
	must(t, lock(t, locker, key).Unlock())
	d.wantAvailable(key, true)
}

// If no server listens at the address, the error comes at once; the Locker works when a
// server starts there.
func TestNoServer(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	for _, dsn := range []string{server.ConnString("postgres"), server.TCPConnString("postgres")} {
		locker := newLocker(t, source(t, dsn))
		key := pglock.Name("job")
		must(t, lock(t, locker, key).Unlock())
		must(t, server.Shutdown(t.Context(), pgserver.Fast))
		_, err := locker.Lock(t.Context(), key, pglock.Wait(time.Minute))
		wantRefusal(t, err, pglock.ErrUnavailable)
		err = locker.Do(t.Context(), key, func(context.Context) error { t.Error("it ran"); return nil }, pglock.SkipIfHeld())
		wantRefusal(t, err, pglock.ErrUnavailable)
		must(t, server.Restart(t.Context()))
		must(t, lock(t, locker, key).Unlock())
	}
	bad := newLocker(t, pgxlock.ConnString("host= = port"))
	_, err := bad.Lock(t.Context(), pglock.Name("job"))
	wantRefusal(t, err, pglock.ErrUnavailable, "parse")
}

// lockOptions returns options of TryLock as those of Lock.
func lockOptions(opts []pglock.TryOption) (all []pglock.LockOption) {
	for _, opt := range opts {
		all = append(all, opt)
	}
	return all
}
