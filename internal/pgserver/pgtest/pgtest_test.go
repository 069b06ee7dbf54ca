package pgtest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A recorder is a testing.TB that records failures.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Cleanup(f func())  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any) { r.failures = append(r.failures, fmt.Sprintln(args...)) }
func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestALeakedConnectionFailsTheTest(t *testing.T) {
	for _, leaks := range []bool{false, true} {
		r := &recorder{TB: t}
		conn, err := pgx.Connect(t.Context(), pgtest.Database(r)+" application_name=leaker")
		if err != nil {
			t.Fatal(err)
		}
		if !leaks {
			r.Cleanup(func() { conn.Close(context.Background()) })
		}
		r.end()
		conn.Close(t.Context())
		if failures := strings.Join(r.failures, ""); strings.Contains(failures, "leaker") != leaks {
			t.Errorf("leaks: %v; failures: %q", leaks, failures)
		}
	}
}

func TestTheServerIsShared(t *testing.T) {
	first, second := pgtest.Server(t), pgtest.Server(t)
	if first != second {
		t.Error("two servers")
	}
	if own := pgtest.Own(t, pgserver.Options{}); own == first {
		t.Error("Own returned the shared server")
	}
}

func TestDriver(t *testing.T) {
	for value, want := range map[string]string{"": "pgx", "pgx": "pgx", "lib/pq": "postgres"} {
		t.Setenv("PGLOCK_TEST_DRIVER", value)
		if got := pgtest.Driver(t); got != want {
			t.Errorf("%q is the driver %s", value, got)
		}
	}
}
