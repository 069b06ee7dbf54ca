//go:build unix

package chaos_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/stress/chaos"
)

// Every kind of fault once, each followed by a rest after which nothing may be left.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	round(t, chaos.Round{Seed: 1})
}

// The same with leases. Longer than three seconds, so that a server that is restarted costs
// none.
func TestEveryFaultOfLeases(t *testing.T) {
	t.Parallel()
	round(t, chaos.Round{Seed: 1, Leases: 5 * time.Second})
}

// round runs a round, in which nothing may be wrong.
func round(t *testing.T, r chaos.Round) {
	r.Dir, r.Log = os.TempDir(), t.Output()
	result, err := r.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s%s", chaos.Text(result.Faults, chaos.KindNames()), result.Leases)
	if len(result.Wrong) > 0 {
		t.Errorf("%s\nthe history is in %s", strings.Join(result.Wrong, "\n"), result.Dir)
	}
}
