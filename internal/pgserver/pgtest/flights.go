package pgtest

import (
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// CountFlights starts a proxy in front of the server of dsn, which counts until the end of
// the test.
func CountFlights(t testing.TB, dsn string) *pgserver.Flights {
	t.Helper()
	f, err := pgserver.CountFlights(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
