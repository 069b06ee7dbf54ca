package prioritize

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/pgxlock"
)

// BenchmarkAsk measures the cost of the watcher's statements. "nothing" is the cost
// of the same round trip with an empty statement.
func BenchmarkAsk(b *testing.B) {
	dsn := pgtest.Database(b)
	conn, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	e, err := openObserver(b.Context(), pgxlock.ConnString(dsn))
	if err != nil {
		b.Fatal(err)
	}
	defer e.close()
	pid := int32(conn.PgConn().PID())
	for name, ask := range map[string]func() error{
		"nothing": func() error {
			_, err := e.(*sessionObserver).session.QueryText(b.Context(), "SELECT 'x'")
			return err
		},
		"poll": func() error {
			_, err := e.poll(b.Context(), Who{PIDs: []int32{pid}})
			return err
		},
		"poll for several": func() error {
			_, err := e.poll(b.Context(), Who{Applications: []string{"none"}})
			return err
		},
		"signal": func() error {
			_, err := e.signal(b.Context(), signal.Request{Waiter: pid, Blocker: pid})
			return err
		},
		"pairs": func() error {
			_, err := e.pairs(b.Context(), []int32{pid}, nil)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
