// Package handshake sets up the sessions that pglock opens for itself. A connection may
// turn out to be a session that a pooler lends to several clients. So pglock first
// identifies a session, which changes nothing on it ([Greet]), and sets it up only if it
// is pglock's own ([Hello.SetUp]). On a session that is or may be shared, settings apply
// to a single transaction ([Local]).
package handshake

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// A Conn is what a handshake needs of a connection: a part of [driver.Session], which
// documents the methods.
type Conn interface {
	QueryTextSimple(ctx context.Context, sql string) (string, error)
	PID() uint32
}

// A Session is a connection that belongs to pglock alone.
type Session interface {
	Conn
	QueryText(ctx context.Context, sql string, args ...string) (string, error)
}

// A Hello is what a session reports about itself.
type Hello struct {
	PID        int32       `json:"pid"`
	Start      string      `json:"start"` // when the backend started, in UTC, to the microsecond
	Token      string      `json:"token"` // set by an earlier SetUp; "" for none
	Standby    bool        `json:"standby"`
	Version    string      `json:"version"`
	Boot       json.Number `json:"boot"` // when the server started
	Encoding   string      `json:"encoding"`
	Deferrable string      `json:"deferrable"` // default_transaction_deferrable, "on" or "off"

	// Path is what lies between the client and the backend.
	Path Path `json:"-"`
}

// A Path is what lies between a client and its backend, as far as known.
type Path int

const (
	// Unknown means that the driver does not report the backend's PID.
	Unknown Path = iota
	// Direct means nothing, or something that passes every byte on.
	Direct
	// Pooled means a connection pooler, which may lend the session to others.
	Pooled
)

// StartTime returns when the backend started.
func (h Hello) StartTime() (time.Time, error) {
	return time.Parse("2006-01-02 15:04:05.999999", h.Start)
}

// Greet identifies a session. It changes nothing on it, regardless of the session's
// settings, and prepares no statement. The error is the driver's, or reports an invalid
// reply.
func Greet(ctx context.Context, s Conn) (Hello, error) {
	reply, err := s.QueryTextSimple(ctx, HelloSQL)
	if err != nil {
		return Hello{}, err
	}
	var h Hello
	if err := json.Unmarshal([]byte(reply), &h); err != nil {
		return Hello{}, fmt.Errorf("invalid reply of the session: %w", err)
	}
	switch pid := s.PID(); {
	case pid == 0:
		h.Path = Unknown
	case pid == uint32(h.PID):
		h.Path = Direct
	default:
		h.Path = Pooled
	}
	return h, nil
}

// Settings are the settings that differ between the sessions of pglock. All others are in
// settings.sql.
type Settings struct {
	Token            string        // identifies the session as unchanged; "" for none
	StatementTimeout time.Duration // 0 for none
	LockTimeout      time.Duration // 0 for none
	PlanCacheMode    string        // "" for auto
	ApplicationName  string        // if the connection has none
	Rename           bool          // use ApplicationName even if the connection has one
	KeepSearchPath   bool          // names in queries are the user's
}

// sql returns the statement that applies the settings, to the session or, if local, to
// the transaction.
func (s Settings) sql(local bool) string {
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	mode := s.PlanCacheMode
	if mode == "" {
		mode = "auto"
	}
	return sqltext.Inline(SettingsSQL, s.Token, millis(s.StatementTimeout), millis(s.LockTimeout), mode,
		s.ApplicationName, strconv.FormatBool(s.Rename), strconv.FormatBool(s.KeepSearchPath), strconv.FormatBool(local))
}

// SetUp applies settings to a session of pglock's own. They stay until the session ends.
func (h Hello) SetUp(ctx context.Context, s Conn, settings Settings) error {
	_, err := s.QueryTextSimple(ctx, PreludeSQL+settings.sql(false))
	return err
}

// IsSetUp reports whether sql is a message of SetUp. It is for fake servers in tests.
func IsSetUp(sql string) bool {
	head, _, _ := strings.Cut(SettingsSQL, "$")
	return strings.HasPrefix(sql, PreludeSQL+head)
}

// Local returns the start of a message of the simple query protocol to which the settings
// apply. They end with the message, which is one transaction. More statements may follow,
// of which the last returns the single value of QueryTextSimple.
func Local(settings Settings) string {
	// The settings return no row, so that the result of the message is the caller's.
	return PreludeSQL + "SELECT FROM (" + settings.sql(true) + ") AS s (n) WHERE s.n OPERATOR(pg_catalog.=) '';\n"
}

// maxCancelRetries is how often a statement is run if it is canceled each time.
const maxCancelRetries = 5

// Persist calls f, which runs a statement, and calls it again if the statement is
// canceled. A role's statement_timeout of a millisecond does that, for instance, until it
// is turned off.
func Persist(ctx context.Context, f func() error) (err error) {
	for range maxCancelRetries {
		if err = f(); sqlstate.Of(err) != sqlstate.QueryCanceled || ctx.Err() != nil {
			break
		}
	}
	return err
}

// Meet identifies a session and sets it up if the path is Direct. It retries statements
// that are canceled. On other sessions it changes nothing.
func Meet(ctx context.Context, s Conn, settings Settings) (hello Hello, err error) {
	err = Persist(ctx, func() (err error) {
		hello, err = Greet(ctx, s)
		return err
	})
	if err != nil || hello.Path != Direct {
		return hello, err
	}
	return hello, Persist(ctx, func() error { return hello.SetUp(ctx, s, settings) })
}

// PathOf returns what lies between a caller's connection and its backend. The connection
// must not be in a transaction. If it does not implement Conn, the path is Unknown.
func PathOf(ctx context.Context, conn any) (Path, error) {
	c, ok := conn.(Conn)
	if !ok || c.PID() == 0 {
		return Unknown, nil
	}
	var hello Hello
	err := Persist(ctx, func() (err error) {
		hello, err = Greet(ctx, c)
		return err
	})
	return hello.Path, err
}

// InTransaction reports whether a transaction, aborted or not, is open on a caller's
// connection. It changes and reads nothing, so that a REPEATABLE READ transaction does
// not take its snapshot.
func InTransaction(ctx context.Context, conn interface {
	Exec(ctx context.Context, sql string, args ...any) error
},
) (bool, error) {
	if c, ok := conn.(driver.TransactionReporter); ok {
		if open, known := c.InTransaction(); known {
			return open, nil
		}
	}
	err := conn.Exec(ctx, "SAVEPOINT "+sqltext.ProbeSavepoint+"; RELEASE SAVEPOINT "+sqltext.ProbeSavepoint)
	switch sqlstate.Of(err) {
	case sqlstate.NoActiveTransaction:
		return false, nil
	case sqlstate.InFailedTransaction:
		return true, nil
	}
	return err == nil, err
}

// Prove reports whether the server has advisory locks, and not only claims to. The
// session must be pglock's own, since the proof holds a lock for a moment.
func Prove(ctx context.Context, s Session) (bool, error) {
	var key [8]byte
	rand.Read(key[:])
	reply, err := s.QueryText(ctx, ProveSQL, strconv.FormatInt(int64(binary.LittleEndian.Uint64(key[:])), 10))
	return reply == "yes", err
}

var (
	//go:embed prelude.sql
	preludeFile string
	//go:embed hello.sql
	helloFile string
	//go:embed settings.sql
	settingsFile string
	//go:embed prove.sql
	proveFile string

	// The statements as sent. They are exported for fake servers in tests.
	PreludeSQL  = sqltext.WithoutComment(preludeFile) + "\n"
	HelloSQL    = PreludeSQL + sqltext.WithoutComment(helloFile)
	SettingsSQL = sqltext.WithoutComment(settingsFile)
	ProveSQL    = sqltext.WithoutComment(proveFile)
)
