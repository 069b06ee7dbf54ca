package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// Limits and durations of opening a session.
const (
	// openTimeout bounds opening the only session. extraOpenTimeout applies if there is
	// another session, which can do the work.
	openTimeout      = 15 * time.Second
	extraOpenTimeout = 5 * time.Second
	// openPause is how long no session is opened after opening one failed.
	openPause = 2 * time.Second
	// resetTimeout bounds resetting the settings of a pooler's session.
	resetTimeout = 3 * time.Second
)

// connect opens the connection and prepares it for holding locks.
func (s *session) connect() error {
	e := s.engine
	limit := openTimeout
	e.mu.Lock()
	if len(e.sessions) > 1 {
		limit = extraOpenTimeout
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	conn, err := e.config.Open(ctx)
	if err != nil {
		return openError(err)
	}
	e.mu.Lock()
	s.conn = conn
	e.mu.Unlock()
	if err := s.setUp(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost != nil {
		return s.lost
	}
	s.open, s.lastUse = true, s.lastReply
	e.noOpenUntil = time.Time{}
	s.takePoller()
	return nil
}

// setUp identifies the session and sets it up, in one message that changes nothing unless
// the session is ours alone. With AllowPooler, a session that is or may be a pooler's is
// set up afterwards.
func (s *session) setUp(ctx context.Context) error {
	e := s.engine
	s.token = rand.Text()
	e.mu.Lock()
	settings := handshake.Settings{
		Token: s.token, PlanCacheMode: "force_generic_plan", ApplicationName: "pglock",
		Heartbeat: e.config.Heartbeat, Prove: e.provedServer == "",
	}
	e.mu.Unlock()
	hello, err := s.meet(ctx, settings)
	if err != nil {
		return err
	}
	s.shared = hello.Path != handshake.Direct
	s.prefix = strconv.Itoa(int(hello.PID)) + ":"
	if start, err := hello.StartTime(); err == nil {
		s.forgetBackend = registerBackend(hello.PID, start)
	}
	e.mu.Lock()
	s.pid, s.start = hello.PID, hello.Start
	e.mu.Unlock()

	if s.shared {
		err := handshake.Persist(ctx, func() error { return hello.SetUp(ctx, s.counted(), settings) })
		if err != nil {
			return openError(err)
		}
	}
	if err := s.prove(ctx, hello); err != nil {
		return err
	}
	s.lastReply = time.Now()
	s.timer = time.NewTimer(time.Hour)
	s.newWatchdog()
	return nil
}

// meet identifies the session, and sets it up if it is ours alone. It returns an error if
// the session must not hold locks.
func (s *session) meet(ctx context.Context, settings handshake.Settings) (hello handshake.Hello, err error) {
	e := s.engine
	hello, err = handshake.Meet(ctx, s.counted(), settings)
	switch {
	case lacksFeature(err):
		err = fmt.Errorf("%w: %w", ErrNoAdvisoryLocks, err)
	case err != nil:
		err = openError(err)
	case hello.Token != "":
		err = fmt.Errorf("%w: another Locker uses this session", ErrPooler)
	case hello.Path == handshake.Pooled && !e.config.AllowPooler:
		err = ErrPooler
	case hello.Path == handshake.Unknown && !e.config.AllowPooler:
		err = fmt.Errorf("%w: %w", ErrPooler, errUnknownPath)
	case hello.Standby:
		err = ErrStandby
	}
	return hello, err
}

// counted returns the connection, for statements that set the session up.
func (s *session) counted() handshake.Session { return counted{s.conn, &s.engine.roundTrips} }

// counted counts the statements of a connection.
type counted struct {
	Conn
	n *atomic.Uint64
}

func (c counted) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	c.n.Add(1)
	return c.Conn.QueryText(ctx, sql, args...)
}

func (c counted) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	c.n.Add(1)
	return c.Conn.QueryTextSimple(ctx, sql)
}

// newWatchdog makes the watchdog, which queryRaw starts for each statement.
func (s *session) newWatchdog() {
	e := s.engine
	s.expired = make(chan struct{}, 1)
	s.watchdog = time.AfterFunc(time.Hour, func() {
		select {
		case s.expired <- struct{}{}:
		default:
		}
		// Notify the holders first: Close may take a moment, and so may the driver
		// until it gives up.
		e.mu.Lock()
		s.markLost(errSilent)
		e.unlockMu()
		s.conn.Close()
	})
	s.watchdog.Stop()
}

// prove makes sure that the server has advisory locks, once for each server. Some servers
// that speak the protocol reply true to every lock and unlock.
func (s *session) prove(ctx context.Context, hello handshake.Hello) error {
	e := s.engine
	server := hello.Version + " " + hello.Boot.String()
	e.mu.Lock()
	known := e.provedServer == server
	e.mu.Unlock()
	if known {
		return nil
	}
	proved := hello.Proof == "yes"
	var err error
	if hello.Proof == "" {
		err = handshake.Persist(ctx, func() (err error) {
			proved, err = handshake.Prove(ctx, s.counted())
			return err
		})
	}
	switch {
	case lacksFeature(err):
		return fmt.Errorf("%w: %s: %w", ErrNoAdvisoryLocks, hello.Version, err)
	case err != nil:
		return openError(err)
	case !proved:
		return fmt.Errorf("%w: %s", ErrNoAdvisoryLocks, hello.Version)
	}
	e.mu.Lock()
	e.provedServer = server
	e.mu.Unlock()
	return nil
}

// lacksFeature reports whether a server rejected something that every Postgres has.
func lacksFeature(err error) bool {
	switch sqlstate.Of(err) {
	case sqlstate.FeatureNotSupported, sqlstate.UndefinedFunction, sqlstate.UndefinedTable,
		sqlstate.UndefinedColumn, sqlstate.UndefinedObject, sqlstate.SyntaxError:
		return true
	}
	return false
}

// openError returns the error of a session that could not be opened.
func openError(err error) error {
	if isSwapped(err) {
		return fmt.Errorf("%w: %w", ErrPooler, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// isSwapped reports whether a statement that the driver prepared is missing, or was
// prepared by another client. Then this is not the session that it was prepared in.
func isSwapped(err error) bool {
	state := sqlstate.Of(err)
	return state == sqlstate.InvalidStatementName || state == sqlstate.DuplicateStatement
}

// reset resets the settings of a session that a pooler may lend to other clients next. It
// is called only if the session ends normally: then nobody else uses it, and it holds
// nothing.
func (s *session) reset() {
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	same, err := s.conn.QueryText(ctx, pingSQL, s.token)
	if err == nil && same == s.prefix+"1" {
		_ = s.conn.Exec(ctx, "DISCARD ALL") // most poolers also do this themselves
	}
}
