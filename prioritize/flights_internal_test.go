package prioritize

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// Before the function begins, the watcher's session waits for the server three times: to
// connect, to identify and set up the session, and to mark the run. The connection that it
// watches waits once, to be identified.
func TestFlightsBeforeTheFunction(t *testing.T) {
	t.Parallel()
	flights := pgtest.CountFlights(t, pgtest.Database(t))
	conn, err := pgx.Connect(t.Context(), flights.ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	flights.Take()
	who, err := identify(t.Context(), opRun, pgxlock.Conn(conn))
	if err != nil {
		t.Fatal(err)
	}
	if n := flights.Take(); n != 1 {
		t.Errorf("the connection took %d flights, want 1", n)
	}
	c, err := newConfig(opRun, []RunOption{Terminate()})
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]driver.Source{
		"pgx":                  pgxlock.ConnString(flights.ConnString()),
		"database/sql, pgx":    sqllock.ConnString("pgx", flights.ConnString()),
		"database/sql, lib/pq": sqllock.ConnString("postgres", flights.ConnString()),
	} {
		w, err := startWatcher(t.Context(), opRun, &c, who, source)
		if err != nil {
			t.Fatal(err)
		}
		if n := flights.Take(); n != 3 {
			t.Errorf("%s: the watcher took %d flights, want 3", name, n)
		}
		w.close()
	}
}
