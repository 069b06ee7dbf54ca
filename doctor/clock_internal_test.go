package doctor

import (
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// A client whose clock is wrong is compared with a real server.
func TestClockOfTheClient(t *testing.T) {
	t.Parallel()
	source := pgxlock.ConnString(pgtest.Database(t))
	for _, wrong := range []time.Duration{0, -time.Hour, time.Hour} {
		shifted := func(o *options) { o.now = func() time.Time { return time.Now().Add(wrong) } }
		report, err := Run(t.Context(), source, Only("clock"), shifted)
		if err != nil || len(report.Findings) != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		if f := report.Findings[0]; f.Level == OK != (wrong == 0) {
			t.Errorf("%v wrong: %+v", wrong, f)
		}
	}
}
