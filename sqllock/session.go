package sqllock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pglock-go/pglock"
)

var (
	errClosed = errors.New("sqllock: the session is closed")
	errBusy   = errors.New("sqllock: the session is in use by another goroutine")
	errShape  = errors.New("sqllock: the statement did not answer with one row of one value")
)

// closeTimeout bounds how long Close waits for a running call, and for the
// server to be told goodbye.
const closeTimeout = time.Second

// session is a connection that belongs to a Locker.
type session struct {
	conn   *sql.Conn
	raw    any    // the driver's connection
	native native // the same, if it is pgx'
	pid    uint32
	done   func() // closes the pool of conn, if it is the session's own

	ctx    context.Context // ends when the session is to end
	cancel context.CancelFunc

	statements map[string]*sql.Stmt // what Ask ran, nil when it did so but once

	mu     sync.Mutex    // guards what follows
	busy   bool          // a call is using conn
	closed bool          // no more calls
	gone   chan struct{} // closed when conn has been ended
}

func newSession(conn *sql.Conn, done func()) (*session, error) {
	s := &session{conn: conn, done: done, statements: make(map[string]*sql.Stmt), gone: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	err := conn.Raw(func(raw any) error {
		s.raw = unwrap(raw)
		s.native = nativeOf(s.raw)
		s.pid = pidOf(s.raw, s.native)
		return nil
	})
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func (s *session) PID() uint32 { return s.pid }

// InTransaction reports whether a transaction is open, if the driver knows.
func (s *session) InTransaction() (open, known bool) {
	_ = s.conn.Raw(func(any) error {
		status, ok := txStatusOf(s.raw, s.native)
		open, known = status != 'I', ok
		return nil
	})
	return open, known
}

// begin says that a call uses conn until end is called. The context that it
// returns ends with the session, too.
func (s *session) begin(ctx context.Context) (_ context.Context, end func(), _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, nil, errClosed
	case s.busy:
		return nil, nil, errBusy
	}
	s.busy = true
	stop := func() bool { return true }
	if ctx.Done() == nil {
		ctx = s.ctx
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		after := context.AfterFunc(s.ctx, cancel)
		stop = func() bool { cancel(); return after() }
	}
	return ctx, func() {
		stop()
		s.mu.Lock()
		s.busy = false
		closed := s.closed
		s.mu.Unlock()
		if closed {
			s.end()
		}
	}, nil
}

// Close may be called at any time. A call that is running is told to stop, and
// ends the connection when it has.
func (s *session) Close() error {
	s.mu.Lock()
	first, busy := !s.closed, s.busy
	s.closed = true
	s.mu.Unlock()
	if !first {
		return nil
	}
	s.cancel()
	if !busy {
		return s.end()
	}
	select {
	case <-s.gone:
		return nil
	case <-time.After(closeTimeout):
	}
	// The driver does not heed its context: lib/pq waits for the server to answer
	// even when the network is cut. There is nothing to be careful about left.
	if conn, ok := s.raw.(driver.Conn); ok && s.native == nil {
		go conn.Close()
	}
	return errors.New("sqllock: the session's connection was closed while a statement was running")
}

// end ends the connection for good. Conn.Close alone would give it back to its
// pool with its locks, and so would the driver's Close where the driver's
// connection is from a pool of its own, as with stdlib.OpenDBFromPool; pgx' own
// Close does not.
func (s *session) end() error {
	defer close(s.gone)
	defer s.done()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Raw(func(any) error {
		if s.native != nil {
			_ = s.native.Close(ctx)
			select {
			case <-s.native.CleanupDone():
			case <-ctx.Done():
			}
		}
		return driver.ErrBadConn
	})
	if err := s.conn.Close(); !errors.Is(err, sql.ErrConnDone) {
		return err
	}
	return nil
}

// broken is the error of a call whose context ended. It hides what SQLSTATE the
// driver's error has: the server was told to cancel, and that may still reach
// the next statement, so the session is not to be used again.
func (s *session) broken(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return fmt.Errorf("%w: %v", errClosed, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %v", ctx.Err(), err)
	}
	return err
}

// Ask runs a statement as it is the first time, and prepares it when it comes
// again: lib/pq would ask the server twice each time otherwise. pgx prepares by
// itself, unless it was told not to.
func (s *session) Ask(ctx context.Context, query string, args ...string) (string, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	answer, err := s.ask(ctx, query, args)
	return answer, s.broken(caller, err)
}

func (s *session) ask(ctx context.Context, query string, args []string) (string, error) {
	params := make([]any, len(args))
	for i, arg := range args {
		params[i] = arg
	}
	rows, err := s.run(ctx, query, params)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var answer sql.NullString
	found := 0
	for rows.Next() {
		found++
		if err := rows.Scan(&answer); err != nil {
			return "", fmt.Errorf("%w: %w", errShape, err)
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if err := rows.Close(); err != nil {
		return "", err
	}
	if found != 1 || !answer.Valid {
		return "", errShape
	}
	return answer.String, nil
}

// AskSimple runs query by the simple query protocol, as drivers other than pgx do with
// whatever has no parameters.
func (s *session) AskSimple(ctx context.Context, query string) (string, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	answer, err := askSimple(ctx, s.conn, query)
	return answer, s.broken(caller, err)
}

// askSimple is AskSimple on a connection.
func askSimple(ctx context.Context, conn *sql.Conn, query string) (answer string, err error) {
	var found [][][]byte
	known := false
	rawErr := conn.Raw(func(raw any) error {
		n := nativeOf(unwrap(raw))
		if known = n != nil; known {
			found, err = simple(ctx, n, query)
			if n.IsClosed() {
				return driver.ErrBadConn
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case rawErr != nil:
		return "", rawErr
	case !known:
		return askPlain(ctx, conn, query)
	case len(found) != 1 || len(found[0]) != 1 || found[0][0] == nil:
		return "", errShape
	}
	return string(found[0][0]), nil
}

// askPlain is askSimple through database/sql.
func askPlain(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var answer sql.NullString
	found := 0
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
			found++
			if err := rows.Scan(&answer); err != nil {
				return "", fmt.Errorf("%w: %w", errShape, err)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if found != 1 || !answer.Valid {
		return "", errShape
	}
	return answer.String, rows.Close()
}

func (s *session) run(ctx context.Context, query string, params []any) (*sql.Rows, error) {
	if s.native != nil {
		return s.conn.QueryContext(ctx, query, params...)
	}
	prepared, again := s.statements[query]
	if !again {
		s.statements[query] = nil
		return s.conn.QueryContext(ctx, query, params...)
	}
	if prepared == nil {
		var err error
		if prepared, err = s.conn.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		s.statements[query] = prepared
	}
	return prepared.QueryContext(ctx, params...)
}

// Watch listens on the connection, which only pgx lets us do. A backend that is
// terminated says so, and one that is gone closes it.
func (s *session) Watch(ctx context.Context) error {
	if s.native == nil {
		return fmt.Errorf("sqllock: a %T cannot listen: %w", s.raw, errors.ErrUnsupported)
	}
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var lost error
	err = s.conn.Raw(func(any) error {
		for {
			err := s.native.WaitForNotification(ctx)
			switch {
			case err == nil: // a notification, which is nobody's
			case s.native.IsClosed():
				lost = err
				return driver.ErrBadConn
			case ctx.Err() != nil:
				return nil
			case !fromServer(err):
				lost = err
				return driver.ErrBadConn
			}
		}
	})
	switch {
	case lost != nil && s.ctx.Err() != nil:
		return errClosed
	case lost != nil:
		return lost
	case s.ctx.Err() != nil:
		return errClosed
	case caller.Err() != nil:
		return nil
	}
	return err
}

// fromServer reports whether Postgres sent the error: a warning of sorts, when
// the connection is still good.
func fromServer(err error) bool {
	var state interface{ SQLState() string }
	return errors.As(err, &state)
}

func (s *session) Exec(ctx context.Context, query string, args ...any) error {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.broken(caller, Conn(s.conn).Exec(ctx, query, args...))
}

func (s *session) Query(ctx context.Context, query string, args ...any) (pglock.Rows, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := Conn(s.conn).Query(ctx, query, args...)
	if err != nil {
		end()
		return nil, s.broken(caller, err)
	}
	return &sessionRows{Rows: rows, end: end}, nil
}

// sessionRows keep the session in use until they are closed.
type sessionRows struct {
	pglock.Rows
	end  func()
	once sync.Once
}

func (r *sessionRows) Close() error {
	err := r.Rows.Close()
	r.once.Do(r.end)
	return err
}
