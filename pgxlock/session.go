package pgxlock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/driver"
)

var (
	errClosed      = errors.New("the session is closed")
	errNotOneValue = errors.New("the statement did not return one row with one value")
)

// closeTimeout limits how long Close takes to terminate the connection properly.
const closeTimeout = time.Second

// session is a connection that belongs to a Locker.
type session struct {
	conn *pgx.Conn

	// Used only by QueryText.
	prepared map[string]*pgconn.StatementDescription // by SQL
	named    int                                     // how many statements were given a name
	params   [][]byte                                // buffers for the parameters
	reply    string                                  // the last reply; the next one is often the same and need not be allocated

	onNotice func(driver.Notice) // called only while a statement runs

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

// begin marks conn as in use until end is called.
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
		closeConn(s.conn)
	}
}

// Close may be called at any time. It ends a running call by closing the socket under it;
// pgx then asks the server to cancel the statement.
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
	return closeConn(s.conn)
}

// closeConn closes a connection. If the socket was closed under a statement, pgx sends a
// cancel request on another connection. closeConn waits for that, since a statement that
// waits for a lock would otherwise acquire it with no client to hold it.
func closeConn(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := conn.Close(ctx)
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
	return err
}

// socket returns the network connection, beneath TLS if it is used: closing that never
// blocks.
func socket(conn *pgx.Conn) net.Conn {
	c := conn.PgConn().Conn()
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// QueryText works below pgx.Conn, since the result of a lock statement is only one short text.
func (s *session) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()

	for len(s.params) < len(args) {
		s.params = append(s.params, []byte{})
	}
	for i, arg := range args {
		s.params[i] = append(s.params[i][:0], arg...) // never nil, which would be sent as NULL
	}
	statement, ok := s.prepared[sql]
	if !ok {
		return s.prepareAndRun(ctx, sql, s.params[:len(args)])
	}
	// The result's format is known from preparing, so it is not requested again.
	return s.read(s.conn.PgConn().ExecStatement(ctx, statement, s.params[:len(args)], nil, nil), sql)
}

// prepareAndRun prepares a statement and runs it, in one round trip.
func (s *session) prepareAndRun(ctx context.Context, sql string, params [][]byte) (reply string, err error) {
	name := "pglock_" + strconv.Itoa(s.named)
	s.named++
	pipeline := s.conn.PgConn().StartPipeline(ctx)
	defer func() {
		if closed := pipeline.Close(); err == nil {
			err = closed
		}
	}()
	pipeline.SendPrepare(name, sql, nil)
	pipeline.SendQueryPrepared(name, params, nil, nil)
	if err := pipeline.Sync(); err != nil {
		return "", err
	}
	result, err := pipeline.GetResults()
	if err != nil {
		return "", err
	}
	if statement, ok := result.(*pgconn.StatementDescription); ok {
		statement.Name = name // the server does not repeat it
		s.prepared[sql] = statement
	}
	result, err = pipeline.GetResults()
	if err != nil {
		return "", err
	}
	reader, ok := result.(*pgconn.ResultReader)
	if !ok {
		return "", fmt.Errorf("%w: %s", errNotOneValue, sql)
	}
	return s.read(reader, sql)
}

// read returns the only value of a result.
func (s *session) read(result *pgconn.ResultReader, sql string) (string, error) {
	rows := 0
	for result.NextRow() {
		if values := result.Values(); len(values) == 1 && values[0] != nil {
			if s.reply != string(values[0]) {
				s.reply = string(values[0])
			}
			rows++
		}
	}
	if _, err := result.Close(); err != nil {
		return "", err
	}
	if rows != 1 {
		return "", fmt.Errorf("%w: %s", errNotOneValue, sql)
	}
	return s.reply, nil
}

// QueryTextSimple runs sql with the simple query protocol, which prepares nothing.
func (s *session) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()
	return queryTextSimple(ctx, s.conn.PgConn(), sql)
}

// queryTextSimple runs sql with the simple query protocol.
func queryTextSimple(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	rows := 0
	var reply string
	for _, result := range results {
		for _, row := range result.Rows {
			if len(row) == 1 && row[0] != nil {
				reply = string(row[0])
				rows++
			}
		}
	}
	if rows != 1 {
		return "", fmt.Errorf("%w: %s", errNotOneValue, sql)
	}
	return reply, nil
}

// Watch reads from the socket. A terminated backend sends an error, and one that crashed
// closes the socket.
func (s *session) Watch(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	for {
		err := s.conn.PgConn().WaitForNotification(ctx)
		if err == nil {
			continue // a notification; ignore it
		}
		if s.conn.IsClosed() {
			return err
		}
		if ctx.Err() != nil {
			return nil // only ctx ended, and the connection is still usable
		}
		return err
	}
}

// Notification waits for a notification.
func (s *session) Notification(ctx context.Context) (payload string, err error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()
	n, err := s.conn.WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

// OnNotice sets the function that gets notices.
func (s *session) OnNotice(f func(driver.Notice)) { s.onNotice = f }

// notice passes on a notice.
func (s *session) notice(n *pgconn.Notice) {
	if s != nil && s.onNotice != nil {
		severity := n.SeverityUnlocalized
		if severity == "" {
			severity = n.Severity
		}
		s.onNotice(driver.Notice{Severity: severity, Code: n.Code, Message: n.Message, Routine: n.Routine})
	}
}

// CopyFrom sends the data of a COPY.
func (s *session) CopyFrom(ctx context.Context, sql string, data io.Reader) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	_, err := s.conn.PgConn().CopyFrom(ctx, data, sql)
	return err
}

func (s *session) Exec(ctx context.Context, sql string, args ...any) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	return Conn(s.conn).Exec(ctx, sql, args...)
}

func (s *session) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
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

// sessionRows keeps the session in use until the rows are closed.
type sessionRows struct {
	driver.Rows
	session *session
	once    sync.Once
}

func (r *sessionRows) Close() error {
	err := r.Rows.Close()
	r.once.Do(r.session.end)
	return err
}
