package pglocktest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
)

var (
	//go:embed sql/sessions.sql
	sessionsSQL string
	//go:embed sql/terminate.sql
	terminateSQL string
	//go:embed sql/terminate_application.sql
	terminateApplicationSQL string
	//go:embed sql/blocked.sql
	blockedSQL string
	//go:embed sql/alive.sql
	aliveSQL string
)

const (
	// timeout is how long a test waits for anything.
	timeout = 30 * time.Second
	// pollInterval is the time between two polls.
	pollInterval = 5 * time.Millisecond
)

// A Lock is one lock as other sessions see it. A test can hold it, check whether the
// program holds it or waits for it, and terminate the session that holds it. Make one
// with [Key] or [Table].
//
// If an expected state does not occur within half a minute, or a statement fails, the
// test ends with a message. So use a Lock only in the goroutine that runs the test. Its
// sessions come from the Source that it was made with, are opened on demand, and are
// closed at the end of the test.
type Lock struct {
	t      testing.TB
	source driver.Source

	name        string    // for messages
	lockParams  [5]string // the parameters of sessions.sql that identify the lock
	take        func(context.Context, driver.Conn, waitOption, ...pglock.TryOption) error
	observer    driver.Session // polls, and tries; nil until needed
	observerPID string
	holder      driver.Session // holds, between Hold and Release
	holderPID   string
}

// A waitOption is an option of LockTx and of LockTables.
type waitOption interface {
	pglock.TxOption
	pglock.TableOption
}

// Key returns the advisory lock of key, in the database of source.
func Key(t testing.TB, source driver.Source, key pglock.Key) *Lock {
	classid, objid, objsubid := key.PgLocks()
	return &Lock{
		t: t, source: source, name: "the lock " + key.String(),
		lockParams: [5]string{fmt.Sprint(classid), fmt.Sprint(objid), fmt.Sprint(objsubid), "", "{}"},
		take: func(ctx context.Context, conn driver.Conn, wait waitOption, opts ...pglock.TryOption) error {
			all := []pglock.TxOption{wait}
			for _, opt := range opts {
				all = append(all, opt)
			}
			return pglock.LockTx(ctx, conn, key, all...)
		},
	}
}

// part matches a part of a table's name, in double quotes or not.
var part = regexp.MustCompile(`"(?:[^"]|"")*"|[^."]+`)

// Table returns the lock of a table in a mode. The name is as in [pglock.Tables]; the
// zero Mode is ACCESS EXCLUSIVE. A session counts as a holder if it holds a lock on the
// table that conflicts with mode, and as a waiter if it waits for any lock on the table.
func Table(t testing.TB, source driver.Source, name string, mode pglock.Mode) *Lock {
	if mode == 0 {
		mode = pglock.AccessExclusive
	}
	quoted := part.ReplaceAllStringFunc(name, func(s string) string {
		if s[0] == '"' {
			return s
		}
		return `"` + s + `"`
	})
	var conflicts []string
	for _, other := range pglock.Modes() {
		if mode.Conflicts(other) {
			conflicts = append(conflicts, other.PgLocks())
		}
	}
	return &Lock{
		t: t, source: source, name: fmt.Sprintf("the lock of table %s in mode %v", name, mode),
		lockParams: [5]string{"0", "0", "0", quoted, "{" + strings.Join(conflicts, ",") + "}"},
		take: func(ctx context.Context, conn driver.Conn, wait waitOption, opts ...pglock.TryOption) error {
			if len(opts) > 0 {
				return errors.New("the options of a key are not supported for a table: give Table a mode")
			}
			return pglock.LockTables(ctx, conn, pglock.Tables(name), wait, pglock.In(mode))
		},
	}
}

// Hold takes the lock in a separate session until [Lock.Release] or the end of the test,
// and returns the session's pid. The session looks like one left idle in a transaction.
// The only option is [pglock.Shared], for a key.
func (l *Lock) Hold(opts ...pglock.TryOption) (pid int32) {
	l.t.Helper()
	if l.holder != nil {
		l.t.Fatalf("pglocktest: hold %s: already held by pid %s", l.name, l.holderPID)
	}
	l.holder, l.holderPID = open(l.t, l.source)
	ctx, cancel := timeoutCtx()
	defer cancel()
	err := l.holder.Exec(ctx, `BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0`)
	if err == nil {
		err = l.take(ctx, l.holder, pglock.Wait(timeout), opts...)
	}
	if err != nil {
		l.t.Fatalf("pglocktest: hold %s: %v", l.name, err)
	}
	n, _ := strconv.Atoi(l.holderPID) // from Postgres, so it is a number
	return int32(n)
}

// Release releases the lock taken by [Lock.Hold]: when it returns, others can acquire it.
// It is not an error if the session was terminated in the meantime.
func (l *Lock) Release() {
	l.t.Helper()
	if l.holder == nil {
		l.t.Fatalf("pglocktest: release %s: not held: call Hold first", l.name)
	}
	ctx, cancel := timeoutCtx()
	defer cancel()
	err := l.holder.Exec(ctx, `ROLLBACK`)
	l.holder.Close()
	l.holder = nil
	if err != nil {
		l.awaitGone(l.holderPID)
	}
}

// AwaitWaiters waits until at least n sessions wait for the lock, and returns the pids of
// all waiters. If several goroutines of a [pglock.Locker] want one key, only one of them
// waits in Postgres.
func (l *Lock) AwaitWaiters(n int) (pids []int32) {
	l.t.Helper()
	return l.await(false, n, "wait for")
}

// AwaitHeld waits until another session holds the lock, and returns the pids of the
// holders. It may miss a session that holds the lock only briefly.
func (l *Lock) AwaitHeld() (pids []int32) {
	l.t.Helper()
	return l.await(true, 1, "hold")
}

// AwaitFree waits until another session can acquire the lock.
func (l *Lock) AwaitFree() {
	l.t.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		err := l.try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("pglocktest: not free after %v: %v", timeout, err)
		}
	}
}

// WantFree reports a test error with the holders if another session cannot acquire the
// lock at once. The test continues.
func (l *Lock) WantFree() {
	l.t.Helper()
	if err := l.try(); err != nil {
		l.t.Errorf("pglocktest: %s is not free: %v", l.name, err)
	}
}

// Terminate ends the sessions of all others that hold the lock, as an administrator or a
// restart of the server would. It waits until they are gone, which releases the lock, and
// returns their pids. If no session holds the lock, the test ends. The role needs
// permission to signal these sessions (PostgreSQL manual, 9.28.2 "Server Signaling
// Functions").
//
// Postgres reports a lock before its holder has the answer. To test what a function does
// that loses its lock, call Terminate once the function has begun, not after AwaitHeld:
// [pglock.Locker.Do] acquires a lock again that it loses before.
func (l *Lock) Terminate() (pids []int32) {
	l.t.Helper()
	if pids = l.sessions(terminateSQL, true); len(pids) == 0 {
		l.t.Fatalf("pglocktest: terminate the holders of %s: there are none: call AwaitHeld first", l.name)
	}
	l.awaitGone(join(pids))
	return pids
}

// try takes the lock without waiting, and releases it again.
func (l *Lock) try() error {
	l.t.Helper()
	l.openObserver()
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := l.observer.Exec(ctx, `BEGIN`); err != nil {
		l.t.Fatalf("pglocktest: %v", err)
	}
	err := l.take(ctx, l.observer, pglock.NoWait())
	if err := l.observer.Exec(ctx, `ROLLBACK`); err != nil {
		l.t.Fatalf("pglocktest: %v", err)
	}
	return err
}

// openObserver opens the session that polls.
func (l *Lock) openObserver() {
	l.t.Helper()
	if l.observer == nil {
		l.observer, l.observerPID = open(l.t, l.source)
	}
}

// sessions returns the pids of other sessions that hold the lock or wait for it.
func (l *Lock) sessions(sql string, granted bool) []int32 {
	l.t.Helper()
	l.openObserver()
	own := []string{l.observerPID}
	if l.holder != nil {
		own = append(own, l.holderPID)
	}
	args := append([]string{strconv.FormatBool(granted)}, l.lockParams[:]...)
	if !granted && l.lockParams[3] != "" { // any lock of the table
		var all []string
		for _, mode := range pglock.Modes() {
			all = append(all, mode.PgLocks())
		}
		args[5] = "{" + strings.Join(all, ",") + "}"
	}
	reply := queryValue(l.t, l.observer, sql, append(args, "{"+strings.Join(own, ",")+"}")...)
	if reply == "no such table" {
		l.t.Fatalf("pglocktest: %s: no such table: names are case-sensitive", l.name)
	}
	return pidsOf(reply)
}

// await waits until n other sessions hold the lock or wait for it.
func (l *Lock) await(granted bool, n int, verb string) []int32 {
	l.t.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		pids := l.sessions(sessionsSQL, granted)
		if len(pids) >= n {
			return pids
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("pglocktest: after %v, %d sessions %s %s, want %d: %s", timeout, len(pids), verb, l.name, n, l.others(granted))
		}
	}
}

// others describes the sessions that were not waited for: waiters instead of holders, or
// holders instead of waiters.
func (l *Lock) others(granted bool) string {
	l.t.Helper()
	pids := join(l.sessions(sessionsSQL, !granted))
	switch {
	case pids == "":
		return "no session holds it or waits for it"
	case granted:
		return "waiters: pids " + pids
	}
	return "holders: pids " + pids
}

// awaitGone waits until the sessions with these pids have ended.
func (l *Lock) awaitGone(pids string) {
	l.t.Helper()
	l.openObserver()
	awaitGone(l.t, l.observer, pids)
}

// AwaitBlocked waits until the session with this pid is blocked by other sessions, which
// hold a lock of any kind or wait for it ahead of the session, and returns their pids.
func AwaitBlocked(t testing.TB, source driver.Source, pid int32) (blockers []int32) {
	t.Helper()
	session, _ := open(t, source)
	defer session.Close()
	for deadline := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		if blockers = pidsOf(queryValue(t, session, blockedSQL, fmt.Sprint(pid))); len(blockers) > 0 {
			return blockers
		}
		if time.Now().After(deadline) {
			t.Fatalf("pglocktest: pid %[2]d is not blocked after %[1]v", timeout, pid)
		}
	}
}

// TerminateApplication ends the sessions in this database whose application_name is name.
// It waits until they are gone, and returns their pids. If there are none, the test ends.
// The role needs permission, as for [Lock.Terminate].
func TerminateApplication(t testing.TB, source driver.Source, name string) (pids []int32) {
	t.Helper()
	session, _ := open(t, source)
	defer session.Close()
	if pids = pidsOf(queryValue(t, session, terminateApplicationSQL, name)); len(pids) == 0 {
		t.Fatalf("pglocktest: no session in this database has application_name %q", name)
	}
	awaitGone(t, session, join(pids))
	return pids
}

// timeoutCtx returns a context with a time limit. It does not derive from the test's
// context, which is already done during cleanup.
func timeoutCtx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout+shortTimeout)
}

// open opens a session until the end of the test, and returns its pid. It fails behind a
// pooler, which could lend the session, and what it holds, to others.
func open(t testing.TB, source driver.Source) (session driver.Session, pid string) {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	session, err := source.Open(ctx)
	if err != nil {
		t.Fatalf("pglocktest: open a session: %v", err)
	}
	t.Cleanup(func() { session.Close() })
	hello, err := handshake.Meet(ctx, session, handshake.Settings{ApplicationName: "pglocktest", KeepSearchPath: true})
	switch {
	case err != nil:
		t.Fatalf("pglocktest: open a session: %v", err)
	case hello.Path == handshake.Pooled:
		t.Fatal("pglocktest: open a session: a connection pooler stands between the test and Postgres: " +
			"give it a source that connects to Postgres directly")
	}
	return session, fmt.Sprint(hello.PID)
}

// queryValue returns the result of a statement that must succeed.
func queryValue(t testing.TB, session driver.Session, sql string, args ...string) string {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	reply, err := session.QueryText(ctx, sql, args...)
	if err != nil {
		t.Fatalf("pglocktest: %s: %v", sql, err)
	}
	return reply
}

func awaitGone(t testing.TB, session driver.Session, pids string) {
	t.Helper()
	array := "{" + strings.ReplaceAll(pids, " ", ",") + "}"
	for deadline := time.Now().Add(timeout); queryValue(t, session, aliveSQL, array) != "0"; time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			t.Fatalf("pglocktest: not all of the sessions %[2]s have ended after %[1]v", timeout, pids)
		}
	}
}

func pidsOf(reply string) (pids []int32) {
	for _, word := range strings.Fields(reply) {
		n, _ := strconv.Atoi(word) // from Postgres, so it is a number
		pids = append(pids, int32(n))
	}
	return pids
}

func join(pids []int32) string { return strings.Trim(fmt.Sprint(pids), "[]") }
