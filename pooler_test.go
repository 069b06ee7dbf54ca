package pglock_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// pooled is a database behind a PgBouncer; the embedded db is a direct connection.
func pooled(t *testing.T, mode pgbouncer.Mode, settings ...string) (d *db, dsn string, bouncer *pgbouncer.Bouncer) {
	t.Helper()
	d = newDB(t)
	bouncer = pgbouncer.Start(t, pgtest.Server(t), mode, settings...)
	return d, bouncer.ConnString(d.name()), bouncer
}

// poolerSources returns every kind of Source for the pooler.
func poolerSources(t *testing.T, dsn string) map[string]driver.Source {
	t.Helper()
	return map[string]driver.Source{
		"pgx":                  pgxlock.ConnString(dsn),
		"database/sql, pgx":    sqllock.ConnString("pgx", dsn),
		"database/sql, lib/pq": sqllock.ConnString("postgres", dsn),
		"an application pool":  sqllock.DB(openSQL(t, "pgx", dsn)),
	}
}

// A pooler is refused in every mode, and the error says what to do.
func TestPoolerIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Session, pgbouncer.Statement} {
		d, dsn, _ := pooled(t, mode)
		for name, source := range poolerSources(t, dsn) {
			locker := newLocker(t, source)
			for range 3 { // the sessions behind the pooler are reused
				_, err := locker.Lock(t.Context(), pglock.Name("job"), pglock.Wait(5*time.Second))
				wantErr(t, err, pglock.ErrPooler)
				if errors.Is(err, pglock.ErrNotAcquired) {
					t.Errorf("%s, %s: a pooler is not a holder of the lock: %v", mode, name, err)
				}
				for _, advice := range []string{"directly", "transaction", "AllowPooler"} {
					if !strings.Contains(err.Error(), advice) {
						t.Errorf("%s, %s: the error does not mention %q: %v", mode, name, advice, err)
					}
				}
			}
			must(t, locker.Close())
		}
		if n := d.held(); n != 0 {
			t.Errorf("%s: %d locks are held", mode, n)
		}
	}
}

// A session pooler works like a direct connection if it is allowed.
func TestSessionPoolerAllowed(t *testing.T) {
	t.Parallel()
	d, dsn, _ := pooled(t, pgbouncer.Session)
	for name, source := range poolerSources(t, dsn) {
		t.Run(name, func(t *testing.T) {
			locker := newLocker(t, source, pglock.AllowPooler(), pglock.Heartbeat(time.Second))
			other := newLocker(t, pgxlock.ConnString(dsn), pglock.AllowPooler())
			key := pglock.Name("job")
			held := lock(t, locker, key)
			d.wantAvailable(key, false)
			_, err := other.TryLock(t.Context(), key)
			wantErr(t, err, pglock.ErrNotAcquired)
			got := make(chan *pglock.Lock)
			go func() {
				lock, err := other.Lock(context.Background(), key)
				if err != nil {
					t.Error(err)
				}
				got <- lock
			}()
			d.untilWaiting(1, key)
			must(t, held.Unlock())
			second := <-got
			d.wantAvailable(key, false)
			must(t, second.Unlock())
			d.wantAvailable(key, true)

			// The backend behind the pooler is terminated: the pooler closes our
			// connection.
			held = lock(t, locker, key)
			d.terminate(held.PID())
			<-held.Done()
			wantErr(t, held.Unlock(), pglock.ErrLost)
			must(t, lock(t, locker, key).Unlock())
			d.wantAvailable(key, true)
			must(t, locker.Close())
			must(t, other.Close())
		})
	}
}

// A transaction pooler that was allowed by mistake is detected, and two handles never
// claim the same lock.
func TestTransactionPoolerAllowedByMistake(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")

	// Both get the same session, to which Postgres grants the same lock twice.
	for _, name := range []string{"pgx", "database/sql, pgx", "database/sql, lib/pq"} {
		d, dsn, _ := pooled(t, pgbouncer.Transaction, "default_pool_size = 1")
		first := newLocker(t, poolerSources(t, dsn)[name], pglock.AllowPooler(), pglock.Heartbeat(500*time.Millisecond))
		held := lock(t, first, key)
		second := newLocker(t, poolerSources(t, dsn)[name], pglock.AllowPooler())
		_, err := second.TryLock(t.Context(), key)
		if held.Err() == nil && err == nil {
			t.Errorf("%s: there are two holders", name)
		}
		wantErr(t, err, pglock.ErrPooler)
		must(t, held.Unlock())
		d.wantAvailable(key, true)
		must(t, first.Close())
		must(t, second.Close())
	}
}

// If the pooler switches the session under a holder, the holder is notified.
func TestPoolerSwapsSessions(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	for _, name := range []string{"pgx", "database/sql, lib/pq"} {
		d, dsn, _ := pooled(t, pgbouncer.Transaction)
		locker := newLocker(t, poolerSources(t, dsn)[name], pglock.AllowPooler(), pglock.Heartbeat(4*time.Second))
		held := lock(t, locker, key)
		// Another client's transaction gets the session that holds the lock. The pooler
		// assigns the session used last, unless it is busy at the moment.
		var tx pgx.Tx
		for pid := int32(0); pid != held.PID(); {
			conn, err := pgx.Connect(t.Context(), dsn)
			must(t, err)
			defer conn.Close(context.Background())
			tx, err = conn.Begin(t.Context())
			must(t, err)
			must(t, tx.QueryRow(t.Context(), `SELECT pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&pid))
		}
		<-held.Done()
		wantErr(t, held.Err(), pglock.ErrLost)
		wantErr(t, held.Err(), pglock.ErrPooler)
		wantErr(t, held.Unlock(), pglock.ErrLost)
		must(t, tx.Rollback(t.Context()))
		must(t, locker.Close())
		d.terminate(held.PID()) // the lock stays there until the pooler closes the session
	}
}

// A pooler that resets sessions between transactions releases their locks: the backend
// stays the same, and the holder is still notified.
func TestPoolerResetsSessions(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	for _, reset := range []string{"DISCARD ALL", "RESET ALL; SELECT pg_advisory_unlock_all()"} {
		d, dsn, _ := pooled(t, pgbouncer.Transaction, "server_reset_query_always = 1", "server_reset_query = "+reset)
		locker := newLocker(t, pgxlock.ConnString(dsn), pglock.AllowPooler(), pglock.Heartbeat(time.Second))
		held, err := locker.Lock(t.Context(), key)
		if err == nil { // not detected at once
			<-held.Done()
			wantErr(t, held.Err(), pglock.ErrPooler)
			err = held.Unlock()
			wantErr(t, err, pglock.ErrLost)
		}
		wantErr(t, err, pglock.ErrPooler)
		d.wantAvailable(key, true)
		must(t, locker.Close())
	}
}

// The session is reset, or its prepared statements are gone, although the backend stays
// the same, as behind a pooler that cleans up between transactions. The holder is
// notified before the next statement can release the lock.
func TestSessionIsReset(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	for _, sql := range []string{"RESET ALL", "DEALLOCATE ALL"} {
		d := newDB(t)
		for name, source := range map[string]driver.Source{
			"pgx":                  pgxlock.ConnString(d.dsn),
			"database/sql, pgx":    sqllock.ConnString("pgx", d.dsn),
			"database/sql, lib/pq": sqllock.ConnString("postgres", d.dsn),
		} {
			var before atomic.Value
			before.Store("")
			locker := newLocker(t, meddler{source, &before}, pglock.Heartbeat(time.Second))
			held := lock(t, locker, key)
			before.Store(sql)
			select {
			case <-held.Done():
			case <-time.After(time.Minute):
				t.Fatalf("%s, %s: the holder is not notified", sql, name)
			}
			before.Store("")
			wantErr(t, held.Err(), pglock.ErrPooler)
			wantErr(t, held.Unlock(), pglock.ErrLost)
			d.until(`SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase + `)`)
			must(t, locker.Close())
		}
	}
}

// A meddler is a source whose sessions run another statement before each statement.
type meddler struct {
	driver.Source
	before *atomic.Value // a string
}

func (m meddler) Open(ctx context.Context) (driver.Session, error) {
	session, err := m.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return meddled{session, m.before}, nil
}

type meddled struct {
	driver.Session
	before *atomic.Value
}

func (m meddled) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if before := m.before.Load().(string); before != "" {
		if _, err := m.QueryTextSimple(ctx, before+"; SELECT 'done'"); err != nil {
			return "", err
		}
	}
	return m.Session.QueryText(ctx, sql, args...)
}

// If the driver does not report the PID from the protocol, pglock cannot know whether
// there is a pooler, so it refuses the session and leaves it unchanged. With AllowPooler,
// which relies on the user, a transaction pooler is still detected by its effects.
func TestPoolerBehindADriverWithoutPID(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	_, dsn, _ := pooled(t, pgbouncer.Transaction, "default_pool_size = 1")
	source := noPID{sqllock.ConnString("postgres", dsn)}
	before := stateOf(t, dsn)
	_, err := newLocker(t, source).TryLock(t.Context(), key)
	wantErr(t, err, pglock.ErrPooler)
	if after := stateOf(t, dsn); after != before {
		t.Errorf("the pooled session was\n%s\nand is\n%s", before, after)
	}

	first := newLocker(t, source, pglock.AllowPooler())
	second := newLocker(t, source, pglock.AllowPooler())
	held, err := first.Lock(t.Context(), key)
	must(t, err) // there is no other client, and nothing is wrong yet
	_, err = second.TryLock(t.Context(), key)
	wantErr(t, err, pglock.ErrPooler)
	must(t, held.Unlock())
}

// stateOf returns what other clients left on the session that a plain client of a pooler
// gets: its settings, prepared statements, locks and temporary objects, as reported by
// Postgres.
func stateOf(t *testing.T, dsn string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn+" default_query_exec_mode=simple_protocol")
	must(t, err)
	defer conn.Close(context.Background())
	var state string
	must(t, conn.QueryRow(t.Context(), `SELECT concat_ws(E'\n', pg_backend_pid(),
		(SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session'),
		(SELECT string_agg(statement, '; ') FROM pg_prepared_statements),
		(SELECT string_agg(locktype || ' ' || mode, ' ') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
		(SELECT string_agg(relname, ' ') FROM pg_class WHERE pg_table_is_visible(oid) AND relpersistence = 't'),
		current_setting('pglock.session', true))`).Scan(&state))
	return state
}

// A pooled session is refused unchanged: no setting, prepared statement or lock stays on
// it, and the next client's statement works.
func TestRefusedSessionIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement, pgbouncer.Session} {
		d, dsn, _ := pooled(t, mode, "default_pool_size = 1", "server_reset_query =")
		d.exec(`CREATE SCHEMA app; CREATE TABLE app.orders (id int); ALTER ROLE postgres IN DATABASE ` + d.name() + ` SET search_path = app`)
		before := stateOf(t, dsn)
		for name, source := range poolerSources(t, dsn) {
			locker := newLocker(t, source)
			_, err := locker.Lock(t.Context(), pglock.Name("job"), pglock.Wait(5*time.Second))
			wantErr(t, err, pglock.ErrPooler)
			must(t, locker.Close())
			if after := stateOf(t, dsn); after != before {
				t.Errorf("%s, %s: the pooled session was\n%s\nand is\n%s", mode, name, before, after)
			}
			next, err := pgx.Connect(t.Context(), dsn+" default_query_exec_mode=simple_protocol")
			must(t, err)
			if _, err := next.Exec(t.Context(), `SELECT * FROM orders`); err != nil {
				t.Errorf("%s, %s: the next client's statement: %v", mode, name, err)
			}
			must(t, next.Close(context.Background()))
		}
	}
}

// With AllowPooler, a session returns to its pooler without the Locker's settings,
// although the pooler does not reset it.
func TestAllowedSessionIsGivenBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pgx", "database/sql, pgx", "database/sql, lib/pq"} {
		_, dsn, _ := pooled(t, pgbouncer.Session, "default_pool_size = 1", "server_reset_query =")
		before := stateOf(t, dsn)
		locker := newLocker(t, poolerSources(t, dsn)[name], pglock.AllowPooler())
		must(t, lock(t, locker, pglock.Name("job")).Unlock())
		must(t, locker.Close())
		if after := stateOf(t, dsn); strings.TrimSpace(after) != strings.TrimSpace(before) {
			t.Errorf("%s: the pooled session was\n%s\nand is\n%s", name, before, after)
		}
	}
}

type noPID struct{ driver.Source }

func (s noPID) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return noPIDSession{session}, nil
}

type noPIDSession struct{ driver.Session }

func (noPIDSession) PID() uint32 { return 0 }

// A transaction-level lock is held through any transaction pooler, and released with the
// transaction.
func TestTransactionLocksThroughPoolers(t *testing.T) {
	t.Parallel()
	key := pglock.Name("job")
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Session} {
		d, dsn, _ := pooled(t, mode)
		pool, err := pgxpool.New(t.Context(), dsn)
		must(t, err)
		t.Cleanup(pool.Close)
		// A client that prepares statements cannot be switched between sessions. pgx can
		// be configured not to.
		native := openSQL(t, "pgx", dsn+" default_query_exec_mode=exec")
		pq := openSQL(t, "postgres", dsn)
		for name, begin := range map[string]func() (driver.Conn, func() error){
			"pgx": func() (driver.Conn, func() error) {
				tx, err := pool.Begin(t.Context())
				must(t, err)
				return pgxlock.Tx(tx), func() error { return tx.Commit(t.Context()) }
			},
			"database/sql, pgx": func() (driver.Conn, func() error) {
				tx, err := native.BeginTx(t.Context(), nil)
				must(t, err)
				return sqllock.Tx(tx), tx.Commit
			},
			"database/sql, lib/pq": func() (driver.Conn, func() error) {
				tx, err := pq.BeginTx(t.Context(), nil)
				must(t, err)
				return sqllock.Tx(tx), tx.Commit
			},
		} {
			for range 3 {
				first, commit := begin()
				must(t, pglock.LockTx(t.Context(), first, key))
				d.wantAvailable(key, false)
				second, commitSecond := begin()
				err := pglock.LockTx(t.Context(), second, key, pglock.Wait(10*time.Millisecond))
				wantErr(t, err, pglock.ErrNotAcquired)
				must(t, pglock.LockTx(t.Context(), second, pglock.Name("other"), pglock.NoWait()))
				must(t, commitSecond())
				must(t, commit())
				d.wantAvailable(key, true)
				if n := d.held(); n != 0 {
					t.Errorf("%s, %s: %d locks are left", mode, name, n)
				}
			}
		}
	}
}
