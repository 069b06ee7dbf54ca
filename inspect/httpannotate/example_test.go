package httpannotate_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/httpannotate"
	"github.com/pglock-go/pglock/inspect/pgxannotate"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A request holds a lock, and anyone who inspects it sees which request.
func ExampleHandler() {
	e := &pgtest.Example{}
	dsn := pgtest.Database(e)
	defer e.Done()
	pool, err := pgxpool.New(context.Background(), dsn)
	if err != nil {
		log.Panic(err)
	}
	defer pool.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		tx, err := pool.Begin(r.Context())
		if err != nil {
			log.Panic(err)
		}
		defer tx.Rollback(r.Context())
		if _, err := pgxannotate.DB(tx).Exec(r.Context(), "SELECT pg_advisory_xact_lock($1::int)", 42); err != nil {
			log.Panic(err)
		}
		locks, err := inspect.Locks(r.Context(), pgxlock.Pool(pool), inspect.Where("context.route", "=", "/orders/{id}"), inspect.Where("type", "=", "advisory"))
		if err != nil || len(locks) != 1 {
			log.Panic(locks, err)
		}
		fmt.Println(locks[0].Target(), locks[0].Context)
	})
	handler := httpannotate.Handler(mux)

	r := httptest.NewRequest("POST", "/orders/7", nil)
	r.Header.Set("X-Request-ID", "c0ffee")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	// Output: advisory 42 {"method":"POST","request_id":"c0ffee","route":"/orders/{id}"}
}
