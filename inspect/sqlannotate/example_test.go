package sqlannotate_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/sqlannotate"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The annotations of a statement are part of its text, for anyone who inspects its
// locks.
func ExampleDB() {
	e := &pgtest.Example{}
	dsn := pgtest.Database(e)
	defer e.Done()
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		log.Panic(err)
	}
	defer pool.Close()

	db := sqlannotate.DB(pool)
	ctx := inspect.Annotate(context.Background(), "job", "nightly-report")
	var query string
	err = db.QueryRowContext(ctx, "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&query)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(query[strings.Index(query, "/*"):])
	// Output: /*job='nightly-report'*/
}
