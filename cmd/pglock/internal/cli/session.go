package cli

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// A session is the connection of a verb that inspects locks or ends sessions.
type session struct {
	guarded driver.Querier // made by inspect.Guard
	conn    *pgx.Conn
	user    string // the role it connected as
}

// open opens a session for a verb.
func (a *app) open(ctx context.Context, verb string) (*session, error) {
	target, err := a.target(applicationName(verb, ""))
	if err != nil {
		return nil, err
	}
	var s *session
	err = a.connection.WithPassword(ctx, target, func() error {
		conn, err := target.Connect(ctx)
		if err != nil {
			return err
		}
		guarded, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
		s = &session{guarded, conn, target.User}
		if err != nil {
			s.close()
		}
		return err
	})
	return s, err
}

// target returns the target of the connection flags, and prints warnings.
func (a *app) target(application string) (*connect.Target, error) {
	target, err := a.connection.Target(a.lookup, application)
	if err != nil {
		return nil, err
	}
	for _, warning := range target.Warnings {
		a.logf("%s", warning)
	}
	return target, nil
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}
