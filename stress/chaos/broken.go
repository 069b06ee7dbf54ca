//go:build unix

package chaos

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/driver"
)

// A broken is a way in which a worker's locks are broken on purpose, to test that the
// checker notices.
type broken string

const (
	// lawless acquires no locks, but acts as if it held them.
	lawless broken = "lawless"
	// yesSayer sends its statements, but reads every false from Postgres as true.
	yesSayer broken = "yes-sayer"
	// forgetful does not unlock, but acts as if it had.
	forgetful broken = "forgetful"
	// ignoring continues to hold after it was notified that the lock is lost.
	ignoring broken = "ignoring"
	// weakened takes leases with a lock of their rows that does not conflict with the one of
	// a fence. All workers do so.
	weakened broken = "weakened"
)

// ignoringFor is how much longer an ignoring worker holds each lock, at least.
const ignoringFor = 4 * time.Second

// wrap breaks the sessions of a source.
func (b broken) wrap(source driver.Source) driver.Source {
	switch b {
	case lawless, yesSayer, forgetful, weakened:
		return brokenSource{source, b}
	}
	return source
}

type brokenSource struct {
	driver.Source
	broken broken
}

func (s brokenSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return brokenSession{session, s.broken}, nil
}

type brokenSession struct {
	driver.Session
	broken broken
}

// weaken replaces the lock of rows in the statement that takes leases.
func weaken(sql string) string {
	return strings.ReplaceAll(sql, "FOR UPDATE OF l SKIP LOCKED", "FOR NO KEY UPDATE OF l SKIP LOCKED")
}

func (s brokenSession) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	if s.broken == weakened {
		sql = weaken(sql)
	}
	return s.Session.QueryTextSimple(ctx, sql)
}

func (s brokenSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if s.broken == weakened {
		return s.Session.QueryText(ctx, weaken(sql), args...)
	}
	locks := strings.Contains(sql, "advisory_lock")
	unlocks := strings.Contains(sql, "advisory_unlock")
	one := !strings.Contains(sql, "unnest")
	pid := strconv.FormatUint(uint64(s.PID()), 10) + ":"
	if !locks && !unlocks || strings.Contains(sql, "pg_locks") { // and not the check when a session is opened
		return s.Session.QueryText(ctx, sql, args...)
	}
	switch {
	case s.broken == lawless && one:
		return pid + "1", nil
	case s.broken == lawless:
		return pid + strings.Repeat("1", len(args[1])), nil
	case s.broken == forgetful && unlocks && one:
		return pid + "1", nil
	}
	answer, err := s.Session.QueryText(ctx, sql, args...)
	if s.broken == yesSayer && err == nil {
		yes, no, _ := strings.Cut(answer, ":")
		answer = yes + ":" + strings.ReplaceAll(no, "0", "1")
	}
	return answer, err
}
