//go:build unix

package chaos

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// A checker that cannot fail is worth nothing: one of the four workers has broken locks,
// and the checker must report what is named here.
func TestBrokenLocksAreFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		broken broken
		leases time.Duration
		random int
		kind   string
		want   string
	}{
		{lawless, 0, 0, "none", "two held"},
		{yesSayer, 0, 0, "none", "two held"},
		{forgetful, 0, 0, "none", "left behind"},
		{ignoring, 0, 0, "backend terminated", "a holder continued"},
		{ignoring, 3 * time.Second, 0, "black hole, longer than the TTL", "two held"},
		{weakened, 3 * time.Second, 5, "clock stepped", "stale fenced write"},
	} {
		t.Run(fmt.Sprintf("%s/%v", test.broken, test.leases), func(t *testing.T) {
			t.Parallel()
			// It depends on timing whether a round shows the fault, so several are run.
			var wrong string
			for seed := range uint64(6) {
				round := Round{
					Seed: 1 + seed, Dir: t.TempDir(), Log: t.Output(),
					Leases: test.leases, Random: test.random, broken: test.broken, kinds: []string{test.kind}, notice: 1500 * time.Millisecond, linger: 3 * time.Second,
				}
				result, err := round.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if wrong = strings.Join(result.Wrong, "\n"); wrong == "" {
					continue
				}
				if _, err := os.Stat(result.Dir); result.Dir == "" || err != nil {
					t.Errorf("the history was removed: %v", err)
				}
				if strings.Contains(wrong, test.want) {
					return
				}
			}
			t.Errorf("a lock that is %s was not reported: %q", test.broken, wrong)
		})
	}
}

// Everything left behind is reported: a lock, a transaction, a session without an owner.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	r := &round{Round: Round{linger: time.Millisecond}, server: server, processes: []*process{{config: workerConfig{Name: "w0-1"}}}}
	connect := func(name string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), server.ConnString("postgres")+" application_name="+name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	want := func(what string, n int) {
		t.Helper()
		left, err := r.awaitNoLeftovers(t.Context())
		if err != nil || len(left) != n {
			t.Errorf("%s: left behind: %q, %v; want %d", what, left, err, n)
		}
	}
	alive, killed := connect("chaos-w0-1"), connect("chaos-w0-0")
	want("a session of a process that was killed", 1)
	killed.Close(t.Context())
	r.linger = time.Minute
	want("a session of a living worker", 0)
	r.linger = time.Millisecond
	for _, sql := range []string{"BEGIN", "SELECT pg_advisory_lock(1)"} {
		if _, err := alive.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	want("a transaction and a lock", 2)
	if _, err := alive.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	want("a lock", 1)
	r.closed = true
	want("a lock and a session of a worker that has closed", 2)
	r.conn.Close(t.Context())
}
