package inspect_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// Everything works the same through each driver and each of its query modes.
func TestDrivers(t *testing.T) {
	s := newScene(t)
	s.session("a").do("CREATE TABLE t (id int)", "BEGIN", "LOCK TABLE t")
	s.session("b").await("/*pga_context={\"é\": \"ü\"}*/ SELECT * FROM t")
	want := describe(s.take().Pairs)

	queriers := map[string]driver.Querier{}
	pool, err := pgxpool.New(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	queriers["pgx pool"] = pgxlock.Pool(pool)
	config, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	simple, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer simple.Close(t.Context())
	queriers["pgx, simple protocol"] = pgxlock.Conn(simple)
	for _, driverName := range []string{"pgx", "postgres"} {
		db, err := sql.Open(driverName, s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		queriers["database/sql with "+driverName] = sqllock.Conn(conn)
	}
	for name, q := range queriers {
		t.Run(name, func(t *testing.T) {
			through := &scene{t: t, dsn: s.dsn, eye: s.eye, q: q}
			if err := through.everything(); err != nil {
				t.Error(err)
			}
			pairs := through.take().Pairs
			if got := describe(pairs); got != want {
				t.Errorf("the pairs are\n%swant\n%s", strings.TrimSpace(got), want)
			}
			if got := text(pairs[0].Context, "é"); got != "ü" {
				t.Errorf("the context is %q", got)
			}
		})
	}
}
