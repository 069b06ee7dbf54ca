// Package handshake begins the sessions that pglock opens for itself. What is opened
// may turn out to be a session that a pooler lends to others, so a session is first
// asked who it is, which changes nothing on it ([Greet]); only one that is known to be
// pglock's own is then set up ([Hello.SetUp]). On one that is shared, or may be, settings
// are made for a single transaction ([Local]).
package handshake

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A Conn is what a handshake needs of a connection. The root package's Session says what
// each method promises.
type Conn interface {
	AskSimple(ctx context.Context, sql string) (string, error)
	PID() uint32
}

// A Session is a connection that is pglock's own.
type Session interface {
	Conn
	Ask(ctx context.Context, sql string, args ...string) (string, error)
}

// Hello is what a session said of itself.
type Hello struct {
	PID        int32       `json:"pid"`
	Start      string      `json:"start"` // of the backend, in UTC, to the microsecond
	Mark       string      `json:"mark"`  // that an earlier SetUp left; "" for none
	Standby    bool        `json:"standby"`
	Version    string      `json:"version"`
	Boot       json.Number `json:"boot"` // when the server started
	Encoding   string      `json:"encoding"`
	Deferrable string      `json:"deferrable"` // default_transaction_deferrable, "on" or "off"

	// Path is what lies between us and the backend.
	Path Path `json:"-"`
}

// Path is what lies between a client and its backend, as far as it is known.
type Path int

const (
	// Unknown: the driver does not report the PID that the protocol gave it.
	Unknown Path = iota
	// Direct: nothing, or something that passes every byte on.
	Direct
	// Pooled: a connection pooler, which may lend the session to others.
	Pooled
)

// StartTime returns when the backend started.
func (h Hello) StartTime() (time.Time, error) {
	return time.Parse("2006-01-02 15:04:05.999999", h.Start)
}

// Greet asks a session who it is. It changes nothing on it, whatever the session's own
// settings are, and prepares no statement. The error is the driver's, or says that the
// answer makes no sense.
func Greet(ctx context.Context, s Conn) (Hello, error) {
	answer, err := s.AskSimple(ctx, HelloSQL)
	if err != nil {
		return Hello{}, err
	}
	var h Hello
	if err := json.Unmarshal([]byte(answer), &h); err != nil {
		return Hello{}, fmt.Errorf("reading the session's first answer: %w", err)
	}
	switch told := s.PID(); {
	case told == 0:
		h.Path = Unknown
	case told == uint32(h.PID):
		h.Path = Direct
	default:
		h.Path = Pooled
	}
	return h, nil
}

// Settings are what differs between the sessions that pglock opens. All else that a
// session must not inherit stands in settings.sql.
type Settings struct {
	Mark             string        // by which the session is known to be unchanged; "" for none
	StatementTimeout time.Duration // 0 for none
	LockTimeout      time.Duration // 0 for none
	PlanCacheMode    string        // "" for auto
	ApplicationName  string        // if the connection has none
	Rename           bool          // take ApplicationName even if the connection has another
	KeepSearchPath   bool          // names in what is asked are the user's
}

// sql returns the statement that makes the settings, for the session or for the
// transaction.
func (s Settings) sql(local bool) string {
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	mode := s.PlanCacheMode
	if mode == "" {
		mode = "auto"
	}
	return Inline(SettingsSQL, s.Mark, millis(s.StatementTimeout), millis(s.LockTimeout), mode,
		s.ApplicationName, strconv.FormatBool(s.Rename), strconv.FormatBool(s.KeepSearchPath), strconv.FormatBool(local))
}

// SetUp gives a session that is pglock's own the settings it needs. They stay until
// the session ends.
func (h Hello) SetUp(ctx context.Context, s Conn, settings Settings) error {
	_, err := s.AskSimple(ctx, PreludeSQL+settings.sql(false))
	return err
}

// IsSetUp reports whether sql is what SetUp sends. It is for tests that stand in for a
// server.
func IsSetUp(sql string) bool {
	head, _, _ := strings.Cut(SettingsSQL, "$")
	return strings.HasPrefix(sql, PreludeSQL+head)
}

// Local returns the beginning of a message of the simple query protocol that has the
// settings for itself: they end with it, since a message is a transaction. Statements of
// which the last answers with the single value of AskSimple may follow.
func Local(settings Settings) string {
	// The settings answer with no row, so that the answer to the message is the caller's.
	return PreludeSQL + "SELECT FROM (" + settings.sql(true) + ") AS s (n) WHERE s.n OPERATOR(pg_catalog.=) '';\n"
}

var parameter = regexp.MustCompile(`\$[1-9][0-9]*`)

// Inline puts args in the place of the parameters of sql, which is pglock's own: a
// dollar sign and a number are a parameter wherever they stand.
func Inline(sql string, args ...string) string {
	return parameter.ReplaceAllStringFunc(sql, func(p string) string {
		n, err := strconv.Atoi(p[1:])
		if err != nil || n > len(args) {
			return p // which Postgres refuses
		}
		return literal(args[n-1])
	})
}

// literal returns a text in SQL. It is ASCII without quotes and backslashes, so that it
// means the same whatever client_encoding and standard_conforming_strings are.
func literal(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\'' || r == '\\' }) {
		return "'" + s + "'"
	}
	return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString([]byte(s)) + "', 'hex'), 'UTF8')"
}

// maxCancels is how often a session's beginning is tried that somebody cancels.
const maxCancels = 5

// Persist runs f, which asks a session something, again if the statement is canceled: by a
// role's statement_timeout of a millisecond, for instance, before that is set off.
func Persist(ctx context.Context, f func() error) (err error) {
	for range maxCancels {
		if err = f(); sqlstate.Of(err) != sqlstate.QueryCanceled || ctx.Err() != nil {
			break
		}
	}
	return err
}

// Meet greets a session and sets it up if nothing lies between, again if somebody cancels
// it. On any other session nothing is set.
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

// PathOf returns what lies between a caller's connection and its backend. No transaction
// may be open on it. A connection that has not the methods of Conn is Unknown.
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

// InTransaction reports whether a transaction is open on a caller's connection, aborted
// or not. It changes nothing on it and reads nothing, so that a REPEATABLE READ
// transaction is not settled yet on what it sees.
func InTransaction(ctx context.Context, conn interface {
	Exec(ctx context.Context, sql string, args ...any) error
},
) (bool, error) {
	if c, ok := conn.(interface {
		InTransaction() (open, known bool)
	}); ok {
		if open, known := c.InTransaction(); known {
			return open, nil
		}
	}
	err := conn.Exec(ctx, "SAVEPOINT _pglock_probe; RELEASE SAVEPOINT _pglock_probe")
	switch sqlstate.Of(err) {
	case sqlstate.NoActiveTransaction:
		return false, nil
	case sqlstate.InFailedTransaction:
		return true, nil
	}
	return err == nil, err
}

// Prove reports whether the server has advisory locks: whether what it claims to have
// locked is locked. The session must be pglock's own, since the proof takes a lock for
// a moment.
func Prove(ctx context.Context, s Session) (bool, error) {
	var key [8]byte
	rand.Read(key[:])
	answer, err := s.Ask(ctx, ProveSQL, strconv.FormatInt(int64(binary.LittleEndian.Uint64(key[:])), 10))
	return answer == "yes", err
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

	// The statements as they are sent. Exported for tests that stand in for a server.
	PreludeSQL  = WithoutComment(preludeFile) + "\n"
	HelloSQL    = PreludeSQL + WithoutComment(helloFile)
	SettingsSQL = WithoutComment(settingsFile)
	ProveSQL    = WithoutComment(proveFile)
)

// WithoutComment returns the statements of an SQL file without the comment at its
// beginning, which is for its readers: pg_stat_activity shows what is sent.
func WithoutComment(file string) string {
	for strings.HasPrefix(file, "--") {
		_, file, _ = strings.Cut(file, "\n")
	}
	return strings.TrimSpace(file)
}
