//go:build unix

package chaos_test

import (
	"os"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/stress/chaos"
)

// Every kind of fault once, each followed by a rest after which nothing may be left.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	const seed = 1
	result, err := chaos.Round{Seed: seed, Dir: os.TempDir(), Log: t.Output()}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", chaos.Text(result.Faults, chaos.KindNames()))
	if len(result.Wrong) > 0 {
		t.Errorf("%s\nthe history is in %s", strings.Join(result.Wrong, "\n"), result.Dir)
	}
}
