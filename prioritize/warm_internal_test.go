package prioritize

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// The watcher plans the statement that signals when it starts, and runs all of it while a
// session is blocked, before the blocker is due.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	blocker, conn := connect(), connect()
	for _, sql := range []string{`CREATE TABLE t ()`, `BEGIN`, `LOCK TABLE t`} {
		if _, err := blocker.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	source := &recordingSource{Source: pgxlock.ConnString(dsn), actions: make(chan string, 10)}
	err := RunOn(t.Context(), source, pgxlock.Conn(conn), func(ctx context.Context) error {
		if action := <-source.actions; action != "" {
			t.Errorf("the statement ran first with the action %q", action)
		}
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, `BEGIN; LOCK TABLE t; ROLLBACK`)
			done <- err
		}()
		select {
		case action := <-source.actions:
			if action != "warm up" {
				t.Errorf("the statement ran next with the action %q", action)
			}
		case <-time.After(time.Minute):
			t.Error("the statement did not run while the session was blocked")
		}
		if _, err := blocker.Exec(ctx, `ROLLBACK`); err != nil {
			t.Error(err)
		}
		return <-done
	}, After(time.Hour), Terminate())
	if err != nil {
		t.Fatal(err)
	}
}

// A recordingSource records the actions of the statements that signal.
type recordingSource struct {
	driver.Source
	actions chan string
}

func (r *recordingSource) Open(ctx context.Context) (driver.Session, error) {
	s, err := r.Source.Open(ctx)
	return recordingSession{s, r}, err
}

type recordingSession struct {
	driver.Session
	source *recordingSource
}

func (s recordingSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if len(args) == 12 { // signal.sql
		s.source.actions <- args[7]
	}
	return s.Session.QueryText(ctx, sql, args...)
}
