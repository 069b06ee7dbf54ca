package pgxlock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock"
)

var (
	errClosed = errors.New("the session is closed")
	errShape  = errors.New("the statement did not answer with one row of one value")
)

// closeTimeout bounds how long Close takes to say goodbye to the server.
const closeTimeout = time.Second

// session is a connection that belongs to a Locker.
type session struct {
	conn *pgx.Conn

	// For Ask alone.
	prepared map[string]*pgconn.StatementDescription // by SQL
	values   [][]byte                                // where parameters are made
	answer   string                                  // the last one, of which the next is often a copy

	mu     sync.Mutex // guards what follows
	busy   bool       // a call is using conn
	closed bool
}

func newSession(conn *pgx.Conn) *session {
	return &session{conn: conn, prepared: make(map[string]*pgconn.StatementDescription)}
}

func (s *session) PID() uint32 { return s.conn.PgConn().PID() }

// InTransaction reports whether a transaction is open.
func (s *session) InTransaction() (open, known bool) {
	return s.conn.PgConn().TxStatus() != 'I', true
}

// begin says that a call uses conn from now until end.
func (s *session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.busy {
		return errors.New("the session is in use by another goroutine")
	}
	s.busy = true
	return nil
}

func (s *session) end() {
	s.mu.Lock()
	s.busy = false
	closed := s.closed
	s.mu.Unlock()
	if closed {
		s.goodbye()
	}
}

// Close may be called at any time. A call that is using the connection is ended
// by closing the socket under it; pgx then asks the server to cancel what it
// was doing.
func (s *session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	busy := s.busy
	s.mu.Unlock()
	if busy {
		return socket(s.conn).Close()
	}
	return s.goodbye()
}

// goodbye ends the session. Where its socket was closed under a statement, pgx asks
// the server, on another connection, to cancel that: this is waited for, since a
// statement that waits for a lock would get it otherwise, with nobody to hold it.
func (s *session) goodbye() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.conn.Close(ctx)
	select {
	case <-s.conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
	return err
}

// socket is what lies under TLS too: closing it never waits.
func socket(conn *pgx.Conn) net.Conn {
	c := conn.PgConn().Conn()
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// Ask goes below pgx.Conn, since a lock is a statement of which nothing but one
// short text comes back.
func (s *session) Ask(ctx context.Context, sql string, args ...string) (string, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()

	pg := s.conn.PgConn()
	statement, ok := s.prepared[sql]
	if !ok {
		var err error
		statement, err = pg.Prepare(ctx, "pglock_"+strconv.Itoa(len(s.prepared)), sql, nil)
		if err != nil {
			return "", err
		}
		s.prepared[sql] = statement
	}

	for len(s.values) < len(args) {
		s.values = append(s.values, []byte{})
	}
	for i, arg := range args {
		s.values[i] = append(s.values[i][:0], arg...) // never nil, which would be NULL
	}
	// What the answer looks like is known from preparing: it is not asked again.
	result := pg.ExecStatement(ctx, statement, s.values[:len(args)], nil, nil)
	rows := 0
	for result.NextRow() {
		if values := result.Values(); len(values) == 1 && values[0] != nil {
			if s.answer != string(values[0]) {
				s.answer = string(values[0])
			}
			rows++
		}
	}
	if _, err := result.Close(); err != nil {
		return "", err
	}
	if rows != 1 {
		return "", fmt.Errorf("%w: %s", errShape, sql)
	}
	return s.answer, nil
}

// AskSimple runs sql by the simple query protocol, which prepares nothing.
func (s *session) AskSimple(ctx context.Context, sql string) (string, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()
	return askSimple(ctx, s.conn.PgConn(), sql)
}

// askSimple runs sql by the simple query protocol.
func askSimple(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	rows := 0
	var answer string
	for _, result := range results {
		for _, row := range result.Rows {
			if len(row) == 1 && row[0] != nil {
				answer = string(row[0])
				rows++
			}
		}
	}
	if rows != 1 {
		return "", fmt.Errorf("%w: %s", errShape, sql)
	}
	return answer, nil
}

// Watch listens on the socket. A backend that is terminated says so, and one
// that is gone closes it.
func (s *session) Watch(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	for {
		err := s.conn.PgConn().WaitForNotification(ctx)
		if err == nil {
			continue // a notification, which is nobody's
		}
		if s.conn.IsClosed() {
			return err
		}
		if ctx.Err() != nil {
			return nil // it was ctx that ended the listening, and no more than that
		}
		return err
	}
}

func (s *session) Exec(ctx context.Context, sql string, args ...any) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	return Conn(s.conn).Exec(ctx, sql, args...)
}

func (s *session) Query(ctx context.Context, sql string, args ...any) (pglock.Rows, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	r, err := Conn(s.conn).Query(ctx, sql, args...)
	if err != nil {
		s.end()
		return nil, err
	}
	return &sessionRows{Rows: r, session: s}, nil
}

// sessionRows keep the session in use until they are closed.
type sessionRows struct {
	pglock.Rows
	session *session
	once    sync.Once
}

func (r *sessionRows) Close() error {
	err := r.Rows.Close()
	r.once.Do(r.session.end)
	return err
}
