package prioritize_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// Neither the watcher's session nor the caller's uses objects that others have put
// before pg_catalog in search_path.
func TestInShadow(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]func(dsn string) driver.Source{
		"pgx":    func(dsn string) driver.Source { return pgxlock.ConnString(dsn) },
		"lib/pq": func(dsn string) driver.Source { return sqllock.ConnString("postgres", dsn) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			pgtest.Shadow(t, s.dsn)
			dsn := s.dsn + " search_path=" + pgtest.ShadowPath
			me, db := s.sessionOn(dsn, "me"), source(dsn)
			alter := func(column string) func(context.Context) error {
				return func(ctx context.Context) error {
					_, err := me.conn.Exec(ctx, "ALTER TABLE public.t ADD COLUMN "+column+" bigint")
					return err
				}
			}
			in := s.session("in the way").do("BEGIN", "SELECT FROM t")
			log := s.log()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			superusers := prioritize.Allow(inspect.Superusers)
			s.must(prioritize.RunOn(ctx, db, pgxlock.Conn(me.conn), alter("a"), prioritize.After(soon), log.option(),
				superusers, prioritize.Terminate(), prioritize.Only(inspect.Where("blocking_application", "=", "in the way"))))
			in.wantAlive(false)
			log.want(prioritize.Terminated, in.pid, 1)

			busy := s.session("busy").start("SELECT pg_sleep(1000) FROM t LIMIT 1")
			s.must(prioritize.RunFor(ctx, db, prioritize.Who{Applications: []string{"me"}}, alter("b"),
				prioritize.After(soon), superusers, prioritize.CancelThenTerminate(time.Minute)))
			s.wantCode(busy.Join(), "57014")

			idle := s.session("idle").do("BEGIN", "SELECT FROM t")
			log = s.log()
			log.hear = func(e prioritize.Event) {
				if e.Kind == prioritize.Tried && e.Try == 1 {
					if e.Blocked == nil || e.Blocked[0].Blocking.PID != idle.pid {
						t.Errorf("the first try was blocked by %v", e.Blocked)
					}
					idle.do("COMMIT")
				}
			}
			s.must(prioritize.RetryOn(ctx, db, pgxlock.Conn(me.conn), func(ctx context.Context) error {
				log.untilWatched()
				return alter("c")(ctx)
			}, retry(surelySeen(), log.option())...))
		})
	}
}

// An invalid name is refused before the watcher opens its session.
func TestWhoOfHostileNames(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, who := range []prioritize.Who{
		{Applications: []string{"a\x00"}}, {Users: []string{"\x00"}}, {Applications: []string{"\xff"}}, {Users: []string{"a\xc3"}}, {Applications: []string{strings.Repeat("x", 64)}},
	} {
		ran := false
		err := prioritize.RunFor(t.Context(), pgxlock.ConnString(s.dsn), who, func(context.Context) error { ran = true; return nil })
		var state interface{ SQLState() string }
		if err == nil || ran || errors.As(err, &state) {
			t.Errorf("%+v: %v", who, err)
		}
	}
	// A name that is merely odd is accepted.
	for _, name := range []string{"a'b", `a"b\`, "\x1b[31m", "日本", "{}", "%s"} {
		s.must(prioritize.RunFor(t.Context(), pgxlock.ConnString(s.dsn), prioritize.Who{Applications: []string{name}, Users: []string{name}}, func(context.Context) error { return nil }))
	}
}
