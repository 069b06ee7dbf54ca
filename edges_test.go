package pglock_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// Edge cases: servers that do not reply, or reply incorrectly.

// silent returns the address of a server that accepts connections and never replies.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
		for _, conn := range conns {
			conn.Close()
		}
	})
	return listener.Addr().String()
}

func dsnOf(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
}

// A server that does not reply has not refused the lock, so the work is not skipped, and
// the call returns within its time limit.
func TestSilenceIsNoRefusal(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]driver.Source{
		"pgx":                  pgxlock.ConnString(dsnOf(silent(t))),
		"database/sql, pgx":    sqllock.ConnString("pgx", dsnOf(silent(t))),
		"database/sql, lib/pq": sqllock.ConnString("postgres", dsnOf(silent(t))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := false
			work := func(context.Context) error { ran = true; return nil }
			keys := []pglock.Key{pglock.Name("a"), pglock.Name("b")}
			wait := pglock.Wait(300 * time.Millisecond)
			ctx := t.Context()
			for call, f := range map[string]func(*pglock.Locker) error{
				"Do":           func(l *pglock.Locker) error { return l.Do(ctx, keys[0], work, wait, pglock.SkipIfHeld()) },
				"Do, no wait":  func(l *pglock.Locker) error { return l.Do(ctx, keys[0], work, pglock.NoWait(), pglock.SkipIfHeld()) },
				"DoAll":        func(l *pglock.Locker) error { return l.DoAll(ctx, keys, work, wait, pglock.SkipIfHeld()) },
				"Lock":         func(l *pglock.Locker) error { _, err := l.Lock(ctx, keys[0], wait); return err },
				"Lock, shared": func(l *pglock.Locker) error { _, err := l.Lock(ctx, keys[0], wait, pglock.Shared()); return err },
				"Lock, no wait": func(l *pglock.Locker) error {
					_, err := l.Lock(ctx, keys[0], pglock.NoWait())
					return err
				},
				"TryLock": func(l *pglock.Locker) error { _, err := l.TryLock(ctx, keys[0]); return err },
				"LockAll": func(l *pglock.Locker) error { _, err := l.LockAll(ctx, keys, wait); return err },
				"LockAll, no wait": func(l *pglock.Locker) error {
					_, err := l.LockAll(ctx, keys, pglock.NoWait())
					return err
				},
				"Lock, deadline": func(l *pglock.Locker) error {
					ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
					defer cancel()
					_, err := l.Lock(ctx, keys[0])
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("ctx ended the call: %v", err)
					}
					return err
				},
				"Holders": func(l *pglock.Locker) error { _, err := l.Holders(ctx, keys[0]); return err },
			} {
				t.Run(call, func(t *testing.T) {
					t.Parallel()
					locker := newLocker(t, source)
					began := time.Now()
					err := f(locker)
					wantErr(t, err, pglock.ErrUnavailable)
					if errors.Is(err, pglock.ErrNotAcquired) || ran {
						t.Errorf("want an error that is not a refusal: %v; the work ran: %v", err, ran)
					}
					most := 2 * time.Second // 300 ms on a slow machine
					if strings.Contains(call, "no wait") || call == "TryLock" || call == "Holders" {
						most = 10 * time.Second
					}
					if took := time.Since(began); took > most {
						t.Errorf("it took %v", took)
					}
				})
			}
		})
	}
}

// If the first connection takes longer than the wait, that is not a refusal either, and
// the connection serves the next call.
func TestSlowConnectionIsNoRefusal(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.Database(t))
	must(t, err)
	dial, let := config.DialFunc, make(chan struct{})
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return dial(ctx, network, address)
	}
	locker := newLocker(t, pgxlock.Config(config))
	ran := false
	err = locker.Do(t.Context(), pglock.Name("job"), func(context.Context) error { ran = true; return nil },
		pglock.Wait(50*time.Millisecond), pglock.SkipIfHeld())
	wantErr(t, err, pglock.ErrUnavailable)
	if errors.Is(err, pglock.ErrNotAcquired) || ran {
		t.Errorf("want an error that is not a refusal: %v; the work ran: %v", err, ran)
	}
	close(let)
	must(t, lock(t, locker, pglock.Name("job")).Unlock())
}

// If a session ends while its lock is held, and another session then holds the lock,
// Unlock never reports that the lock was held until the end, whatever detects the loss.
func TestLossIsNeverAnUnconfirmedUnlock(t *testing.T) {
	everySource(t, testLossIsNeverAnUnconfirmedUnlock)
}

func testLossIsNeverAnUnconfirmedUnlock(t *testing.T, d *db) {
	key := pglock.Name("job")
	hold := func(how string, opts []pglock.LockOption, end func(*pglock.Lock) error) {
		// A holder that is not notified of the loss before it unlocks.
		locker := d.locker(pglock.Heartbeat(time.Hour))
		held := must1(locker.Lock(t.Context(), key, opts...))
		d.terminate(held.PID())
		d.until(`SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase + `)`)
		d.wantAvailable(key, true)
		err := end(held)
		if !errors.Is(err, pglock.ErrLost) || errors.Is(err, pglock.ErrUnconfirmed) {
			t.Errorf("%s: another session has held it since, and the error is %v", how, err)
		}
		must(t, locker.Close())
	}
	hold("exclusive", nil, (*pglock.Lock).Unlock)
	hold("shared", []pglock.LockOption{pglock.Shared()}, (*pglock.Lock).Unlock)

	// Handed over within the process: the previous holder is notified, no matter who holds it
	// next.
	locker := d.locker(pglock.Heartbeat(time.Hour), engine.HandOver(time.Hour))
	first, second := lock(t, locker, key, pglock.Shared()), lock(t, locker, key, pglock.Shared())
	d.terminate(first.PID())
	d.until(`SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase + `)`)
	d.untilUnconfirmed()
	for _, held := range []*pglock.Lock{first, second} {
		if err := held.Unlock(); !errors.Is(err, pglock.ErrLost) {
			t.Errorf("one of two shared holders of a lost lock: %v", err)
		}
	}
	exclusive := lock(t, locker, key)
	next := make(chan error, 1)
	go func() {
		held, err := locker.Lock(context.Background(), key)
		if err == nil {
			err = held.Unlock()
		}
		next <- err
	}()
	for locker.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	d.terminate(exclusive.PID())
	d.until(`SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = $1 AND `+inThisDatabase+`)`, exclusive.PID())
	d.untilUnconfirmed()
	if err := exclusive.Unlock(); !errors.Is(err, pglock.ErrLost) {
		t.Errorf("the holder that handed over a lost lock: %v", err)
	}
	if err := <-next; err != nil && !errors.Is(err, pglock.ErrLost) {
		t.Error(err)
	}
}

// untilUnconfirmed waits until no confirmation of Postgres that came before the call counts:
// one may be up to 2 ms old.
func (d *db) untilUnconfirmed() {
	d.t.Helper()
	var called time.Time
	d.scan(&called, `SELECT clock_timestamp()`)
	d.until(`SELECT clock_timestamp() > $1::timestamptz + '10 ms'::interval`, called)
}

// fakeServer is a proxy in front of Postgres that replaces the calls of locking functions.
// It imitates a server that speaks the protocol and has no advisory locks.
func fakeServer(t *testing.T, dsn string) string {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	must(t, err)
	network, address := "tcp", net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	if strings.HasPrefix(config.Host, "/") {
		network, address = "unix", fmt.Sprintf("%s/.s.PGSQL.%d", config.Host, config.Port)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address)
			if err != nil {
				client.Close()
				continue
			}
			wg.Go(func() { _, _ = io.Copy(client, server); client.Close(); server.Close() })
			wg.Go(func() { _ = replaceCalls(server, client); client.Close(); server.Close() })
		}
	})
	t.Cleanup(func() { listener.Close(); wg.Wait() })
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable", host, port, config.User, config.Database)
}

// replaceCalls copies a client's messages, with other functions in the statements.
func replaceCalls(server io.Writer, client io.Reader) error {
	for first := true; ; first = false {
		header := make([]byte, 5)
		if first { // the startup message has no type
			header = header[:4]
		}
		if _, err := io.ReadFull(client, header); err != nil {
			return err
		}
		size := header[len(header)-4:]
		body := make([]byte, binary.BigEndian.Uint32(size)-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return err
		}
		if !first && (header[0] == 'Q' || header[0] == 'P') {
			body = []byte(strings.NewReplacer("pg_catalog.pg_try_advisory_", "standin.pg_try_advisory_",
				"pg_catalog.pg_advisory_", "standin.pg_advisory_").Replace(string(body)))
			binary.BigEndian.PutUint32(size, uint32(len(body)+4))
		}
		if _, err := server.Write(append(header, body...)); err != nil {
			return err
		}
	}
}

// A server that returns true for every lock and unlock, or rejects the functions, is
// detected before any lock is reported as held, and the error contains its version.
func TestServersWithoutAdvisoryLocks(t *testing.T) {
	t.Parallel()
	for kind, body := range map[string]string{
		"says yes":     `BEGIN RETURN true; END`,
		"refuses":      `BEGIN RAISE feature_not_supported; END`,
		"never grants": `BEGIN RETURN false; END`,
	} {
		d := newDB(t)
		d.exec(`CREATE SCHEMA standin`)
		for _, function := range []string{"pg_try_advisory_lock", "pg_advisory_unlock", "pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"} {
			for _, args := range []string{"bigint", "int, int"} {
				d.exec(fmt.Sprintf(`CREATE FUNCTION standin.%s(%s) RETURNS boolean LANGUAGE plpgsql AS $$%s$$`, function, args, body))
			}
		}
		dsn := fakeServer(t, d.dsn)
		for name, source := range map[string]driver.Source{
			"pgx": pgxlock.ConnString(dsn), "database/sql, lib/pq": sqllock.ConnString("postgres", dsn),
		} {
			locker := newLocker(t, source)
			for range 2 {
				_, err := locker.TryLock(t.Context(), pglock.Name("job"))
				wantErr(t, err, pglock.ErrNoAdvisoryLocks)
				if errors.Is(err, pglock.ErrNotAcquired) || !strings.Contains(err.Error(), "PostgreSQL") {
					t.Errorf("%s, %s: the error does not name the server: %v", kind, name, err)
				}
			}
		}
	}
}

// openLimited opens an application's pool with at most n connections.
func openLimited(t *testing.T, driverName, dsn string, n int) *sql.DB {
	pool := openSQL(t, driverName, dsn)
	pool.SetMaxOpenConns(n)
	return pool
}

// If no second session can be opened, the request waits on the existing session until its
// time limit.
func TestWaitGoesOnWithoutASecondSession(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	d := newDB(t)
	role := "limited_" + d.name()
	d.exec(`CREATE ROLE ` + role + ` LOGIN CONNECTION LIMIT 1`)
	t.Cleanup(func() { d.exec(`DROP ROLE ` + role) })
	limited := strings.Replace(d.dsn, "user=postgres", "user="+role, 1)
	if limited == d.dsn {
		t.Fatalf("no user in %s", d.dsn)
	}
	two := openLimited(t, "pgx", d.dsn, 2)
	apps := must1(two.Conn(t.Context()))
	t.Cleanup(func() { apps.Close() })
	for name, source := range map[string]driver.Source{
		"CONNECTION LIMIT 1, pgx":      pgxlock.ConnString(limited),
		"CONNECTION LIMIT 1, lib/pq":   sqllock.ConnString("postgres", limited),
		"SetMaxOpenConns(1)":           sqllock.DB(openLimited(t, "pgx", d.dsn, 1)),
		"SetMaxOpenConns(1), lib/pq":   sqllock.DB(openLimited(t, "postgres", d.dsn, 1)),
		"one of two with the caller's": sqllock.DB(two),
	} {
		t.Run(name, func(t *testing.T) {
			locker := newLocker(t, source)
			must(t, lock(t, locker, pglock.Name("first")).Unlock())
			mine := lock(t, locker, pglock.Name("mine")) // so its session holds a lock
			d.exec(`SELECT 1`)
			other := newLocker(t, pgxlock.ConnString(d.dsn))
			theirs := lock(t, other, key)
			got := make(chan error, 1)
			go func() {
				held, err := locker.Lock(context.Background(), key)
				if err == nil {
					err = held.Unlock()
				}
				got <- err
			}()
			// Longer than any attempt to open a second session.
			for until := time.Now().Add(6 * time.Second); time.Now().Before(until); {
				select {
				case err := <-got:
					t.Fatalf("the wait ended: %v", err)
				case <-time.After(50 * time.Millisecond):
				}
				must(t, lock(t, locker, pglock.Name("another")).Unlock()) // others are served
			}
			must(t, theirs.Unlock())
			must(t, <-got)
			must(t, mine.Unlock())
			must(t, locker.Close())
		})
	}
}

// A transaction waits for a lock held by a Locker of the same process: Postgres cannot
// see that, but the error reports it. Locks of other processes are not reported as own.
func TestLockTxOfALockOfThisProcess(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	key := pglock.Name("job")
	locker := d.locker()
	inTx := func(key pglock.Key) error {
		conn := must1(pgx.Connect(t.Context(), d.dsn))
		defer conn.Close(context.Background())
		tx := must1(conn.Begin(t.Context()))
		return pglock.LockTx(t.Context(), pgxlock.Tx(tx), key, pglock.Wait(10*time.Millisecond))
	}
	own := func(err error) bool {
		var e *pglock.Error
		wantErr(t, err, pglock.ErrNotAcquired)
		if !errors.As(err, &e) || len(e.Holders) != 1 {
			t.Fatalf("the error has no holder: %v", err)
		}
		return e.Holders[0].Own && strings.Contains(err.Error(), "a Locker in this process")
	}
	must(t, locker.Do(t.Context(), key, func(context.Context) error {
		if err := inTx(key); !own(err) {
			t.Errorf("the error does not report that this process holds it: %v", err)
		}
		return nil
	}))
	other := pglock.Int(4711)
	d.exec(`SELECT pg_advisory_lock($1)`, other.ID())
	if err := inTx(other); own(err) {
		t.Errorf("the lock of a plain client is reported as own: %v", err)
	}
	must(t, locker.Close())
	must(t, inTx(key))
}
