package trace_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/trace"
)

// Compare reads the sizes, the traffic, and who would block the statements now; it locks
// no table.
func TestCatalogCompare(t *testing.T) {
	t.Parallel()
	server := newCopyServer(t)
	dsn := pgtest.Database(t)
	busy, holder := connect(t, dsn), connect(t, dsn)
	defer busy.Close(context.Background())
	defer holder.Close(context.Background())
	mustExec(t, busy, shop, "INSERT INTO orders (id) SELECT generate_series(1, 5000)", "VACUUM ANALYZE orders")
	// A reader conflicts with ALTER TABLE, and not with CREATE INDEX.
	mustExec(t, holder, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT FROM orders LIMIT 1")

	report := run(t, server.copy(t), "ALTER TABLE orders ADD region text; CREATE INDEX ON orders (status); DROP INDEX CONCURRENTLY orders_total; ALTER TABLE customers ADD a int; CREATE TABLE unknown (a int)",
		trace.Wrapped(trace.WrapNone))
	working, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { // counters are published only now and then
		defer close(stopped)
		for working.Err() == nil {
			if _, err := busy.Exec(t.Context(), "INSERT INTO customers VALUES (1)"); err != nil {
				t.Error(err)
				return
			}
			if _, err := busy.Exec(t.Context(), "DELETE FROM customers"); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() { stop(); <-stopped }()
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if err := trace.Compare(deadline, pgxlock.ConnString(dsn), report, time.Second); err != nil {
			t.Fatal(err)
		}
		if customers := report.Traffic.Tables["public.customers"]; customers.Reads > 0 && customers.Writes > 0 {
			break
		}
	}
	orders := report.Traffic.Tables["public.orders"]
	if orders.Rows != 5000 || orders.Bytes < 100_000 || orders.IndexBytes < 100_000 {
		t.Errorf("%+v", orders)
	}
	if _, ok := report.Traffic.Tables["public.unknown"]; ok {
		t.Error("a table is there that only the copy has")
	}
	pid := holder.PgConn().PID()
	for number, want := range map[int]pglock.Mode{1: pglock.AccessShare, 2: 0, 3: 0, 4: 0} {
		blockers := report.Traffic.Blockers[number]
		i := slices.IndexFunc(blockers, func(b trace.Blocker) bool { return b.Session.PID == int32(pid) })
		switch {
		case number == 3 && i < 0:
			t.Error("DROP INDEX CONCURRENTLY would not wait for a transaction with a snapshot")
		case want != 0 && (i < 0 || blockers[i].Mode != want || blockers[i].Relation.Name != "orders"):
			t.Errorf("statement %d: %+v", number, blockers)
		case want == 0 && number != 3 && i >= 0:
			t.Errorf("statement %d would wait for %+v", number, blockers[i])
		}
	}
}
