// Package handshake sets up the sessions that pglock opens for itself. A connection may
// turn out to be a session that a pooler lends to several clients. So pglock identifies a
// session, which changes nothing on it ([Greet]), and sets it up only if it is pglock's
// own. [Meet] does both in one message, whose later part depends on the earlier one. On a
// session that is or may be shared, settings apply to a single transaction ([Local]).
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

	// Proof is the result of the proof that Meet was to include: "yes" if the server has
	// advisory locks, "no" if it only claims to, and "" if it was not asked.
	Proof string `json:"-"`

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
	// Pooled means a connection pooler, which may lend the session to others: the PID is
	// another one, or an earlier client has set the session up.
	Pooled
)

// StartTime returns when the backend started.
func (h Hello) StartTime() (time.Time, error) {
	return time.Parse("2006-01-02 15:04:05.999999", h.Start)
}

// Greet identifies a session. It changes nothing on it, regardless of the session's
// settings, and prepares no statement. It runs the statement again if that is canceled. The
// error is the driver's, or reports an invalid reply.
func Greet(ctx context.Context, s Conn) (hello Hello, err error) {
	err = Persist(ctx, func() error {
		reply, err := s.QueryTextSimple(ctx, HelloSQL)
		if err == nil {
			hello, err = parseHello(s, []byte(reply))
		}
		return err
	})
	return hello, err
}

// parseHello parses the result of hello.sql.
func parseHello(s Conn, reply []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(reply, &h); err != nil {
		return Hello{}, fmt.Errorf("invalid reply of the session: %w", err)
	}
	switch pid := s.PID(); {
	case pid == 0:
		h.Path = Unknown
	case pid == uint32(h.PID) && h.Token == "":
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
	Write            bool          // statements write, whatever the role's defaults, and a crash does not lose that

	// Heartbeat, if not 0, is how soon the client notices the loss of the session. It
	// must do so before the server notices the loss of the client and releases the locks,
	// so the server waits for more than two heartbeats. Not every system supports the
	// settings for that; if the server refuses one, they all stay as they are.
	Heartbeat time.Duration

	// Prove makes Meet check whether the server has advisory locks; see [Prove].
	Prove bool
}

// sql returns the statement that applies the settings, to the session or, if local, to
// the transaction.
func (s Settings) sql(local bool) string {
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	atLeastOne := func(d, unit time.Duration) string {
		if s.Heartbeat == 0 {
			return ""
		}
		return strconv.FormatInt(max(1, int64(d/unit)), 10)
	}
	mode := s.PlanCacheMode
	if mode == "" {
		mode = "auto"
	}
	readOnly := ""
	if s.Write {
		readOnly = "off"
	}
	return sqltext.Inline(SettingsSQL, s.Token, millis(s.StatementTimeout), millis(s.LockTimeout), mode,
		s.ApplicationName, strconv.FormatBool(s.Rename), strconv.FormatBool(s.KeepSearchPath), strconv.FormatBool(local),
		atLeastOne(s.Heartbeat, time.Millisecond), atLeastOne(2*s.Heartbeat, time.Second), atLeastOne(s.Heartbeat/2, time.Second),
		atLeastOne(3*s.Heartbeat, time.Millisecond), readOnly)
}

// SetUp applies settings to a session that the caller knows to be its own, until the
// session ends. Meet has done so if the path is Direct.
func (h Hello) SetUp(ctx context.Context, s Conn, settings Settings) error {
	return settings.apply(func(settings Settings) error {
		_, err := s.QueryTextSimple(ctx, PreludeSQL+settings.sql(false))
		return err
	})
}

// apply calls f, and calls it again without the heartbeat if the server refuses it.
func (s Settings) apply(f func(Settings) error) error {
	err := f(s)
	if state := sqlstate.Of(err); s.Heartbeat == 0 || state == "" || state == sqlstate.QueryCanceled {
		return err
	}
	s.Heartbeat = 0
	if again := f(s); again == nil || sqlstate.Of(again) != "" {
		return again
	}
	return err // it has ended the session
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
	prelude := PreludeSQL
	if settings.Write {
		prelude += "SET LOCAL TRANSACTION READ WRITE;\n"
	}
	return prelude + withoutRow(settings.sql(true)) + ";\n"
}

// Read runs a statement whose result is a single text. It sends one message, which is a
// transaction with its own settings, so that the defaults of the role do not matter, and a
// pooled session is left unchanged. sql may be a file that begins with a comment. The
// errors are those of QueryTextSimple.
func Read(ctx context.Context, s Conn, settings Settings, sql string) (text string, err error) {
	err = Persist(ctx, func() (err error) {
		text, err = s.QueryTextSimple(ctx, Local(settings)+sqltext.WithoutComment(sql))
		return err
	})
	return text, err
}

// withoutRow returns a statement that runs sql, whose result is one text that is not
// empty, and returns no row, so that another statement has the only row of the message.
func withoutRow(sql string) string {
	return "SELECT FROM (" + sql + ") AS s (n) WHERE s.n OPERATOR(pg_catalog.=) ''"
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

// Meet identifies a session and sets it up if the path is Direct, in one message. On other
// sessions it changes nothing. It retries statements that are canceled. If the server
// refuses a part of the message, which leaves all of it undone, Meet does one thing at a
// time, so that the error is the one of the part that fails.
func Meet(ctx context.Context, s Conn, settings Settings) (hello Hello, err error) {
	var refused error
	if s.PID() != 0 {
		err = Persist(ctx, func() error {
			return settings.apply(func(settings Settings) (err error) {
				hello, err = meetAtOnce(ctx, s, settings)
				return err
			})
		})
		if err == nil || sqlstate.Of(err) == "" {
			return hello, err
		}
		refused = err
	}
	hello, err = Greet(ctx, s)
	switch {
	case err != nil && sqlstate.Of(err) == "" && refused != nil:
		return hello, refused // it has ended the session
	case err != nil || hello.Path != Direct:
		return hello, err
	}
	return hello, Persist(ctx, func() error { return hello.SetUp(ctx, s, settings) })
}

// meetAtOnce sends the message of Meet.
func meetAtOnce(ctx context.Context, s Conn, settings Settings) (Hello, error) {
	// Each statement checks for itself whether the session is ours: something between
	// the client and the server might split the message.
	ours := sqltext.Inline(oursSQL, strconv.FormatUint(uint64(s.PID()), 10))
	ifOurs := func(sql string) string {
		return "CASE WHEN (" + ours + ") THEN (\n" + sql + "\n) END"
	}
	proof := "NULL"
	if settings.Prove {
		proof = ifOurs(sqltext.Inline(ProveSQL, randomKey()))
	}
	text, err := s.QueryTextSimple(ctx, meetHead+proof+") AS pg_catalog.text);\n"+withoutRow("SELECT "+ifOurs(settings.sql(false))))
	if err != nil {
		return Hello{}, err
	}
	var reply struct {
		Hello json.RawMessage `json:"hello"`
		Proof string          `json:"proof"`
	}
	if err := json.Unmarshal([]byte(text), &reply); err != nil {
		return Hello{}, fmt.Errorf("invalid reply of the session: %w", err)
	}
	hello, err := parseHello(s, reply.Hello)
	hello.Proof = reply.Proof
	return hello, err
}

// IsMeeting reports whether sql is the message of Meet, and whether it has the proof. It
// is for fake servers in tests, which reply with [MeetingReply].
func IsMeeting(sql string) (meeting, prove bool) {
	rest, meeting := strings.CutPrefix(sql, meetHead)
	return meeting, meeting && !strings.HasPrefix(rest, "NULL")
}

// MeetingReply returns the reply to a message of Meet, from the one to [HelloSQL] and the
// one to [ProveSQL].
func MeetingReply(hello, proof string) string {
	return fmt.Sprintf(`{"hello": %s, "proof": %q}`, hello, proof)
}

// PathOf returns what lies between a caller's connection and its backend. The connection
// must not be in a transaction. If it does not implement Conn, the path is Unknown.
func PathOf(ctx context.Context, conn any) (Path, error) {
	c, ok := conn.(Conn)
	if !ok || c.PID() == 0 {
		return Unknown, nil
	}
	hello, err := Greet(ctx, c)
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
	reply, err := s.QueryText(ctx, ProveSQL, randomKey())
	return reply == "yes", err
}

// randomKey returns a random advisory key.
func randomKey() string {
	var key [8]byte
	rand.Read(key[:])
	return strconv.FormatInt(int64(binary.LittleEndian.Uint64(key[:])), 10)
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
	//go:embed ours.sql
	oursFile string

	oursSQL = sqltext.WithoutComment(oursFile)

	// meetHead is the beginning of the message of Meet, up to the proof.
	meetHead = PreludeSQL + "SELECT CAST(pg_catalog.json_build_object('hello', CAST((\n" +
		sqltext.WithoutComment(helloFile) + "\n) AS pg_catalog.json), 'proof', "

	// The statements as sent. They are exported for fake servers in tests.
	PreludeSQL  = sqltext.WithoutComment(preludeFile) + "\n"
	HelloSQL    = PreludeSQL + sqltext.WithoutComment(helloFile)
	SettingsSQL = sqltext.WithoutComment(settingsFile)
	ProveSQL    = sqltext.WithoutComment(proveFile)
)
