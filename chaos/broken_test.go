//go:build unix

package chaos

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A checker that cannot fail is worth nothing: one worker of the four has broken
// locks, and that comes to light, by what is named here.
func TestBrokenLocksAreFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		broken broken
		kinds  []string
		want   string
	}{
		{lawless, []string{"none"}, "two held"},
		{yesSayer, []string{"none"}, "two held"},
		{forgetful, []string{"none"}, "left behind"},
		{deaf, []string{"backend terminated"}, "a holder went on"},
	} {
		t.Run(string(test.broken), func(t *testing.T) {
			t.Parallel()
			round := Round{
				Seed: 1, Dir: t.TempDir(), Log: t.Output(),
				broken: test.broken, kinds: test.kinds, notice: 1500 * time.Millisecond, linger: 3 * time.Second,
			}
			result, err := round.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wrong := strings.Join(result.Wrong, "\n")
			if !strings.Contains(wrong, test.want) {
				t.Errorf("a %s lock was not found out: %q", test.broken, wrong)
			}
			if _, err := os.Stat(result.Dir); result.Dir == "" || err != nil {
				t.Errorf("the history is gone: %v", err)
			}
		})
	}
}
