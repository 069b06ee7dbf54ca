package sqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqltext"
)

var (
	errClosed      = errors.New("sqllock: the session is closed")
	errBusy        = errors.New("sqllock: the session is in use by another goroutine")
	errNotOneValue = errors.New("sqllock: the statement did not return one row with one value")
)

// closeTimeout limits how long Close waits for a running call, and for the connection to
// terminate properly.
const closeTimeout = time.Second

// session is a connection that belongs to a Locker.
type session struct {
	conn   *sql.Conn
	raw    any    // the driver's connection
	native native // the same, if it is pgx's
	pid    uint32
	done   func() // closes the pool of conn, if it is the session's own

	ctx    context.Context // ends when the session must end
	cancel context.CancelFunc

	statements map[string]*sql.Stmt // the statements that QueryText ran, nil if not prepared

	mu     sync.Mutex    // guards what follows
	busy   bool          // a call is using conn
	closed bool          // no more calls
	ended  chan struct{} // closed when conn is closed
}

func newSession(conn *sql.Conn, done func()) (*session, error) {
	s := &session{conn: conn, done: done, statements: make(map[string]*sql.Stmt), ended: make(chan struct{})}
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

// begin marks conn as in use until end is called. The returned context also ends with the
// session.
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

// Close may be called at any time. It cancels a running call, which closes the connection
// when it returns.
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
	case <-s.ended:
		return nil
	case <-time.After(closeTimeout):
	}
	// The driver ignores its context: lib/pq waits for a reply from the server even if
	// the network is down. Close the driver's connection directly.
	if conn, ok := s.raw.(sqldriver.Conn); ok && s.native == nil {
		go conn.Close()
	}
	return errors.New("sqllock: the session's connection was closed while a statement was running")
}

// end closes the connection.
func (s *session) end() error {
	defer close(s.ended)
	defer s.done()
	return closeConn(s.conn)
}

// closeConn closes a connection. Conn.Close alone would return it to its pool with its
// locks. So would the driver's Close if the driver's connection comes from a pool of its
// own, as with stdlib.OpenDBFromPool; pgx's own Close does not.
func closeConn(conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Raw(func(raw any) error {
		if n := nativeOf(unwrap(raw)); n != nil {
			_ = n.Close(ctx)
			select {
			case <-n.CleanupDone():
			case <-ctx.Done():
			}
		}
		return sqldriver.ErrBadConn
	})
	if err := conn.Close(); !errors.Is(err, sql.ErrConnDone) {
		return err
	}
	return nil
}

// callError returns the error of a call whose context ended. It hides the driver's SQLSTATE,
// so that the session is not used again: the server was asked to cancel, and that may
// still hit the next statement.
func (s *session) callError(ctx context.Context, err error) error {
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

// QueryText runs a statement with the simple query protocol the first time, which is one
// round trip, and prepares it the second time: lib/pq would need two round trips for each
// run otherwise. pgx prepares by itself then, unless it is configured not to.
func (s *session) QueryText(ctx context.Context, query string, args ...string) (string, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	reply, err := s.ask(ctx, query, args)
	return reply, s.callError(caller, err)
}

func (s *session) ask(ctx context.Context, query string, args []string) (string, error) {
	if _, again := s.statements[query]; !again {
		s.statements[query] = nil
		return queryTextSimple(ctx, s.conn, sqltext.Inline(query, args...))
	}
	params := make([]any, len(args))
	for i, arg := range args {
		params[i] = arg
	}
	rows, err := s.run(ctx, query, params)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var reply sql.NullString
	found := 0
	for rows.Next() {
		found++
		if err := rows.Scan(&reply); err != nil {
			return "", fmt.Errorf("%w: %w", errNotOneValue, err)
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if err := rows.Close(); err != nil {
		return "", err
	}
	if found != 1 || !reply.Valid {
		return "", errNotOneValue
	}
	return reply.String, nil
}

// QueryTextSimple runs query with the simple query protocol. Drivers other than pgx use it for
// every statement without parameters.
func (s *session) QueryTextSimple(ctx context.Context, query string) (string, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	reply, err := queryTextSimple(ctx, s.conn, query)
	return reply, s.callError(caller, err)
}

// queryTextSimple runs query with the simple query protocol.
func queryTextSimple(ctx context.Context, conn *sql.Conn, query string) (reply string, err error) {
	var found [][][]byte
	known := false
	rawErr := conn.Raw(func(raw any) error {
		n := nativeOf(unwrap(raw))
		if known = n != nil; known {
			found, err = simple(ctx, n, query)
			if n.IsClosed() {
				return sqldriver.ErrBadConn
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
		return "", errNotOneValue
	}
	return string(found[0][0]), nil
}

// askPlain runs query through database/sql.
func askPlain(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var reply sql.NullString
	found := 0
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
			found++
			if err := rows.Scan(&reply); err != nil {
				return "", fmt.Errorf("%w: %w", errNotOneValue, err)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if found != 1 || !reply.Valid {
		return "", errNotOneValue
	}
	return reply.String, rows.Close()
}

// run runs a statement that has run before.
func (s *session) run(ctx context.Context, query string, params []any) (*sql.Rows, error) {
	if s.native != nil {
		return s.conn.QueryContext(ctx, query, params...)
	}
	prepared := s.statements[query]
	if prepared == nil {
		var err error
		if prepared, err = s.conn.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		s.statements[query] = prepared
	}
	return prepared.QueryContext(ctx, params...)
}

// Watch reads from the connection, which only pgx makes possible. A terminated backend
// sends an error, and one that crashed closes the connection.
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
			case err == nil: // a notification; ignore it
			case s.native.IsClosed():
				lost = err
				return sqldriver.ErrBadConn
			case ctx.Err() != nil:
				return nil
			case !fromServer(err):
				lost = err
				return sqldriver.ErrBadConn
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

// fromServer reports whether Postgres sent the error. The connection may then still be
// usable.
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
	return s.callError(caller, Conn(s.conn).Exec(ctx, query, args...))
}

func (s *session) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	caller := ctx
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := Conn(s.conn).Query(ctx, query, args...)
	if err != nil {
		end()
		return nil, s.callError(caller, err)
	}
	return &sessionRows{Rows: rows, end: end}, nil
}

// sessionRows keeps the session in use until the rows are closed.
type sessionRows struct {
	driver.Rows
	end  func()
	once sync.Once
}

func (r *sessionRows) Close() error {
	err := r.Rows.Close()
	r.once.Do(r.end)
	return err
}
