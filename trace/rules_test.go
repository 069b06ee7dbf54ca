package trace_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/trace"
)

// A copyServer is a server for copies of the schema shop.
type copyServer struct {
	*pgserver.Server
	major int
}

// newCopyServer starts a server as Run needs it.
func newCopyServer(t *testing.T) copyServer {
	t.Helper()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off", "max_prepared_transactions": "100"}})
	conn := connect(t, server.ConnString("postgres"))
	defer conn.Close(context.Background())
	return copyServer{server, major(t, conn)}
}

// copy returns a new database with the schema shop.
func (s copyServer) copy(t *testing.T) string {
	t.Helper()
	dsn := s.ConnString(pgtest.DatabaseOn(t, s.Server))
	conn := connect(t, dsn)
	defer conn.Close(context.Background())
	mustExec(t, conn, shop)
	return dsn
}

// rulesOf returns the rules of a statement's findings.
func rulesOf(s trace.Statement) []string {
	var rules []string
	for _, f := range s.Findings {
		rules = append(rules, f.Rule)
	}
	return rules
}

// Each rule is found, and the statements that it advises are safer: none of them reads or
// writes a table while others wait, and none has a finding.
func TestCatalogSaferIsSafer(t *testing.T) {
	t.Parallel()
	server := newCopyServer(t)
	const (
		// A statement that changes the type of a column makes its constraints and indexes anew.
		typed = `CREATE TABLE parent (id int PRIMARY KEY);
			CREATE TABLE typed (id int PRIMARY KEY, code varchar(10) UNIQUE CHECK (code <> ''), parent int REFERENCES parent, n numeric(5, 2) UNIQUE, name varchar(10));
			CREATE INDEX ON typed (name);
			CREATE TABLE kinds (code varchar(10) PRIMARY KEY CHECK (code <> '') CHECK (code = lower(code)));
			CREATE TABLE items2 (kind varchar(10) CONSTRAINT of_kind REFERENCES kinds, n int, CONSTRAINT few CHECK (n < 10), CONSTRAINT one UNIQUE (n));`
		// What a partition inherits is advised for its parent.
		parted = `ALTER TABLE logs ADD n int, ADD a text, ADD b text;
			CREATE TABLE logs_2023 PARTITION OF logs FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');`
	)
	for _, test := range []struct {
		rule, sql string
		schema    string // besides shop
		first     string // what a finding says is to be done before
		text      string // of a finding
		since     int
	}{
		{rule: "check-validates", schema: typed, sql: "ALTER TABLE kinds ALTER code TYPE varchar(20)", text: "it checks kinds_code_check, kinds_code_check1 again"},
		{rule: "", schema: typed, sql: "ALTER TABLE items2 ALTER kind TYPE varchar(20)"},
		{rule: "constraint-builds-index", schema: typed, sql: "ALTER TABLE items2 DROP CONSTRAINT one, ADD CONSTRAINT one UNIQUE (n, kind)"},
		{rule: "constraint-builds-index", schema: typed, sql: "ALTER TABLE items2 DROP CONSTRAINT one, ADD CONSTRAINT one UNIQUE (n), ALTER kind TYPE text"},
		{rule: "check-validates", schema: typed, sql: "ALTER TABLE items2 DROP CONSTRAINT few, ADD CONSTRAINT few CHECK (n < 20)"},
		{rule: "foreign-key-validates", schema: typed, sql: "ALTER TABLE items2 DROP CONSTRAINT of_kind, ADD CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES kinds ON DELETE CASCADE"},
		{rule: "constraint-builds-index", sql: "ALTER TABLE orders ADD c int UNIQUE", first: "ALTER TABLE orders ADD c int", text: "after a statement that adds the column"},
		{rule: "check-validates", sql: "ALTER TABLE orders DROP COLUMN note, ADD c int CHECK (c > 1)", first: "ALTER TABLE orders ADD c int", text: "after a statement that adds the column"},
		{rule: "constraint-builds-index", sql: "ALTER TABLE plain ADD c int PRIMARY KEY", first: "ALTER TABLE plain ADD c int NOT NULL DEFAULT 1", text: "NOT NULL: do that before it"},
		{rule: "scan-under-lock", sql: "ALTER TABLE orders VALIDATE CONSTRAINT positive, ALTER note TYPE text", text: "it reads all of orders while"},
		{rule: "rewrite", schema: typed, sql: "ALTER TABLE typed ALTER id TYPE bigint"},
		{rule: "rewrite", schema: typed, sql: "ALTER TABLE parent ALTER id TYPE bigint"},
		{rule: "rewrite", schema: typed, sql: "ALTER TABLE typed ALTER parent TYPE bigint"},
		{rule: "check-validates", schema: typed, sql: "ALTER TABLE typed ALTER code TYPE varchar(20)"},
		{rule: "check-validates", schema: typed, sql: "ALTER TABLE typed ALTER code TYPE text, ALTER n TYPE numeric(9, 2)"},
		{rule: "", schema: typed, sql: "ALTER TABLE typed ALTER n TYPE numeric(9, 2)"},
		{rule: "", schema: typed, sql: "ALTER TABLE typed ALTER name TYPE text"},
		{rule: "scan-under-lock", schema: typed, sql: `ALTER TABLE typed ALTER name TYPE text COLLATE "C"`, text: "it builds indexes of typed anew"},
		{rule: "scan-under-lock", schema: typed, sql: `ALTER TABLE typed ALTER code TYPE text COLLATE "C"`, text: "it builds indexes of typed anew"},
		{rule: "rewrite", schema: parted, sql: "ALTER TABLE logs ALTER n TYPE bigint"},
		{rule: "rewrite", schema: parted, sql: "ALTER TABLE logs ADD g int GENERATED ALWAYS AS (n * 2) STORED"},
		{rule: "default-rewrites", schema: parted, sql: "ALTER TABLE logs ADD s bigserial"},
		{rule: "check-validates", schema: parted, sql: "ALTER TABLE logs ADD CHECK (a <> '')"},
		{rule: "not-null-scans", schema: parted, sql: "ALTER TABLE logs ALTER a SET NOT NULL, ALTER b SET NOT NULL"},
		{rule: "not-null-scans", schema: parted, sql: "ALTER TABLE logs ADD c text NOT NULL"},
		{rule: "not-null-scans", sql: "ALTER TABLE orders ADD c text NOT NULL"},
		{rule: "index-not-concurrent", sql: "CREATE INDEX odd ON orders (lower(status)) WHERE total > 1"},
		{rule: "index-not-concurrent", sql: "CREATE UNIQUE INDEX ON orders (status)"},
		{rule: "drop-index-not-concurrent", sql: "DROP INDEX orders_total"},
		{rule: "reindex-not-concurrent", sql: "REINDEX INDEX orders_total"},
		{rule: "reindex-not-concurrent", sql: "REINDEX TABLE orders"},
		{rule: "constraint-builds-index", sql: "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (status, total)"},
		{rule: "constraint-builds-index", sql: "ALTER TABLE counted ADD PRIMARY KEY (a)"},
		{rule: "foreign-key-validates", sql: "ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE"},
		{rule: "check-validates", sql: "ALTER TABLE orders ADD CHECK (total > 1 AND status <> ';')"},
		{rule: "not-null-scans", sql: "ALTER TABLE orders ALTER status SET NOT NULL, ALTER total SET NOT NULL"},
		{rule: "default-rewrites", sql: "ALTER TABLE orders ADD COLUMN r float DEFAULT random()"},
		{rule: "default-rewrites", sql: "ALTER TABLE orders ADD COLUMN n bigserial"},
		{rule: "rewrite", sql: "ALTER TABLE plain ALTER a TYPE bigint"},
		{rule: "rewrite", sql: "ALTER TABLE orders ADD COLUMN n int GENERATED ALWAYS AS (total * 2) STORED"},
		{rule: "attach-scans", sql: "ALTER TABLE logs ATTACH PARTITION logs_2021 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')"},
		{rule: "detach-not-concurrent", sql: "ALTER TABLE logs DETACH PARTITION logs_2020", since: 14},
		{rule: "refresh-not-concurrent", sql: "REFRESH MATERIALIZED VIEW totals"},
	} {
		if server.major < test.since {
			continue
		}
		t.Run(test.sql, func(t *testing.T) {
			const limited = "SET lock_timeout = '2s';\n"
			copied := func() string {
				dsn := server.copy(t)
				conn := connect(t, dsn)
				defer conn.Close(context.Background())
				mustExec(t, conn, test.schema)
				return dsn
			}
			report := run(t, copied(), limited+test.sql, trace.Wrapped(trace.WrapNone))
			s := report.Statements[1]
			rules := slices.Compact(rulesOf(s))
			if want := strings.Fields(test.rule); s.Err != nil || !slices.Equal(rules, want) {
				t.Fatalf("%v, %v", s.Findings, s.Err)
			}
			if test.schema == parted && (len(s.Findings) != 1 || !strings.HasPrefix(strings.Join(s.Findings[0].Safer, ""), "ALTER TABLE logs ")) {
				t.Errorf("%v", s.Findings)
			}
			if test.text != "" && !strings.Contains(s.Findings[0].Text+s.Findings[0].Note, test.text) {
				t.Errorf("no %q in %v", test.text, s.Findings)
			}
			if test.rule == "" || test.rule == "scan-under-lock" {
				return // there is nothing safer
			}
			var safer []string
			if test.first != "" {
				safer = append(safer, test.first+";")
			}
			for _, f := range s.Findings {
				safer = append(safer, f.Safer...)
			}
			if test.rule == "attach-scans" {
				safer = append(safer, test.sql+";")
			}
			if len(safer) == 0 {
				t.Fatal("no safer statements")
			}
			report = run(t, copied(), limited+strings.Join(safer, "\n"), trace.Wrapped(trace.WrapNone))
			if n := len(report.Statements); n != len(safer)+1 {
				t.Fatalf("%d statements of %d", n-1, len(safer))
			}
			for _, s := range report.Statements {
				if s.Err != nil || len(s.Findings) > 0 {
					t.Errorf("%s: %v, %v", s.Piece.SQL, s.Findings, s.Err)
				}
				for _, e := range s.Effects {
					if stops := (trace.Lock{Mode: e.Mode}).StopsWrites(); stops && (e.Scan || e.Rewrite) && e.Relation.Kind != "materialized view" {
						t.Errorf("%s: under %s: %+v", s.Piece.SQL, e.Mode, e)
					}
				}
			}
		})
	}
}

// Findings about several statements of a transaction.
func TestJudged(t *testing.T) {
	server := newCopyServer(t)
	for name, test := range map[string]struct {
		sql     string
		options []trace.ParseOption
		want    string // the rules of each statement
	}{
		"work while a lock is held": {
			sql:  "ALTER TABLE orders ADD region text; CREATE INDEX ON customers (email)",
			want: "no-lock-timeout | index-not-concurrent work-after-lock",
		},
		"validated in the same transaction": {
			sql:  "SET lock_timeout = '1s'; ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 2) NOT VALID; ALTER TABLE orders VALIDATE CONSTRAINT c",
			want: " |  | work-after-lock",
		},
		"several tables": {
			sql:  "SET lock_timeout = '1s'; ALTER TABLE orders ADD a int; ALTER TABLE customers ADD a int",
			want: " |  | locks-several-tables",
		},
		"several tables, each alone": {
			sql:     "SET lock_timeout = '1s'; ALTER TABLE orders ADD a int; ALTER TABLE customers ADD a int",
			options: []trace.ParseOption{trace.Wrapped(trace.WrapStatement)},
			want:    " |  | ",
		},
		"committed between": {
			sql:  "SET lock_timeout = '1s'; BEGIN; ALTER TABLE orders ADD a int; COMMIT; BEGIN; ALTER TABLE customers ADD a int; COMMIT",
			want: " |  |  |  |  |  | ",
		},
		"rolled back to a savepoint": {
			sql:  "SET lock_timeout = '1s'; BEGIN; SAVEPOINT a; ALTER TABLE orders ADD a int; ROLLBACK TO a; ALTER TABLE customers ADD a int; COMMIT",
			want: " |  |  |  |  |  | ",
		},
		"concurrently in a transaction": {
			sql:  "SET lock_timeout = '1s'; ALTER TABLE orders ADD a int; CREATE INDEX CONCURRENTLY ON orders (status); ALTER TABLE orders ADD b int",
			want: " |  | cannot-run-in-transaction | ",
		},
		"concurrently without one": {
			sql:     "CREATE INDEX CONCURRENTLY ON orders (status); VACUUM orders",
			options: []trace.ParseOption{trace.Wrapped(trace.WrapNone)},
			want:    " | ",
		},
		"Flyway runs it without one": {
			sql:     "CREATE INDEX CONCURRENTLY ON orders (status); DROP INDEX CONCURRENTLY orders_total",
			options: []trace.ParseOption{trace.As(trace.Flyway)},
			want:    " | ",
		},
		"new tables need nothing": {
			sql:  "CREATE TABLE n (a int, b int); CREATE INDEX ON n (a); ALTER TABLE n ALTER a SET NOT NULL; ALTER TABLE n ADD PRIMARY KEY (b)",
			want: " |  |  | ",
		},
		"ignored": {
			sql:  "ALTER TABLE orders ADD a int; -- pglock: ignore no-lock-timeout\n",
			want: "(no-lock-timeout)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			report := run(t, server.copy(t), test.sql, test.options)
			var all []string
			n := 0
			for _, s := range report.Statements {
				if s.Err != nil {
					t.Errorf("%s: %v", s.Piece.SQL, s.Err)
				}
				var rules []string
				for _, f := range s.Findings {
					if n++; f.Ignored {
						f.Rule = "(" + f.Rule + ")"
						n--
					}
					rules = append(rules, f.Rule)
				}
				all = append(all, strings.Join(rules, " "))
			}
			if got := strings.Join(all, " | "); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if got := report.Findings(); got != n {
				t.Errorf("%d findings, want %d", got, n)
			}
		})
	}
}

// With RolledBack nothing lasts, and what cannot be rolled back is not run.
func TestRolledBack(t *testing.T) {
	server := newCopyServer(t)
	dsn := server.copy(t)
	report := run(t, dsn, "BEGIN; ALTER TABLE orders ADD a int; SET lock_timeout = 0; COMMIT; CREATE INDEX CONCURRENTLY ON orders (status); DROP TABLE plain", trace.RolledBack(100*time.Millisecond))
	var got []string
	for _, s := range report.Statements {
		got = append(got, fmt.Sprintf("%v %v %v", s.Skipped != "", s.Err, rulesOf(s)))
	}
	want := []string{"true <nil> []", "false <nil> [no-lock-timeout]", "false <nil> []", "true <nil> []", "true <nil> [cannot-run-in-transaction]", "false <nil> [locks-several-tables]"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	conn := connect(t, dsn)
	defer conn.Close(context.Background())
	mustExec(t, conn, "SELECT total FROM orders", "SELECT FROM plain")
	if _, err := conn.Exec(t.Context(), "SELECT a FROM orders"); err == nil {
		t.Error("the column is there")
	}

	// It does not wait long for a lock.
	mustExec(t, conn, "BEGIN", "LOCK TABLE orders")
	report = run(t, dsn, "SET lock_timeout = 0; ALTER TABLE orders ADD a int; SELECT 1", trace.RolledBack(100*time.Millisecond))
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), "55P03") || len(report.Statements) != 2 {
		t.Errorf("%v", err)
	}
	mustExec(t, conn, "ROLLBACK")
	if report = run(t, dsn, "SAVEPOINT a", trace.RolledBack(100*time.Millisecond)); report.Err() == nil {
		t.Error("a savepoint ran")
	}
}

// A statement that fails ends the script, as it ends the migration.
func TestFails(t *testing.T) {
	server := newCopyServer(t)
	report := run(t, server.copy(t), "ALTER TABLE orders ADD a int; ALTER TABLE orders ADD a int; DROP TABLE orders")
	if len(report.Statements) != 2 || report.Err() == nil || !strings.Contains(report.Err().Error(), "42701") {
		t.Errorf("%v", report.Err())
	}
	report = run(t, server.copy(t), "INSERT INTO items VALUES (1)", trace.Wrapped(trace.WrapNone))
	if report.Err() == nil {
		t.Error("a foreign key was violated without an error")
	}
	report = run(t, server.copy(t), "ALTER TABLE items ADD CONSTRAINT d FOREIGN KEY (order_id) REFERENCES orders DEFERRABLE INITIALLY DEFERRED; ALTER TABLE items DROP CONSTRAINT item_order; INSERT INTO items VALUES (1)")
	if err := report.Err(); err == nil || !strings.HasPrefix(err.Error(), "COMMIT: ") {
		t.Errorf("%v", err)
	}
}
