package pglock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// Defaults of a role, a database or PGOPTIONS that would make pglock's own sessions wait,
// fail, or read something else.
var hostileDefaults = map[string]string{
	"default_transaction_isolation":       "serializable",
	"default_transaction_read_only":       "on",
	"default_transaction_deferrable":      "on",
	"statement_timeout":                   "1",
	"lock_timeout":                        "1",
	"idle_in_transaction_session_timeout": "1",
	"idle_session_timeout":                "5000",
	"transaction_timeout":                 "5000",
	"search_path":                         "nowhere",
	"client_encoding":                     "LATIN1",
	"standard_conforming_strings":         "off",
	"transform_null_equals":               "on",
	"array_nulls":                         "off",
	"DateStyle":                           "German",
	"IntervalStyle":                       "iso_8601",
	"TimeZone":                            "Asia/Kolkata",
	"bytea_output":                        "escape",
	"extra_float_digits":                  "-15",
	"jit_above_cost":                      "0",
	"plan_cache_mode":                     "force_custom_plan",
	"force_parallel_mode":                 "on",
	"debug_parallel_query":                "on",
	"quote_all_identifiers":               "on",
	"row_security":                        "off",
	"application_name":                    "ours",
}

// A role's transactions may be serializable, read only and deferrable. Each of them then
// waits until transactions that write have ended, even if it only reads the time.
// pglock's own sessions do not wait, and no other default of the role affects them,
// whatever sets it and with each driver.
func TestCatalogDefaultsOfARole(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"ALTER ROLE", "ALTER DATABASE", "PGOPTIONS", "ALTER ROLE, deferrable and exit_on_error alone"} {
		d := newDB(t)
		d.exec(`CREATE TABLE written (id int); CREATE TABLE locked (id int)`)
		direct := d.conn.Config().ConnString()
		// The writer, the blocker and the waiter connect before the defaults are set.
		writer, blocker, waiter, clean := databaseAt(t, direct), databaseAt(t, direct), databaseAt(t, direct), databaseAt(t, direct)
		writer.exec(`BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE`)
		writer.exec(`INSERT INTO written VALUES (1)`)
		defaults := hostileDefaults
		if strings.Contains(by, "alone") {
			defaults = map[string]string{
				"default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
				"default_transaction_deferrable": "on", "exit_on_error": "on",
			}
		}
		dsn := direct
		var options []string
		for name, value := range defaults {
			var known bool
			d.scan(&known, `SELECT current_setting($1, true) IS NOT NULL
				AND NOT ($1 = 'standard_conforming_strings' AND current_setting('server_version_num')::int >= 190000)`, name) // always on from 19 on
			switch {
			case !known:
			case by == "PGOPTIONS":
				options = append(options, "-c "+name+"="+value)
			case by == "ALTER DATABASE":
				d.exec(fmt.Sprintf(`ALTER DATABASE %s SET %s = '%s'`, d.name(), name, value))
			default:
				d.exec(fmt.Sprintf(`ALTER ROLE postgres IN DATABASE %s SET %s = '%s'`, d.name(), name, value))
			}
		}
		if len(options) > 0 {
			dsn += " options='" + strings.Join(options, " ") + "'"
		}

		// Check the setup: a plain client waits.
		noTimeouts := " statement_timeout=0"
		var major int
		if d.scan(&major, `SELECT current_setting('server_version_num')::int / 10000`); major >= 17 {
			noTimeouts += " transaction_timeout=0"
		}
		plain, err := pgx.Connect(t.Context(), dsn+noTimeouts)
		must(t, err)
		waits := make(chan error, 1)
		go func() {
			_, err := plain.Exec(context.Background(), `SELECT 1 FROM pg_class`)
			waits <- err
		}()
		d.until(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SafeSnapshot')`, plain.PgConn().PID())

		blocker.exec(`BEGIN; LOCK TABLE locked`)
		blocked := make(chan error, 1)
		go func() {
			_, err := waiter.conn.Exec(context.Background(), `SELECT FROM locked`)
			blocked <- err
		}()
		waiting := int32(waiter.conn.PgConn().PID())
		d.until(`SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)`, waiting)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		said := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %s: %v", by, what, err)
			}
		}
		key := pglock.Name("job")
		for name, source := range poolerSources(t, dsn) {
			if by != "ALTER ROLE" && (name == "database/sql, pgx" || name == "an application pool") {
				continue
			}
			locker := newLocker(t, source)
			held, err := locker.Lock(ctx, key)
			said(name+": Lock", err)
			clean.wantAvailable(key, false)
			other := newLocker(t, source)
			_, err = other.TryLock(ctx, key)
			wantErr(t, err, pglock.ErrNotAcquired)
			granted := make(chan error, 1)
			go func() {
				next, err := other.Lock(ctx, key, pglock.Wait(50*time.Second))
				if err == nil {
					err = next.Unlock()
				}
				granted <- err
			}()
			clean.untilWaiting(1, key)
			said(name+": Unlock", held.Unlock())
			said(name+": Lock that waits", <-granted)
			several, err := locker.LockAll(ctx, []pglock.Key{key, pglock.Pair(1, 2)})
			said(name+": LockAll", err)
			said(name+": Unlock", several.Unlock())
			said(name+": Close", locker.Close())
			said(name+": Close", other.Close())
			clean.wantAvailable(key, true)

			// The watcher finds the waiter and its blocker, and could terminate it.
			overdue := make(chan int32, 100)
			watch := func(e prioritize.Event) {
				if e.Kind == prioritize.Overdue {
					overdue <- e.Blocked[0].Blocking.PID
				}
			}
			said(name+": RunFor", prioritize.RunFor(ctx, source, prioritize.Who{PIDs: []int32{waiting}}, func(ctx context.Context) error {
				select {
				case pid := <-overdue:
					if blocker := int32(blocker.conn.PgConn().PID()); pid != blocker {
						t.Errorf("%s: %s: the blocker is pid %d, want %d", by, name, pid, blocker)
					}
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}, prioritize.After(time.Millisecond), prioritize.Allow(inspect.Superusers), prioritize.OnEvent(watch)))

			// A test's own lock, and its waiter.
			lock := pglocktest.Key(t, source, key)
			lock.Hold()
			clean.wantAvailable(key, false)
			lock.Release()
			lock.WantFree()
		}

		for name, open := range programs(t, dsn) {
			guarded, shared, err := inspect.Guard(ctx, open())
			said(name+": Guard", err)
			if shared {
				t.Errorf("%s: %s: Guard believes that there is a pooler", by, name)
			}
			pairs, err := inspect.Blocked(ctx, guarded, inspect.PIDs(waiting))
			said(name+": Blocked", err)
			if len(pairs) != 1 || pairs[0].Blocking.PID != int32(blocker.conn.PgConn().PID()) {
				t.Errorf("%s: %s: %v", by, name, pairs)
			}
			_, err = inspect.Locks(ctx, guarded, inspect.Where("granted", "=", "true"))
			said(name+": Locks", err)
			_, err = inspect.Terminate(ctx, guarded, inspect.BlockersOf(pairs), inspect.DryRun())
			said(name+": Terminate", err)
		}
		for name, open := range programs(t, dsn+noTimeouts) { // the program's own timeouts apply
			said(name+": WithLockTimeout", pglock.WithLockTimeout(ctx, open(), pglock.NoTimeout, func(context.Context) error { return nil }))
		}

		blocker.exec(`ROLLBACK`)
		must(t, <-blocked)
		writer.exec(`ROLLBACK`)
		must(t, <-waits)
		must(t, plain.Close(context.Background()))
	}
}

// programs opens a program's connections, one of each kind, until the end of the test.
// They must be used at once, since a role may have an idle_session_timeout.
func programs(t *testing.T, dsn string) map[string]func() driver.Conn {
	t.Helper()
	open := func(driverName string) func() driver.Conn {
		return func() driver.Conn {
			t.Helper()
			conn, err := openSQL(t, driverName, dsn).Conn(t.Context())
			must(t, err)
			t.Cleanup(func() { conn.Close() })
			return sqllock.Conn(conn)
		}
	}
	return map[string]func() driver.Conn{
		"pgx": func() driver.Conn {
			t.Helper()
			conn, err := pgx.Connect(t.Context(), dsn)
			must(t, err)
			t.Cleanup(func() { conn.Close(context.Background()) })
			return pgxlock.Conn(conn)
		},
		"database/sql, pgx":    open("pgx"),
		"database/sql, lib/pq": open("postgres"),
	}
}
