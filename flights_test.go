package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// The first lock of a Locker waits for the server as often as a bare connection does: to
// connect, to identify and set up the session, and to lock. The server proves in the same
// message that it has advisory locks.
func TestFlightsOfTheFirstLock(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	flights := pgtest.CountFlights(t, d.dsn)
	bare := must1(pgx.Connect(t.Context(), flights.ConnString()))
	_, err := bare.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, 1)
	must(t, err)
	if n := flights.Take(); n != 3 {
		t.Errorf("a bare connection waited %d times", n)
	}
	must(t, bare.Close(context.Background()))
	for name, test := range map[string]struct {
		source driver.Source
		open   int
	}{
		"pgx":                         {pgxlock.ConnString(flights.ConnString()), 2},
		"database/sql, pgx":           {sqllock.ConnString("pgx", flights.ConnString()), 2},
		"database/sql, lib/pq":        {sqllock.ConnString("postgres", flights.ConnString()), 2},
		"an application pool, pgx":    {sqllock.DB(openSQL(t, "pgx", flights.ConnString())), 3}, // it may be tainted
		"an application pool, lib/pq": {sqllock.DB(openSQL(t, "postgres", flights.ConnString())), 3},
	} {
		t.Run(name, func(t *testing.T) {
			flights.Take()
			locker := newLocker(t, test.source, pglock.Heartbeat(time.Hour))
			first := lock(t, locker, pglock.Name("first"))
			if n := flights.Take(); n != test.open+1 {
				t.Errorf("the first lock took %d flights, want %d", n, test.open+1)
			}
			must(t, first.Unlock())
			if n := flights.Take(); n != 1 {
				t.Errorf("the first unlock took %d flights, want 1", n)
			}
			if n := locker.Stats().RoundTrips; n != 3 {
				t.Errorf("the Locker counted %d statements, want 3", n)
			}
		})
	}
}

// A connection is identified and set up for inspecting locks in one flight.
func TestFlightsOfGuard(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	flights := pgtest.CountFlights(t, d.dsn)
	conn := must1(pgx.Connect(t.Context(), flights.ConnString()))
	defer conn.Close(context.Background())
	flights.Take()
	_, shared, err := inspect.Guard(t.Context(), pgxlock.Conn(conn))
	must(t, err)
	if n := flights.Take(); n != 1 || shared {
		t.Errorf("%d flights, want 1; shared: %v", n, shared)
	}
}
