package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/pgxlock"
)

// Conflicts matches Postgres for every pair of modes.
func TestModesConflictAsInPostgres(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE t ()`)
	a, b := connect(t, d.dsn), connect(t, d.dsn)
	for _, held := range pglock.Modes() {
		for _, wanted := range pglock.Modes() {
			holds, wants := must1(a.Begin(t.Context())), must1(b.Begin(t.Context()))
			must1(holds.Exec(t.Context(), `LOCK TABLE t IN `+held.String()+` MODE`))
			_, err := wants.Exec(t.Context(), `LOCK TABLE t IN `+wanted.String()+` MODE NOWAIT`)
			if err != nil && sqlstate.Of(err) != sqlstate.LockNotAvailable {
				t.Fatal(err)
			}
			if conflict := err != nil; conflict != wanted.Conflicts(held) || conflict != held.Conflicts(wanted) {
				t.Errorf("%v with %v held: refused %v, Conflicts says %v and %v", wanted, held, conflict, wanted.Conflicts(held), held.Conflicts(wanted))
			}
			must(t, wants.Rollback(t.Context()))
			must(t, holds.Rollback(t.Context()))
		}
	}
}

// tableLocks returns the locks of a backend on relations of the schema, as "name mode".
func (d *db) tableLocks(pid int) string {
	d.t.Helper()
	var s string
	d.scan(&s, `SELECT coalesce(string_agg(c.relname || ' ' || l.mode, ', ' ORDER BY c.relname, l.mode), '')
		FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE l.locktype = 'relation' AND l.granted AND l.pid = $1 AND n.nspname NOT LIKE 'pg\_%'
		AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`, pid)
	return s
}

func TestLockTables(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`CREATE TABLE a (); CREATE TABLE b ()`)
		for _, mode := range append(pglock.Modes(), 0) {
			for i, opts := range [][]pglock.TableOption{nil, {pglock.Wait(time.Minute)}, {pglock.NoWait()}} {
				tx := begin()
				pid := tx.pid()
				want := pglock.AccessExclusive
				if mode != 0 {
					want = mode
					opts = append(opts, pglock.In(mode))
				}
				must(t, pglock.LockTables(t.Context(), tx, pglock.Tables("b", "a"), opts...))
				if got, want := d.tableLocks(pid), "a "+want.PgLocks()+", b "+want.PgLocks(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				tx.usable()
				tx.end(i%2 == 0)
				if got := d.tableLocks(pid); got != "" {
					t.Errorf("after the transaction: %s", got)
				}
			}
		}
	})
}

type (
	valueModel   struct{ ID int }
	pointerModel struct{ ID int }
	noModel      struct{ ID int }
	namedModel   string
)

func (valueModel) TableName() string    { return "value_models" }
func (*pointerModel) TableName() string { return "app.Pointer Models" }
func (n namedModel) TableName() string  { return string(n) }

// Names are spelled as in Postgres, and quoted if necessary.
func TestTables(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE SCHEMA app; CREATE SCHEMA "Odd.Schema"; CREATE TABLE value_models (); CREATE TABLE app."Pointer Models" ();
		CREATE TABLE app.orders (); CREATE TABLE "Orders" (); CREATE TABLE "a ""quoted"" one" (); CREATE TABLE app."odd.name" ();
		CREATE TABLE "Odd.Schema"."select; drop table x; --" (); CREATE TABLE "ünïcödé" ()`)
	for _, test := range []struct {
		table any
		want  string // the table's name
	}{
		{"app.orders", "orders"},
		{"Orders", "Orders"},
		{`"Orders"`, "Orders"},
		{`"app"."orders"`, "orders"},
		{`app."odd.name"`, "odd.name"},
		{`"a ""quoted"" one"`, `a "quoted" one`},
		{`a "quoted" one`, `a "quoted" one`},
		{`"Odd.Schema"."select; drop table x; --"`, "select; drop table x; --"},
		{"ünïcödé", "ünïcödé"},
		{valueModel{}, "value_models"},
		{&valueModel{}, "value_models"},
		{(*valueModel)(nil), "value_models"},
		{pointerModel{}, "Pointer Models"},
		{&pointerModel{}, "Pointer Models"},
		{(*pointerModel)(nil), "Pointer Models"},
		{namedModel("app.orders"), "orders"},
	} {
		tx := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
		if err := pglock.LockTables(t.Context(), tx, pglock.Tables(test.table)); err != nil {
			t.Errorf("%v: %v", test.table, err)
		} else if got, want := d.tableLocks(tx.pid()), test.want+" AccessExclusiveLock"; got != want {
			t.Errorf("%v: locked %s, want %s", test.table, got, want)
		}
		must(t, tx.back())
	}

	// search_path decides if there is no schema.
	tx := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
	defer tx.back()
	tx.exec(`SET LOCAL search_path = app`)
	must(t, pglock.LockTables(t.Context(), tx, pglock.Tables("orders")))

	for _, table := range []any{
		"", ".", "a.", ".a", "a..b", "a.b.c", `"`, `"a`, `""`, `"a"b`, `"a".`, "a\x00b", strings.Repeat("x", 64), strings.Repeat("ü", 32),
		nil,
		noModel{},
		&noModel{}, 42,
		[]string{"a"},
		(*string)(nil), namedModel(""),
	} {
		err := pglock.LockTables(t.Context(), tx, pglock.Tables("app.orders", table))
		if err == nil || sqlstate.Of(err) != "" {
			t.Errorf("%#v: got %v, want an error of pglock", table, err)
		}
	}
	if err := pglock.LockTables(t.Context(), tx, pglock.Tables()); err == nil {
		t.Error("no tables are no error")
	}
	if err := pglock.LockTables(t.Context(), tx, pglock.TableList{}); err == nil {
		t.Error("no tables are no error")
	}
	tx.usable()
}

// The relations locked with a table, and those that cannot be locked, are as in Postgres.
func TestLockTablesOfEachKind(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`CREATE TABLE parted (n int) PARTITION BY RANGE (n);
			CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
			CREATE TABLE part2 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (n);
			CREATE TABLE part2a PARTITION OF part2 FOR VALUES FROM (10) TO (15);
			CREATE TABLE parent (); CREATE TABLE child () INHERITS (parent);
			CREATE TABLE base (n int); CREATE VIEW seen AS SELECT * FROM base; CREATE VIEW seen_twice AS SELECT * FROM seen;
			CREATE MATERIALIZED VIEW stored AS SELECT 1; CREATE SEQUENCE numbers; CREATE INDEX base_n ON base (n)`)
		const ex = " ExclusiveLock"
		for _, test := range []struct {
			table string
			only  bool
			want  string
		}{
			{"parted", false, "part1" + ex + ", part2" + ex + ", part2a" + ex + ", parted" + ex},
			{"parted", true, "parted" + ex},
			{"part2", false, "part2" + ex + ", part2a" + ex},
			{"parent", false, "child" + ex + ", parent" + ex},
			{"parent", true, "parent" + ex},
			{"seen", false, "base" + ex + ", seen" + ex},
			{"seen_twice", false, "base" + ex + ", seen" + ex + ", seen_twice" + ex},
		} {
			tx := begin()
			pid := tx.pid()
			opts := []pglock.TableOption{pglock.In(pglock.Exclusive)}
			if test.only {
				opts = append(opts, pglock.Only())
			}
			must(t, pglock.LockTables(t.Context(), tx, pglock.Tables(test.table), opts...))
			if got := d.tableLocks(pid); got != test.want {
				t.Errorf("%s, only %v: locked %s, want %s", test.table, test.only, got, test.want)
			}
			tx.end(true)
		}

		tx := begin()
		for table, state := range map[string]string{
			"stored": "42809", "numbers": "42809", "base_n": "42809", "nope": "42P01", "no_schema.nope": "3F000",
		} {
			for _, opts := range [][]pglock.TableOption{nil, {pglock.Wait(time.Second)}, {pglock.NoWait()}} {
				err := pglock.LockTables(t.Context(), tx, pglock.Tables("base", table), opts...)
				name := strings.TrimSuffix(table, ".nope")
				if sqlstate.Of(err) != state || !strings.Contains(err.Error(), name) || errors.Is(err, pglock.ErrNotAcquired) {
					t.Errorf("%s: got %v, want SQLSTATE %s", table, err, state)
				}
				if got := d.tableLocks(tx.pid()); got != "" {
					t.Errorf("%s: locked %s", table, got)
				}
				tx.usable()
			}
		}
	})
}

// A foreign table cannot be locked by name, but as a partition.
func TestLockTablesForeign(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
		CREATE TABLE parted (n int) PARTITION BY RANGE (n);
		CREATE FOREIGN TABLE far PARTITION OF parted FOR VALUES FROM (0) TO (10) SERVER files OPTIONS (filename '/dev/null')`)
	tx := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
	defer tx.back()
	err := pglock.LockTables(t.Context(), tx, pglock.Tables("far"))
	if sqlstate.Of(err) != "42809" || !strings.Contains(err.Error(), "far") {
		t.Errorf("got %v, want SQLSTATE 42809", err)
	}
	tx.usable()
	must(t, pglock.LockTables(t.Context(), tx, pglock.Tables("parted")))
	if got := d.tableLocks(tx.pid()); got != "far AccessExclusiveLock, parted AccessExclusiveLock" {
		t.Errorf("locked %s", got)
	}
}

func TestCatalogTableHolders(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`CREATE TABLE a (); CREATE TABLE parted (n int) PARTITION BY RANGE (n);
			CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
			CREATE VIEW seen AS SELECT * FROM parted; SET application_name = 'the holder'`)
		d.exec(`BEGIN; SELECT * FROM part; LOCK TABLE part IN SHARE MODE`)
		var pid int32
		d.scan(&pid, `SELECT pg_backend_pid()`)
		for _, opt := range []pglock.TableOption{pglock.NoWait(), pglock.Wait(20 * time.Millisecond)} {
			for _, table := range []string{"part", "parted", "seen"} {
				tx := begin()
				tx.exec(`CREATE TEMP TABLE kept () ON COMMIT DROP`)
				err := pglock.LockTables(t.Context(), tx, pglock.Tables("a", table), pglock.In(pglock.RowExclusive), opt)
				wantErr(t, err, pglock.ErrNotAcquired)
				var e *pglock.Error
				if !errors.As(err, &e) || len(e.Holders) != 1 {
					t.Fatalf("no holder in %v", err)
				}
				if h := e.Holders[0]; h.PID != pid || h.Application != "the holder" || h.Mode != "ShareLock" || !h.Granted {
					t.Errorf("the holder is %+v", h)
				}
				if !slices.Equal(e.Tables, []string{"a", table}) {
					t.Errorf("the error names the tables %v", e.Tables)
				}
				if got := d.tableLocks(tx.pid()); strings.Contains(got, "a RowExclusive") {
					t.Errorf("locked %s", got)
				}
				tx.exec(`SELECT * FROM kept`)
				tx.usable()
				// A mode that does not conflict is acquired.
				must(t, pglock.LockTables(t.Context(), tx, pglock.Tables("a", table), pglock.In(pglock.RowShare), opt))
				tx.end(true)
			}
		}
		d.exec(`ROLLBACK`)
	})
}

// lock_timeout starts again for each lock; Wait does not.
func TestLockTablesWaitBoundsTheCall(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE parted (n int) PARTITION BY RANGE (n);
		CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
		CREATE TABLE part2 PARTITION OF parted FOR VALUES FROM (10) TO (20)`)
	one, two, waiting := connect(t, d.dsn), connect(t, d.dsn), connect(t, d.dsn)
	must1(one.Exec(t.Context(), `BEGIN; LOCK TABLE part1`))
	must1(two.Exec(t.Context(), `BEGIN; LOCK TABLE part2`))
	tx := pgxTx(t, must1(waiting.Begin(t.Context())))
	const wait = 6 * time.Second
	result := make(chan error, 1)
	began := time.Now()
	go func() {
		result <- pglock.LockTables(context.Background(), tx, pglock.Tables("parted"), pglock.Wait(wait))
	}()
	d.until(`SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'
		AND clock_timestamp() - state_change > interval '5s'`, waiting.PgConn().PID())
	freed := time.Now()
	must1(one.Exec(t.Context(), `ROLLBACK`))
	wantErr(t, <-result, pglock.ErrNotAcquired)
	if took := time.Since(began); took < wait {
		t.Errorf("it took %v, want %v", took, wait)
	}
	// A second is left for the second lock; a wait that started again would take the
	// whole time.
	if took := time.Since(freed); took >= wait {
		t.Errorf("it took %v for the second lock", took)
	}
	tx.usable()
	must(t, tx.back())
}

// A REPEATABLE READ transaction sees the data as of the lock, even after a failed
// attempt.
func TestLockTablesBeforeReading(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE a (n int); CREATE TABLE never ()`)
	never := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
	never.exec(`LOCK TABLE never`)
	for _, opts := range [][]pglock.TableOption{nil, {pglock.Wait(time.Minute)}} {
		d.exec(`BEGIN; LOCK TABLE a`)
		conn := connect(t, d.dsn)
		tx := pgxTx(t, must1(conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})))
		pid := conn.PgConn().PID()
		wantErr(t, pglock.LockTables(t.Context(), tx, pglock.Tables("never"), pglock.NoWait()), pglock.ErrNotAcquired)
		wantErr(t, pglock.LockTables(t.Context(), tx, pglock.Tables("never"), pglock.Wait(time.Millisecond)), pglock.ErrNotAcquired)
		result := make(chan error, 1)
		go func() {
			result <- pglock.WithLockTimeout(context.Background(), tx, time.Minute, func(ctx context.Context) error {
				return pglock.LockTables(ctx, tx, pglock.Tables("a"), opts...)
			})
		}()
		d.until(`SELECT count(*) = 1 FROM pg_locks WHERE pid = $1 AND NOT granted`, pid)
		d.exec(`INSERT INTO a VALUES (1); COMMIT`)
		must(t, <-result)
		if got := tx.text(`SELECT count(*)::text FROM a`); got == "0" {
			t.Error("a commit before the lock was acquired is not visible")
		}
		must(t, tx.back())
		d.exec(`DELETE FROM a`)
	}
	must(t, never.back())
}

func TestLockTablesInOneOrder(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c (); CREATE SCHEMA s; CREATE TABLE s.a ()`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			conn := must1(pgx.Connect(context.Background(), d.dsn))
			defer conn.Close(context.Background())
			for range 50 {
				tables := []any{"a", "b", "c", "s.a", `"a"`}
				rand.Shuffle(len(tables), func(i, j int) { tables[i], tables[j] = tables[j], tables[i] })
				tx := must1(conn.Begin(context.Background()))
				err := pglock.LockTables(context.Background(), pgxlock.Tx(tx), pglock.Tables(tables...))
				tx.Rollback(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLockTablesWithoutPermission(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	role := fmt.Sprintf("pglock_test_%d", rand.Uint64())
	d.exec(`CREATE TABLE a (); CREATE ROLE ` + role)
	defer d.exec(`DROP ROLE ` + role)
	tx := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
	defer tx.back()
	tx.exec(`SET LOCAL ROLE ` + role)
	for _, opts := range [][]pglock.TableOption{nil, {pglock.Wait(time.Second)}, {pglock.NoWait()}} {
		err := pglock.LockTables(t.Context(), tx, pglock.Tables("a"), opts...)
		if sqlstate.Of(err) != "42501" || errors.Is(err, pglock.ErrNotAcquired) {
			t.Errorf("got %v, want SQLSTATE 42501", err)
		}
		tx.exec(`SELECT 1`)
	}
	// An advisory lock needs no permission, and its holder is reported as far as it is
	// visible.
	d.exec(`SELECT pg_advisory_lock(1)`)
	err := pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.NoWait())
	var e *pglock.Error
	if !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].PID == 0 || e.Holders[0].User == "" {
		t.Errorf("got %v", err)
	}
	tx.exec(`RESET ROLE`)
}

func TestLockTablesOptions(t *testing.T) {
	d := newDB(t)
	tx := ways[0].begin(t, d.dsn)
	defer tx.back()
	for _, opts := range [][]pglock.TableOption{
		{nil},
		{pglock.In(0)},
		{pglock.In(9)},
		{pglock.Wait(0)},
		{pglock.In(pglock.Share), pglock.In(pglock.Exclusive)},
		{pglock.NoWait(), pglock.Wait(time.Second)},
	} {
		if err := pglock.LockTables(t.Context(), tx, pglock.Tables("pg_class"), opts...); err == nil {
			t.Errorf("%v: no error", opts)
		}
	}
}
