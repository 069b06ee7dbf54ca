package render

import (
	"errors"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A session is described in the same words in each view, and untrusted text is escaped.
func TestSession(t *testing.T) {
	long := "a lock whose name does not fit in an application_name, which has 63 bytes"
	for want, s := range map[string]*inspect.Session{
		`pid 7 ("shop", user app)`:         {PID: 7, Application: "shop", User: "app"},
		`pid 7 (user app)`:                 {PID: 7, User: "app"},
		`pid 7 (autovacuum worker)`:        {PID: 7, BackendType: "autovacuum worker"},
		`pid 7 ("\x1b[2J", user \x1b[2J)`:  {PID: 7, Application: "\x1b[2J", User: "\x1b[2J"},
		`pid 7 ("pglock run é", user app)`: {PID: 7, Application: ApplicationName("run", "é"), User: "app", Context: `{"lock":"é"}`},
		`pid 7 ("` + termtext.Cut("pglock run "+long, maxQuoted) + `", user app)`: {
			PID: 7, Application: ApplicationName("run", long), User: "app", Context: inspect.Context(`{"lock":"` + long + `"}`),
		},
		`prepared transaction "transfer 3"`: {Prepared: &inspect.Prepared{GID: "transfer 3"}, User: "app"},
		`a prepared transaction`:            {Prepared: &inspect.Prepared{}},
	} {
		if got := Session(s); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

func TestHolders(t *testing.T) {
	since := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	run := pglock.Holder{PID: 7, Application: ApplicationName("run", "é"), User: "app", Client: "10.0.0.7", Since: since, Granted: true}
	waiter := pglock.Holder{PID: 8, User: "app"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("unknown"), `lock "é" is held by another session`},
		{&pglock.Error{}, `lock "é" is held by another session`},
		{&pglock.Error{Holders: []pglock.Holder{{Granted: true}}}, `lock "é" is held by a prepared transaction`},
		{&pglock.Error{Holders: []pglock.Holder{waiter}}, `lock "é" is waited for by pid 8 (user app, from the server's own host)`},
		{
			&pglock.Error{Holders: []pglock.Holder{run, waiter}},
			`lock "é" is held by pid 7 ("pglock run é", user app, from 10.0.0.7, session since 2026-03-01T03:00:00Z); pid 8 (user app, from the server's own host)`,
		},
	} {
		if got := Holders("é", test.err); got != test.want {
			t.Errorf("%s, not %s", got, test.want)
		}
	}
}
