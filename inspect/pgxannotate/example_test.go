package pgxannotate_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/pgxannotate"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// exampleTB is as much of a test as a database needs.
type exampleTB struct {
	testing.TB
	atEnd []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.atEnd = append(e.atEnd, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Fatal(args ...any)            { log.Panic(args...) }
func (e *exampleTB) Fatalf(f string, args ...any) { log.Panicf(f, args...) }

// What a statement is for stands in it, and is seen by whoever sees its locks.
func ExampleDB() {
	e := &exampleTB{}
	dsn := pgtest.Database(e)
	defer func() {
		for _, f := range e.atEnd {
			f()
		}
	}()
	pool, err := pgxpool.New(context.Background(), dsn)
	if err != nil {
		log.Panic(err)
	}
	defer pool.Close()

	db := pgxannotate.DB(pool)
	ctx := inspect.Annotate(context.Background(), "job", "nightly-report")
	var query string
	err = db.QueryRow(ctx, "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&query)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(query[strings.Index(query, "/*"):])
	// Output: /*job='nightly-report'*/
}
