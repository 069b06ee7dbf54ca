package pglocktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// Each check must fail for an adapter that breaks its requirement. The table has at least
// one such adapter for each check, and the named check must fail for it.
func TestBrokenAdaptersAreCaught(t *testing.T) {
	t.Parallel()
	type broken struct {
		check, does string
		checks      func(t *testing.T, dsn string) []check
	}
	var table []broken
	for _, b := range brokenSources {
		table = append(table, broken{b.check, b.does, func(t *testing.T, dsn string) []check {
			source := &brokenSource{source: pgxlock.ConnString(dsn), how: b}
			t.Cleanup(source.close)
			return sourceChecks(source)
		}})
	}
	for _, b := range brokenConns {
		table = append(table, broken{b.check, b.does, func(_ *testing.T, dsn string) []check {
			return connChecks(pgxlock.ConnString(dsn), func(t testing.TB) driver.Conn { return b.open(t, dsn) })
		}})
	}
	for _, b := range brokenBeginners {
		table = append(table, broken{b.check, b.does, func(t *testing.T, dsn string) []check {
			pool, err := pgxpool.New(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			return txChecks(pgxlock.ConnString(dsn), b.of(pgxlock.Pool(pool)))
		}})
	}

	for _, b := range brokenDatabases {
		table = append(table, broken{b.check, b.does, func(t *testing.T, dsn string) []check {
			pool, err := pgxpool.New(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			return acquireChecks(brokenDatabase{pgxlock.Pool(pool), b.acquire})
		}})
	}

	// They spend most of their time waiting until a timeout.
	results := make([]chan *recorder, len(table))
	slots := make(chan struct{}, 10)
	for i, b := range table {
		results[i] = make(chan *recorder, 1)
		var one *check
		for _, c := range b.checks(t, pgtest.Database(t)) {
			if c.name == b.check {
				one = &c
			}
		}
		if one == nil {
			t.Fatalf("there is no check %s", b.check)
		}
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] <- record(t, one.run)
		}()
	}
	for i, b := range table {
		r := <-results[i]
		failed, output := r.outcome()
		if !failed {
			t.Errorf("%s: an adapter that %s passes", b.check, b.does)
		}
		t.Logf("%s: an adapter that %s:\n%.500s", b.check, b.does, output)
	}

	all := append(sourceChecks(nil), connChecks(nil, nil)...)
	all = append(all, txChecks[pgx.Tx](nil, nil)...)
	all = append(all, acquireChecks[*pgx.Conn](nil)...)
	for _, c := range all {
		found := false
		for _, b := range table {
			found = found || b.check == c.name
		}
		if !found {
			t.Errorf("no adapter in the table fails %s", c.name)
		}
	}
}

// A sessionBreak describes one way to break sessions. Methods that are nil work.
type sessionBreak struct {
	check, does string

	open   func(context.Context, driver.Source) (driver.Session, error)
	simple func(s *brokenSession, ctx context.Context, sql string) (string, error)
	ask    func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error)
	exec   func(s *brokenSession, ctx context.Context, sql string, args ...any) error
	watch  func(s *brokenSession, ctx context.Context) error
	pid    func(*brokenSession) uint32
	close  func(*brokenSession) error
	share  bool // one session for all callers
}

var brokenSources = []sessionBreak{
	{
		check: "QueryText", does: "cuts long answers",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			reply, err := s.Session.QueryText(ctx, sql, args...)
			return reply[:min(len(reply), 4096)], err
		},
	},
	{
		check: "QueryTextAfterAServerError", does: "hides the SQLSTATE",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			reply, err := s.Session.QueryText(ctx, sql, args...)
			return reply, hidden(err)
		},
	},
	{
		check: "QueryTextForOneValue", does: "makes nothing of no row",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			reply, err := s.Session.QueryText(ctx, sql, args...)
			if stateOf(err) == "" {
				err = nil
			}
			return reply, err
		},
	},
	{
		check: "QueryTextUntilContextEnds", does: "does not heed ctx",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			return s.Session.QueryText(context.WithoutCancel(ctx), sql, args...)
		},
	},
	{
		check: "QueryTextSimple", does: "sends the first statement alone",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			first, _, _ := strings.Cut(sql, "; ")
			return s.Session.QueryTextSimple(ctx, first)
		},
	},
	{
		check: "QueryTextSimple", does: "sends each statement in a message of its own",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			statements := strings.Split(sql, "; ")
			for _, first := range statements[:len(statements)-1] {
				if err := s.Session.Exec(ctx, first); err != nil {
					return "", err
				}
			}
			return s.Session.QueryTextSimple(ctx, statements[len(statements)-1])
		},
	},
	{
		check: "QueryTextSimpleAfterAServerError", does: "hides the SQLSTATE",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			reply, err := s.Session.QueryTextSimple(ctx, sql)
			return reply, hidden(err)
		},
	},
	{
		check: "QueryTextSimpleAfterAServerError", does: "leaves a transaction behind an error",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			return s.Session.QueryTextSimple(ctx, "BEGIN; "+sql+"; COMMIT")
		},
	},
	{
		check: "QueryTextSimpleForOneValue", does: "makes nothing of no row",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			reply, err := s.Session.QueryTextSimple(ctx, sql)
			if stateOf(err) == "" {
				err = nil
			}
			return reply, err
		},
	},
	{
		check: "QueryTextSimpleLeavesNothing", does: "prepares what it runs",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			return s.Session.QueryText(ctx, sql)
		},
	},
	{
		check: "QueryTextSimpleUntilContextEnds", does: "does not heed ctx",
		simple: func(s *brokenSession, ctx context.Context, sql string) (string, error) {
			return s.Session.QueryTextSimple(context.WithoutCancel(ctx), sql)
		},
	},
	{
		check: "ExecAndQuery", does: "loses errors",
		exec: func(s *brokenSession, ctx context.Context, sql string, args ...any) error {
			_ = s.Session.Exec(ctx, sql, args...)
			return nil
		},
	},
	{
		check: "SessionsAreTheirOwn", does: "tells a wrong pid",
		pid: func(s *brokenSession) uint32 { return s.Session.PID() + 1 },
	},
	{check: "SessionsAreTheirOwn", does: "has one session for all", share: true},
	{
		check: "OpenUntilContextEnds", does: "opens without a look at ctx",
		open: func(ctx context.Context, source driver.Source) (driver.Session, error) {
			return source.Open(context.WithoutCancel(ctx))
		},
	},
	{
		check: "CloseEndsTheSession", does: "gives the session back to a pool",
		close: func(*brokenSession) error { return nil },
	},
	{
		check: "CloseInsideATransaction", does: "does not close while a transaction is open",
		exec: func(s *brokenSession, ctx context.Context, sql string, args ...any) error {
			if sql == "BEGIN" {
				s.open.Store(true)
			}
			return s.Session.Exec(ctx, sql, args...)
		},
		close: func(s *brokenSession) error {
			if s.open.Load() {
				return nil
			}
			return s.Session.Close()
		},
	},
	{
		check: "CloseWhileAQueryRuns", does: "waits for what runs before it closes",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			s.running.Store(sql, true)
			defer s.running.Delete(sql)
			return s.Session.QueryText(ctx, sql, args...)
		},
		close: func(s *brokenSession) error {
			for began := time.Now(); time.Since(began) < callTimeout+time.Second; time.Sleep(pollInterval) {
				busy := false
				s.running.Range(func(any, any) bool { busy = true; return false })
				if !busy {
					break
				}
			}
			return s.Session.Close()
		},
	},
	{
		check: "CloseTwice", does: "hangs in a second Close",
		close: func(s *brokenSession) error {
			if !s.closed.TryLock() {
				time.Sleep(callTimeout + time.Second)
			}
			return s.Session.Close()
		},
	},
	{
		check: "CloseAfterLoss", does: "opens another session behind the caller's back",
		ask: (*brokenSession).reconnect,
	},
	{
		check: "WatchUntilContextEnds", does: "returns ctx's error from Watch",
		watch: func(s *brokenSession, ctx context.Context) error {
			return errors.Join(s.Session.Watch(ctx), ctx.Err())
		},
	},
	{
		check: "WatchUntilLoss", does: "says nothing of a loss",
		watch: func(s *brokenSession, ctx context.Context) error {
			_ = s.Session.Watch(ctx)
			return nil
		},
	},
	{
		check: "CloseWhileWatchRuns", does: "watches on after Close",
		watch: func(s *brokenSession, ctx context.Context) error {
			_ = s.Session.Watch(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(callTimeout + time.Second):
			}
			return errors.New("at last")
		},
	},
	{
		check: "LockerLocksAndUnlocks", does: "does not send an unlock",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			sql = strings.ReplaceAll(sql, "pg_catalog.pg_advisory_unlock($1::bigint)", "($1::bigint IS NOT NULL)")
			return s.Session.QueryText(ctx, sql, args...)
		},
	},
	{
		check: "LockerWaits", does: "takes a timeout for the lock",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			reply, err := s.Session.QueryText(ctx, sql, args...)
			if stateOf(err) == "55P03" {
				return fmt.Sprintf("%d:1", s.Session.PID()), nil
			}
			return reply, err
		},
	},
	{
		check: "LockerNoticesLoss", does: "makes up the signs of life",
		ask: func(s *brokenSession, ctx context.Context, sql string, args ...string) (string, error) {
			reply, err := s.Session.QueryText(ctx, sql, args...)
			if err != nil && strings.Contains(sql, "current_setting('pglock.session'") {
				return fmt.Sprintf("%d:1", s.Session.PID()), nil
			}
			return reply, err
		},
		watch: func(_ *brokenSession, ctx context.Context) error {
			<-ctx.Done()
			return nil
		},
	},
	{
		check: "LockerClose", does: "closes what it reads, and not the session",
		close: func(*brokenSession) error { return nil },
	},
	{check: "LockerFindsAPooler", does: "has one session for all", share: true},
}

// A brokenSource opens broken sessions, and closes them at the end.
type brokenSource struct {
	source driver.Source
	how    sessionBreak

	mu     sync.Mutex
	opened []driver.Session
}

func (b *brokenSource) Open(ctx context.Context) (driver.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.how.share && len(b.opened) > 0 {
		return &brokenSession{Session: b.opened[0], source: b}, nil
	}
	open := b.how.open
	if open == nil {
		open = func(ctx context.Context, source driver.Source) (driver.Session, error) { return source.Open(ctx) }
	}
	s, err := open(ctx, b.source)
	if err != nil {
		return nil, err
	}
	b.opened = append(b.opened, s)
	return &brokenSession{Session: s, source: b}, nil
}

func (b *brokenSource) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.opened {
		s.Close()
	}
}

// A brokenSession may still be used by a check's goroutine when the check has given up on
// it and closes the session.
type brokenSession struct {
	driver.Session
	source *brokenSource

	running sync.Map
	closed  sync.Mutex
	open    atomic.Bool                    // whether a transaction is open
	next    atomic.Pointer[driver.Session] // the session that reconnect opened
}

func (s *brokenSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if f := s.source.how.ask; f != nil {
		return f(s, ctx, sql, args...)
	}
	return s.Session.QueryText(ctx, sql, args...)
}

func (s *brokenSession) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	if f := s.source.how.simple; f != nil {
		return f(s, ctx, sql)
	}
	return s.Session.QueryTextSimple(ctx, sql)
}

func (s *brokenSession) Exec(ctx context.Context, sql string, args ...any) error {
	if f := s.source.how.exec; f != nil {
		return f(s, ctx, sql, args...)
	}
	return s.Session.Exec(ctx, sql, args...)
}

func (s *brokenSession) Watch(ctx context.Context) error {
	if f := s.source.how.watch; f != nil {
		return f(s, ctx)
	}
	return s.Session.Watch(ctx)
}

func (s *brokenSession) PID() uint32 {
	if f := s.source.how.pid; f != nil {
		return f(s)
	}
	return s.Session.PID()
}

func (s *brokenSession) Close() error {
	if f := s.source.how.close; f != nil {
		return f(s)
	}
	if s.source.how.share {
		return nil
	}
	return s.Session.Close()
}

// reconnect is a QueryText that continues in another session after the first one is lost.
func (s *brokenSession) reconnect(ctx context.Context, sql string, args ...string) (string, error) {
	session := s.Session
	if next := s.next.Load(); next != nil {
		session = *next
	}
	reply, err := session.QueryText(ctx, sql, args...)
	if err == nil || stateOf(err) != "" && stateOf(err) != "57P01" {
		return reply, err
	}
	next, err := s.source.Open(ctx)
	if err != nil {
		return "", err
	}
	s.next.Store(&next)
	return next.QueryText(ctx, sql, args...)
}

// hidden returns an error with the same text that wraps nothing.
func hidden(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(err.Error())
}
