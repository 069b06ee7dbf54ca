package trace_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/trace"
)

// shop is a schema with a table of each kind that the statements need.
const shop = `
CREATE TABLE customers (id int PRIMARY KEY, email text, age int, note varchar(10));
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total int, status text, note varchar(10));
ALTER TABLE orders ADD CONSTRAINT positive CHECK (total > 0) NOT VALID;
CREATE INDEX orders_total ON orders (total);
CREATE UNIQUE INDEX orders_note ON orders (note);
CREATE TABLE counted (a int NOT NULL);
CREATE TABLE proven (a int, CONSTRAINT a_set CHECK (a IS NOT NULL));
CREATE TABLE logs (at date, line text) PARTITION BY RANGE (at);
CREATE TABLE logs_2020 PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE logs_2021 (at date, line text);
CREATE TABLE logs_2022 (at date, line text, CONSTRAINT bound CHECK (at IS NOT NULL AND at >= '2022-01-01' AND at < '2023-01-01'));
CREATE MATERIALIZED VIEW totals AS SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id;
CREATE UNIQUE INDEX totals_customer ON totals (customer_id);
CREATE VIEW open_orders AS SELECT id FROM orders WHERE status = 'open';
CREATE SEQUENCE numbers;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE items (order_id int);
ALTER TABLE items ADD CONSTRAINT item_order FOREIGN KEY (order_id) REFERENCES orders NOT VALID;
CREATE TABLE plain (a int, b varchar(10));
CREATE INDEX plain_a ON plain (a);
CREATE INDEX plain_b ON plain (b);
`

// A ddl is a kind of statement, with what it does.
type ddl struct {
	sql string

	// want lists the strongest lock on each table, without "Lock", and the effects. before
	// has what older versions do, by the first version that does not.
	want   string
	before map[int]string

	since int // the first major version that has the statement
}

func ddls() []ddl {
	return []ddl{
		{sql: "SELECT * FROM customers", want: "customers:AccessShare, customers 1 scans"},
		{sql: "SELECT * FROM customers FOR UPDATE", want: "customers:RowShare, customers 1 scans"},
		{sql: "INSERT INTO customers VALUES (1)", want: "customers:RowExclusive"},
		{sql: "UPDATE orders SET total = 1 WHERE id = 1", want: "orders:RowExclusive"},
		{sql: "DELETE FROM orders WHERE status = 'x'", want: "orders:RowExclusive, orders 1 scans"},
		{sql: "LOCK TABLE customers IN SHARE MODE", want: "customers:Share"},
		{sql: "CREATE TABLE t (a int)", want: ""},
		{sql: "CREATE TABLE t AS SELECT * FROM orders", want: "orders:AccessShare, orders 1 scans"},
		{sql: "CREATE TABLE t (LIKE orders INCLUDING ALL)", want: "orders:AccessShare"},
		{sql: "CREATE TABLE t (a int REFERENCES customers)", want: "customers:ShareRowExclusive"},
		{sql: "CREATE TABLE logs_2023 PARTITION OF logs FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')", want: "logs:AccessExclusive"},
		{sql: "ALTER TABLE logs ATTACH PARTITION logs_2021 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')", want: "logs_2021:AccessExclusive, logs:ShareUpdateExclusive, logs_2021 validate"},
		{sql: "ALTER TABLE logs ATTACH PARTITION logs_2022 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')", want: "logs_2022:AccessExclusive, logs:ShareUpdateExclusive"},
		{sql: "ALTER TABLE logs DETACH PARTITION logs_2020", want: "logs:AccessExclusive, logs_2020:AccessExclusive", before: map[int]string{14: "logs:AccessExclusive, logs_2020:ShareUpdateExclusive"}},
		{sql: "ALTER TABLE logs DETACH PARTITION logs_2020 CONCURRENTLY", want: "logs_2020:AccessExclusive, logs:ShareUpdateExclusive, outside, waits", since: 14},
		{sql: "ALTER TABLE orders ADD COLUMN region text", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ADD COLUMN region text NOT NULL DEFAULT 'eu'", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ADD COLUMN r float DEFAULT random()", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "ALTER TABLE orders ADD COLUMN at timestamptz DEFAULT now()", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ADD COLUMN n bigserial", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "ALTER TABLE orders ADD COLUMN n int GENERATED ALWAYS AS IDENTITY", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "ALTER TABLE orders ADD COLUMN n int GENERATED ALWAYS AS (total * 2) STORED", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "ALTER TABLE orders ADD COLUMN n int CHECK (n > 0)", want: "orders:AccessExclusive, orders validate"},
		{sql: "ALTER TABLE plain DROP COLUMN a", want: "plain:AccessExclusive, plain_a drop"},
		{sql: "ALTER TABLE orders DROP COLUMN total CASCADE", want: "orders:AccessExclusive, totals:AccessExclusive, totals drop, orders_total drop, totals_customer drop"},
		{sql: "ALTER TABLE plain ALTER a TYPE bigint", want: "plain:AccessExclusive, plain rewrite+3 scans+2 indexes"},
		{sql: "ALTER TABLE orders ALTER note TYPE varchar(20)", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ALTER note TYPE text", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ALTER note TYPE varchar(5)", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "ALTER TABLE orders ALTER total SET DEFAULT 1", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ALTER status SET NOT NULL", want: "orders:AccessExclusive, orders validate"},
		{sql: "ALTER TABLE proven ALTER a SET NOT NULL", want: "proven:AccessExclusive"},
		{sql: "ALTER TABLE plain ALTER a DROP NOT NULL", want: "plain:AccessExclusive"},
		{sql: "ALTER TABLE orders ALTER total SET STATISTICS 100", want: "orders:ShareUpdateExclusive"},
		{sql: "ALTER TABLE orders ALTER status SET STORAGE external", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 1)", want: "orders:AccessExclusive, orders validate"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 1) NOT VALID", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders VALIDATE CONSTRAINT positive", want: "orders:ShareUpdateExclusive, orders validate"},
		{sql: "ALTER TABLE items VALIDATE CONSTRAINT item_order", want: "items:ShareUpdateExclusive, orders:RowShare, items validate"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (customer_id) REFERENCES customers", want: "customers:ShareRowExclusive, orders:ShareRowExclusive, orders validate"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (customer_id) REFERENCES customers NOT VALID", want: "customers:ShareRowExclusive, orders:ShareRowExclusive"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (status)", want: "orders:AccessExclusive, orders 1 scans+1 indexes"},
		{sql: "ALTER TABLE logs_2021 ADD PRIMARY KEY (at)", want: "logs_2021:AccessExclusive, logs_2021 validate+1 indexes"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT u UNIQUE USING INDEX orders_note", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ADD CONSTRAINT c NOT NULL status NOT VALID", want: "orders:AccessExclusive", since: 18},
		{sql: "ALTER TABLE orders DROP CONSTRAINT positive", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE items DROP CONSTRAINT item_order", want: "items:AccessExclusive, orders:AccessExclusive"},
		{sql: "ALTER TABLE orders RENAME TO old_orders", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders RENAME COLUMN total TO sum", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders SET SCHEMA pg_catalog", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders SET (fillfactor = 70)", want: "orders:ShareUpdateExclusive"},
		{sql: "ALTER TABLE orders SET (autovacuum_enabled = off)", want: "orders:ShareUpdateExclusive"},
		{sql: "ALTER TABLE plain SET UNLOGGED", want: "plain:AccessExclusive, plain rewrite+3 scans+2 indexes"},
		{sql: "ALTER TABLE orders SET TABLESPACE pg_default", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders ENABLE ROW LEVEL SECURITY", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders CLUSTER ON orders_total", want: "orders:ShareUpdateExclusive"},
		{sql: "ALTER TABLE customers DISABLE TRIGGER touched", want: "customers:ShareRowExclusive"},
		{sql: "ALTER TABLE orders REPLICA IDENTITY FULL", want: "orders:AccessExclusive"},
		{sql: "ALTER TABLE orders OWNER TO postgres", want: "orders:AccessExclusive"},
		{sql: "ALTER INDEX orders_total RENAME TO ot", want: ""},
		{sql: "ALTER INDEX orders_total SET (fillfactor = 70)", want: ""},
		{sql: "CREATE INDEX ON orders (status)", want: "orders:Share, orders 1 scans+1 indexes"},
		{sql: "CREATE UNIQUE INDEX ON orders (status)", want: "orders:Share, orders 1 scans+1 indexes"},
		{sql: "CREATE INDEX ON logs (line)", want: "logs:Share, logs_2020:Share, logs_2020 1 scans+1 indexes"},
		{sql: "CREATE INDEX CONCURRENTLY ON orders (status)", want: "orders:ShareUpdateExclusive, orders 2 scans+1 indexes, outside, waits"},
		{sql: "DROP INDEX orders_total", want: "orders:AccessExclusive, orders_total drop"},
		{sql: "DROP INDEX CONCURRENTLY orders_total", want: "orders:ShareUpdateExclusive, orders_total drop, outside, waits"},
		{sql: "REINDEX INDEX orders_total", want: "orders:Share, orders 1 scans+1 indexes"},
		{sql: "REINDEX TABLE orders", want: "orders:Share, orders 3 scans+3 indexes"},
		{sql: "REINDEX TABLE CONCURRENTLY orders", want: "orders:ShareUpdateExclusive, orders 6 scans+3 indexes, outside, waits"},
		{sql: "REINDEX INDEX CONCURRENTLY orders_total", want: "orders:ShareUpdateExclusive, orders 2 scans+1 indexes, outside, waits"},
		{sql: "CLUSTER orders USING orders_total", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes"},
		{sql: "VACUUM orders", want: "orders:ShareUpdateExclusive, outside"},
		{sql: "VACUUM (FULL) orders", want: "orders:AccessExclusive, orders rewrite+4 scans+3 indexes, outside"},
		{sql: "VACUUM", want: "counted:ShareUpdateExclusive, customers:ShareUpdateExclusive, items:ShareUpdateExclusive, logs:ShareUpdateExclusive, logs_2020:ShareUpdateExclusive, logs_2021:ShareUpdateExclusive, logs_2022:ShareUpdateExclusive, orders:ShareUpdateExclusive, plain:ShareUpdateExclusive, proven:ShareUpdateExclusive, totals:ShareUpdateExclusive, outside"},
		{sql: "ANALYZE orders", want: "orders:ShareUpdateExclusive"},
		{sql: "TRUNCATE logs_2021", want: "logs_2021:AccessExclusive, logs_2021 empty"},
		{sql: "TRUNCATE customers", want: "customers:AccessExclusive, customers empty"},
		{sql: "TRUNCATE orders CASCADE", want: "items:AccessExclusive, orders:AccessExclusive, items empty, orders empty"},
		{sql: "DROP TABLE logs_2021", want: "logs_2021:AccessExclusive, logs_2021 drop"},
		{sql: "DROP TABLE items", want: "items:AccessExclusive, orders:AccessExclusive, items drop"},
		{sql: "DROP TABLE logs_2020", want: "logs:AccessExclusive, logs_2020:AccessExclusive, logs_2020 drop"},
		{sql: "CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch()", want: "orders:ShareRowExclusive"},
		{sql: "DROP TRIGGER touched ON customers", want: "customers:AccessExclusive"},
		{sql: "CREATE VIEW v AS SELECT * FROM orders", want: "orders:AccessShare"},
		{sql: "CREATE OR REPLACE VIEW open_orders AS SELECT id FROM orders WHERE status = 'closed'", want: "open_orders:AccessExclusive, orders:AccessShare"},
		{sql: "DROP VIEW open_orders", want: "open_orders:AccessExclusive, open_orders drop"},
		{sql: "REFRESH MATERIALIZED VIEW totals", want: "totals:AccessExclusive, orders:AccessShare, orders 1 scans, totals rewrite+1 scans+1 indexes"},
		{sql: "REFRESH MATERIALIZED VIEW CONCURRENTLY totals", want: "totals:Exclusive, orders:AccessShare, orders 1 scans, totals 1 scans"},
		{sql: "CREATE RULE r AS ON INSERT TO customers DO INSTEAD NOTHING", want: "customers:AccessExclusive"},
		{sql: "CREATE POLICY p ON orders USING (true)", want: "orders:AccessExclusive"},
		{sql: "CREATE STATISTICS st ON total, status FROM orders", want: "orders:ShareUpdateExclusive"},
		{sql: "COMMENT ON TABLE orders IS 'x'", want: "orders:ShareUpdateExclusive"},
		{sql: "GRANT SELECT ON orders TO PUBLIC", want: "orders:AccessShare", before: map[int]string{18: ""}},
		{sql: "ALTER SEQUENCE numbers RESTART", want: "numbers:ShareRowExclusive"},
		{sql: "SELECT nextval('numbers')", want: "numbers:RowExclusive"},
		{sql: "CREATE PUBLICATION p FOR TABLE orders", want: "orders:ShareUpdateExclusive"},
		{sql: "COPY customers TO stdout", want: "customers:AccessShare, customers 1 scans", before: map[int]string{13: "customers 1 scans"}},
		{sql: "COPY customers (id) FROM stdin;\n1\n\\.\n", want: "customers:RowExclusive"},
		{sql: "DO $$BEGIN ALTER TABLE orders ADD COLUMN x int; END$$", want: "orders:AccessExclusive"},
	}
}

// summary returns what a statement did in one line.
func summary(s trace.Statement) string {
	var parts []string
	seen := map[string]bool{}
	for _, l := range s.Locks { // the strongest on each first
		if name := l.Relation.SQL; l.Relation.Table == "" && !seen[name] {
			seen[name] = true
			parts = append(parts, name+":"+strings.TrimSuffix(l.Mode.PgLocks(), "Lock"))
		}
	}
	for _, e := range s.Effects {
		var words []string
		add := func(is bool, word string) {
			if is {
				words = append(words, word)
			}
		}
		add(e.Rewrite, "rewrite")
		add(e.Empty, "empty")
		add(e.Drop, "drop")
		add(e.Scan && !e.Validate, fmt.Sprintf("%d scans", e.Scans))
		add(e.Validate, "validate")
		add(e.Indexes > 0, fmt.Sprintf("%d indexes", e.Indexes))
		parts = append(parts, e.Relation.SQL+" "+strings.Join(words, "+"))
	}
	if s.Outside {
		parts = append(parts, "outside")
	}
	if s.WaitsForTransactions {
		parts = append(parts, "waits")
	}
	if s.Err != nil {
		parts = append(parts, s.Err.Error())
	}
	return strings.Join(parts, ", ")
}

// major returns the major version of a server.
func major(t testing.TB, conn *pgx.Conn) int {
	t.Helper()
	var number int
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&number); err != nil {
		t.Fatal(err)
	}
	return number / 10000
}

// run runs a text on a database.
func run(t *testing.T, dsn, text string, options ...any) *trace.Report {
	t.Helper()
	var parse []trace.ParseOption
	var running []trace.Option
	for _, o := range options {
		switch o := o.(type) {
		case trace.ParseOption:
			parse = append(parse, o)
		case []trace.ParseOption:
			parse = append(parse, o...)
		case trace.Option:
			running = append(running, o)
		}
	}
	script, err := trace.Parse("f.sql", text, parse...)
	if err != nil {
		t.Fatal(err)
	}
	report, err := trace.Run(t.Context(), pgxlock.ConnString(dsn), script, running...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return report
}

// What is reported is what another session sees, on every version; the levels are those
// of the manual (13.3.1 "Table-Level Locks", and the pages of the statements).
func TestCatalogDDL(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off", "max_prepared_transactions": "100"}})
	template := pgtest.DatabaseOn(t, server)
	admin := connect(t, server.ConnString("postgres"))
	conn := connect(t, server.ConnString(template))
	mustExec(t, conn, shop)
	version := major(t, conn)
	conn.Close(context.Background())
	for i, d := range ddls() {
		if version < d.since {
			continue
		}
		t.Run(d.sql, func(t *testing.T) {
			name := fmt.Sprintf("ddl_%d", i)
			mustExec(t, admin, "CREATE DATABASE "+name+" TEMPLATE "+template)
			dsn := server.ConnString(name)
			seen := locksSeen(t, dsn, d.sql)
			s := run(t, dsn, d.sql, trace.Wrapped(trace.WrapNone)).Statements[0]
			mustExec(t, admin, "DROP DATABASE "+name)
			want := d.want
			for _, v := range slices.Backward(slices.Sorted(maps.Keys(d.before))) {
				if version < v {
					want = d.before[v]
				}
			}
			if got := summary(s); got != want {
				t.Errorf("\ngot  %s\nwant %s", got, want)
			}
			var got []string
			for _, l := range s.Locks {
				got = append(got, l.Relation.Name+" "+l.Mode.PgLocks())
			}
			slices.Sort(got)
			if !s.Outside && !slices.Equal(got, seen) {
				t.Errorf("reported %q\nseen     %q", got, seen)
			}
		})
	}
}

// locksSeen returns the locks on relations that a statement holds after it, as seen from
// another session.
func locksSeen(t *testing.T, dsn, sql string) []string {
	t.Helper()
	conn, other := connect(t, dsn), connect(t, dsn)
	defer conn.Close(context.Background())
	defer other.Close(context.Background())
	mustExec(t, conn, "BEGIN")
	if sql, _, ok := strings.Cut(sql, ";\n"); ok {
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n"), sql); err != nil {
			t.Fatal(err)
		}
	} else if _, err := conn.Exec(t.Context(), sql); err != nil {
		return nil // it cannot run in a transaction
	}
	// The names are those before the statement, since it is not committed.
	rows, err := other.Query(t.Context(), `SELECT c.relname || ' ' || l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE l.pid = $1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND l.granted AND n.nspname = 'public'`, conn.PgConn().PID())
	if err != nil {
		t.Fatal(err)
	}
	seen, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	return seen
}
