package trace_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/trace"
)

func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

// Trace a migration on a copy of the schema.
func ExampleRun() {
	ctx := context.Background()
	dsn, done := exampleDatabase() // a server of its own
	defer done()
	db := pgxlock.ConnString(dsn)

	schema, err := trace.Parse("schema.sql", "CREATE TABLE orders (id int, status text);")
	check(err)
	_, err = trace.Load(ctx, db, schema)
	check(err)
	script, err := trace.Parse("0042.sql", "SET lock_timeout = '2s';\nCREATE INDEX orders_status ON orders (status);")
	check(err)
	report, err := trace.Run(ctx, db, script)
	check(err)
	for _, s := range report.Statements {
		for _, l := range s.Locks {
			fmt.Println(l.Mode.PgLocks(), l.Relation.SQL, "stops writes:", l.StopsWrites())
		}
		for _, f := range s.Findings {
			fmt.Println(f.Rule, f.Safer)
		}
	}
	fmt.Println(report.Findings(), report.Err())
	// Output:
	// ShareLock orders stops writes: true
	// index-not-concurrent [CREATE INDEX CONCURRENTLY orders_status ON public.orders USING btree (status);]
	// 1 <nil>
}

// Load makes the copy.
func ExampleLoad() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	schema, err := trace.Parse("schema.sql", "CREATE TABLE orders (id int);\nALTER TABLE orders OWNER TO another;")
	check(err)
	skipped, err := trace.Load(ctx, pgxlock.ConnString(dsn), schema)
	fmt.Println(skipped, err)
	// Output: 1 <nil>
}

// Trace a migration where nobody else works, and roll back.
func ExampleRolledBack() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	script, err := trace.Parse("0042.sql", "CREATE TABLE orders (id int);")
	check(err)
	report, err := trace.Run(ctx, pgxlock.ConnString(dsn), script, trace.RolledBack(time.Second))
	check(err)
	fmt.Println(report.RolledBack, report.Err())
	// Output: true <nil>
}

// Find out how busy the tables are where the migration will run.
func ExampleCompare() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	production := pgxlock.ConnString(dsn)

	script, err := trace.Parse("0042.sql", "CREATE TABLE orders (id int);")
	check(err)
	report, err := trace.Run(ctx, production, script, trace.RolledBack(time.Second))
	check(err)
	check(trace.Compare(ctx, production, report, time.Second))
	for _, s := range report.Statements {
		for _, l := range s.Locks {
			table := report.Traffic.Tables[l.Relation.Key()]
			fmt.Println(table.Bytes, table.Reads, table.Writes)
		}
		fmt.Println("blocked by", len(report.Traffic.Blockers[s.Number]))
	}
	// Output: blocked by 0
}

// Cut a file into statements.
func ExampleRead() {
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "000042_orders.up.sql")
	check(os.WriteFile(file, []byte("SELECT ';';\nDO $$BEGIN; END$$;"), 0o600))

	script, err := trace.Read(file, trace.Wrapped(trace.WrapNone))
	check(err)
	fmt.Println(script.Format, script.Wrap)
	for _, p := range script.Pieces {
		fmt.Println(p.Line, p.SQL)
	}
	// Output:
	// golang-migrate none
	// 1 SELECT ';'
	// 2 DO $$BEGIN; END$$
}

// Lines that this package would have to guess about are errors.
func ExampleParse() {
	_, err := trace.Parse("0042.sql", "SELECT 1;\n\\gexec\n", trace.As(trace.Plain))
	fmt.Println(err)
	// Output: 0042.sql:2: \gexec is psql's, and not supported: only \set, \echo, \i and \ir are
}

// A SyntaxError has the line.
func ExampleSyntaxError_Error() {
	_, err := trace.Parse("0042.sql", "\\if true\n")
	if syntax := new(trace.SyntaxError); errors.As(err, &syntax) {
		fmt.Println(syntax.Line, syntax.Error())
	}
	// Output: 1 0042.sql:1: \if is psql's, and not supported: only \set, \echo, \i and \ir are
}

// A StatementError has the statement that the server refused.
func ExampleStatementError_Error() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	schema, err := trace.Parse("schema.sql", "CREATE TABLE a (id nothing);")
	check(err)
	_, err = trace.Load(ctx, pgxlock.ConnString(dsn), schema)
	if failed := new(trace.StatementError); errors.As(err, &failed) {
		fmt.Println(failed.Piece.SQL)
		fmt.Println(failed.Error())
	}
	// Output:
	// CREATE TABLE a (id nothing)
	// schema.sql:1: ERROR: type "nothing" does not exist (SQLSTATE 42704)
}

// The words that a program can choose from.
func ExampleRules() {
	fmt.Println(len(trace.Rules()), trace.Formats(), trace.Wraps())
	// Output: 17 [plain goose golang-migrate flyway django] [file statement none]
}

// Findings are about the strongest lock on each table.
func ExampleStatement_Strongest() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db := pgxlock.ConnString(dsn)
	schema, err := trace.Parse("schema.sql", "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int);")
	check(err)
	_, err = trace.Load(ctx, db, schema)
	check(err)

	script, err := trace.Parse("0042.sql", "ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a")
	check(err)
	report, err := trace.Run(ctx, db, script)
	check(err)
	for _, l := range report.Statements[0].Strongest() {
		fmt.Println(l.Mode, l.Relation.SQL, l.StopsReads(), l.StopsWrites())
	}
	// Output:
	// SHARE ROW EXCLUSIVE a false true
	// SHARE ROW EXCLUSIVE b false true
}
