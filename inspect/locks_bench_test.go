package inspect_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// The benchmarks alternate with the plain query of Postgres on the same connection,
// and report the ratio of the medians. Most use a server with 100,000 locks and 200
// sessions that wait in one queue.

func BenchmarkReadSnapshot(b *testing.B) {
	q := bigServer(b)
	turns(b, func() {
		if n := readAll(b, q, "SELECT * FROM pg_locks", 16); n < 100_000 {
			b.Fatalf("%d rows of pg_locks", n)
		}
	}, func() {
		s, err := inspect.ReadSnapshot(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		if len(s.Locks) < 100_000 || len(s.Pairs) != 200*201/2 {
			b.Fatalf("%d locks, %d pairs", len(s.Locks), len(s.Pairs))
		}
	})
}

func BenchmarkLocks(b *testing.B) {
	q := bigServer(b)
	turns(b, func() { readAll(b, q, "SELECT * FROM pg_locks", 16) }, func() {
		if locks, err := inspect.Locks(b.Context(), q); err != nil || len(locks) < 100_000 {
			b.Fatal(len(locks), err)
		}
	})
}

func BenchmarkBlocked(b *testing.B) { benchmarkBlocked(b, bigServer(b)) }

// The same queue, for a table, on a server with few other locks.
func BenchmarkBlockedQueue(b *testing.B) { benchmarkBlocked(b, queueServer(b)) }

func benchmarkBlocked(b *testing.B, q driver.Querier) {
	bare := "SELECT pid, pg_blocking_pids(pid)::text FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted) AS w"
	turns(b, func() {
		if n := readAll(b, q, bare, 2); n != 200 {
			b.Fatalf("%d sessions wait", n)
		}
	}, func() {
		if pairs, err := inspect.Blocked(b.Context(), q); err != nil || len(pairs) != 200*201/2 {
			b.Fatal(len(pairs), err)
		}
	})
}

func BenchmarkForest(b *testing.B) {
	s, err := inspect.ReadSnapshot(b.Context(), bigServer(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if f := s.Forest(); len(f) != 1 || f[0].Behind != 200 {
			b.Fatal(len(f))
		}
	}
}

// On a quiet server this is the time of the statement itself.
func BenchmarkQuiet(b *testing.B) {
	q := pgxlock.Conn(open(b, pgtest.Database(b)))
	for name, do := range map[string]func(context.Context) error{
		"ReadSnapshot": func(ctx context.Context) error { _, err := inspect.ReadSnapshot(ctx, q); return err },
		"Locks":        func(ctx context.Context) error { _, err := inspect.Locks(ctx, q); return err },
		"Blocked":      func(ctx context.Context) error { _, err := inspect.Blocked(ctx, q); return err },
		"bare":         func(context.Context) error { readAll(b, q, "SELECT * FROM pg_locks", 16); return nil },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// turns alternates between bare and ours.
func turns(b *testing.B, bare, ours func()) {
	var times [2][]time.Duration
	for b.Loop() {
		for i, do := range []func(){bare, ours} {
			start := time.Now()
			do()
			times[i] = append(times[i], time.Since(start))
		}
	}
	var medians [2]float64
	for i := range times {
		slices.Sort(times[i])
		medians[i] = float64(times[i][len(times[i])/2]) / 1e6
	}
	b.ReportMetric(medians[0], "bare-ms")
	b.ReportMetric(medians[1], "ours-ms")
	b.ReportMetric(medians[1]/medians[0], "ratio")
}

// bigServer returns a server with 100,000 locks, and 200 sessions that wait in one
// queue behind one holder.
func bigServer(b *testing.B) driver.Querier {
	server := pgtest.Own(b, pgserver.Options{Settings: map[string]string{
		"max_locks_per_transaction": "1000", "max_connections": "250", "deadlock_timeout": "1h",
	}})
	dsn := server.ConnString(pgtest.DatabaseOn(b, server))
	holder := open(b, dsn)
	if _, err := holder.Exec(b.Context(), "SELECT pg_advisory_lock(i) FROM generate_series(1, 100000) AS i"); err != nil {
		b.Fatal(err)
	}
	s := &scene{t: b, dsn: dsn, eye: open(b, dsn)}
	for range 200 {
		s.session("waiter").Background("SELECT pg_advisory_lock(1)")
	}
	s.until("200 waits", "SELECT count(*) = 200 FROM pg_locks WHERE NOT granted")
	return pgxlock.Conn(open(b, dsn))
}

// queueServer returns a server with 200 sessions that wait for one table.
func queueServer(b *testing.B) driver.Querier {
	server := pgtest.Own(b, pgserver.Options{Settings: map[string]string{"max_connections": "250", "deadlock_timeout": "1h"}})
	dsn := server.ConnString(pgtest.DatabaseOn(b, server))
	s := &scene{t: b, dsn: dsn, eye: open(b, dsn)}
	holder := open(b, dsn)
	for _, statement := range []string{"CREATE TABLE queue ()", "BEGIN", "LOCK TABLE queue"} {
		if _, err := holder.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	for range 200 {
		s.session("waiter").Background("TRUNCATE queue")
	}
	s.until("200 waits", "SELECT count(*) = 200 FROM pg_locks WHERE NOT granted")
	return pgxlock.Conn(open(b, dsn))
}

func open(b *testing.B, dsn string) *pgx.Conn {
	conn, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// readAll reads rows in the plain way, and counts them.
func readAll(b *testing.B, q driver.Querier, query string, columns int) int {
	rows, err := q.Query(b.Context(), query)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	values := make([]sql.NullString, columns)
	dest := make([]any, columns)
	for i := range values {
		dest[i] = &values[i]
	}
	n := 0
	for ; rows.Next(); n++ {
		if err := rows.Scan(dest...); err != nil {
			b.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return n
}
