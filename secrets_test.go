package pglock_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// No error and no log contains a password, whatever is wrong with it or with its
// connection string.
func TestNoPasswordInErrors(t *testing.T) {
	t.Parallel()
	const canary = "Kanarienvogel"
	server := pgtest.Own(t, pgserver.Options{TCP: true, HBA: []string{"host all bob 127.0.0.1/32 scram-sha-256"}})
	conn := connect(t, server.ConnString("postgres"))
	must1(conn.Exec(t.Context(), "CREATE ROLE bob LOGIN PASSWORD 'another'"))
	port := conn.Config().Port
	for _, dsn := range []string{
		fmt.Sprintf("postgres://bob:%s@127.0.0.1:%d/postgres?sslmode=disable", canary, port),
		fmt.Sprintf("host=127.0.0.1 port=%d user=bob password='%s' sslmode=disable", port, canary),
		fmt.Sprintf("host=127.0.0.1 port=%d user=bob password='%s' sslmode=require", port, canary),
		"postgres://bob:" + canary + "@127.0.0.1:1/d?sslmode=disable",
		"postgres://bob:" + canary + "@nowhere.invalid/d?sslmode=disable",
		"postgres://bob:" + canary + "@127.0.0.1:port/d",
		"postgres://bob:a/" + canary + "@127.0.0.1/d",
		"postgres://bob:" + canary + "%zz@127.0.0.1/d",
		"postgres://bob:" + canary + "@[::1/d",
		"postgres://bob:" + canary + "@a b/d",
		"Postgres://bob:" + canary + "@127.0.0.1/d",
		"bob:" + canary + "@127.0.0.1/d",
		"postgres://127.0.0.1:1/d?password=" + canary + "&sslmode=loud",
		"host=127.0.0.1 port=x password=" + canary,
		"host=127.0.0.1 port=1 password='x " + canary,
		"host=127.0.0.1 port=1 password=x " + canary,
		"host=127.0.0.1 port=1 password=x " + canary + " user=bob",
		"host=127.0.0.1 port=1 password = 'a " + canary + "' sslmode=loud",
	} {
		for name, source := range map[string]driver.Source{
			"pgx": pgxlock.ConnString(dsn), "pgx by sql": sqllock.ConnString("pgx", dsn), "lib/pq": sqllock.ConnString("postgres", dsn),
		} {
			var logged bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			locker, err := pglock.New(source, pglock.Logger(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))))
			must(t, err)
			_, err = locker.Lock(ctx, pglock.Name("x"))
			if err == nil {
				t.Errorf("%s: %s: no error", name, dsn)
			}
			watched := prioritize.RunFor(ctx, source, prioritize.Who{PIDs: []int32{1}}, func(context.Context) error { return nil })
			if watched == nil {
				t.Errorf("%s: %s: no error of prioritize", name, dsn)
			}
			texts := []string{
				fmt.Sprint(err), fmt.Sprintf("%+v %#v", err, err), fmt.Sprint(watched), fmt.Sprintf("%+v", watched), logged.String(),
				fmt.Sprintf("%+v %#v", source, source), fmt.Sprintf("%+v", locker),
			}
			for e := err; e != nil; { // also the wrapped errors
				texts = append(texts, e.Error())
				switch u := e.(type) {
				case interface{ Unwrap() error }:
					e = u.Unwrap()
				case interface{ Unwrap() []error }:
					errs := u.Unwrap()
					e = errs[len(errs)-1]
				default:
					e = nil
				}
			}
			for _, text := range texts {
				if strings.Contains(text, canary[:6]) {
					t.Errorf("%s: %s: %s", name, dsn, text)
				}
			}
			cancel()
			locker.Close()
		}
	}
	if strings.Contains(server.Logs(), canary) {
		t.Error("the server's log contains the password")
	}
}
