// Package handshake begins the sessions that pglock opens for itself. What is opened
// may turn out to be a session that a pooler lends to others, so a session is first
// asked who it is, which changes nothing on it ([Greet]); only one that is known to be
// pglock's own is then set up ([Hello.SetUp]).
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
)

// A Session is what a handshake needs of a connection. The root package's Session says
// what each method promises.
type Session interface {
	AskSimple(ctx context.Context, sql string) (string, error)
	Ask(ctx context.Context, sql string, args ...string) (string, error)
	PID() uint32
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
func Greet(ctx context.Context, s Session) (Hello, error) {
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
}

// SetUp gives a session that is pglock's own the settings it needs. They stay until
// the session ends.
func (h Hello) SetUp(ctx context.Context, s Session, settings Settings) error {
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	mode := settings.PlanCacheMode
	if mode == "" {
		mode = "auto"
	}
	_, err := s.Ask(ctx, SettingsSQL, settings.Mark, millis(settings.StatementTimeout), millis(settings.LockTimeout),
		mode, settings.ApplicationName)
	return err
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
	//go:embed hello.sql
	helloFile string
	//go:embed settings.sql
	settingsFile string
	//go:embed prove.sql
	proveFile string

	// The statements as they are sent. Exported for tests that stand in for a server.
	HelloSQL    = WithoutComment(helloFile)
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
