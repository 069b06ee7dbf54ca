package pglocktest

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
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
	// patience is how long anything is waited for that a test waits for.
	patience = 30 * time.Second
	// pause is how long to wait before Postgres is asked again.
	pause = 5 * time.Millisecond
)

// A Lock is one lock as others see it: a test holds it where its program wants it,
// sees whether the program has it or waits for it, and breaks the session that
// holds it. Make one with [Key] or [Table].
//
// What does not come about within half a minute, or goes wrong, ends the test with
// a word on why. So a Lock is for the goroutine that runs the test. Its sessions
// come from the Source that it was made with, are opened when they are needed, and
// end with the test.
type Lock struct {
	t      testing.TB
	source pglock.Source

	name    string    // for messages
	what    [5]string // the parameters of sessions.sql that say which lock is meant
	take    func(context.Context, pglock.Conn, ...pglock.Option) error
	looking pglock.Session // looks, and tries; nil until needed
	lookPID string
	holding pglock.Session // holds, between Hold and Release
	holdPID string
}

// Key is the advisory lock of key, in the database that source leads to.
func Key(t testing.TB, source pglock.Source, key pglock.Key) *Lock {
	classid, objid, objsubid := key.PgLocks()
	return &Lock{
		t: t, source: source, name: "the lock " + key.String(),
		what: [5]string{fmt.Sprint(classid), fmt.Sprint(objid), fmt.Sprint(objsubid), "", "{}"},
		take: func(ctx context.Context, conn pglock.Conn, opts ...pglock.Option) error {
			return pglock.LockTx(ctx, conn, key, opts...)
		},
	}
}

// part matches a part of a table's name, in double quotes or not.
var part = regexp.MustCompile(`"(?:[^"]|"")*"|[^."]+`)

// Table is the lock of a table in a mode. The name is as [pglock.Tables] takes it;
// the zero Mode is ACCESS EXCLUSIVE. Others have the lock when they have one that
// conflicts with the mode, and wait for it when they wait for any lock of the table.
func Table(t testing.TB, source pglock.Source, name string, mode pglock.Mode) *Lock {
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
		what: [5]string{"0", "0", "0", quoted, "{" + strings.Join(conflicts, ",") + "}"},
		take: func(ctx context.Context, conn pglock.Conn, opts ...pglock.Option) error {
			return pglock.LockTables(ctx, conn, pglock.Tables(name), append(opts, pglock.In(mode))...)
		},
	}
}

// Hold takes the lock in a session of its own, until [Lock.Release] or the end of
// the test, and returns the session's pid. The session looks like one that somebody
// forgot in a transaction. opts may be [pglock.Shared], for a key.
func (l *Lock) Hold(opts ...pglock.Option) (pid int32) {
	l.t.Helper()
	if l.holding != nil {
		l.t.Fatalf("pglocktest: hold %s: it is held already, by pid %s", l.name, l.holdPID)
	}
	l.holding, l.holdPID = open(l.t, l.source)
	ctx, cancel := bounded()
	defer cancel()
	err := l.holding.Exec(ctx, `BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0`)
	if err == nil {
		err = l.take(ctx, l.holding, append(slices.Clone(opts), pglock.Wait(patience))...)
	}
	if err != nil {
		l.t.Fatalf("pglocktest: hold %s: %v", l.name, err)
	}
	n, _ := strconv.Atoi(l.holdPID) // it is Postgres' own
	return int32(n)
}

// Release frees what [Lock.Hold] took: when it returns, others can have it. That
// the session was ended meanwhile, by whomever, is no failure.
func (l *Lock) Release() {
	l.t.Helper()
	if l.holding == nil {
		l.t.Fatalf("pglocktest: release %s: it is not held; call Hold first", l.name)
	}
	ctx, cancel := bounded()
	defer cancel()
	err := l.holding.Exec(ctx, `ROLLBACK`)
	l.holding.Close()
	l.holding = nil
	if err != nil {
		l.gone(l.holdPID)
	}
}

// AwaitWaiters waits until n sessions at least wait for the lock, and returns the
// pids of all that do. Of a [pglock.Locker]'s goroutines that want one key, one at
// a time waits in Postgres.
func (l *Lock) AwaitWaiters(n int) (pids []int32) {
	l.t.Helper()
	return l.await(false, n, "wait for")
}

// AwaitHeld waits until somebody else has the lock, and returns the pids of those
// who have it. Whoever has it for a moment only may not be seen.
func (l *Lock) AwaitHeld() (pids []int32) {
	l.t.Helper()
	return l.await(true, 1, "have")
}

// AwaitFree waits until another session can have the lock.
func (l *Lock) AwaitFree() {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := l.try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("pglocktest: not free after %v: %v", patience, err)
		}
	}
}

// WantFree is a failure of the test if another session cannot have the lock at
// once, which tells who has it. The test goes on.
func (l *Lock) WantFree() {
	l.t.Helper()
	if err := l.try(); err != nil {
		l.t.Errorf("pglocktest: %s is not free: %v", l.name, err)
	}
}

// Terminate ends the sessions of all others that have the lock, as an administrator
// or a restart of the server would, and returns their pids when they are gone, and
// the lock with them. That nobody has it ends the test. It takes the right to do so
// (PostgreSQL manual, 9.28.2 "Server Signaling Functions").
func (l *Lock) Terminate() (pids []int32) {
	l.t.Helper()
	if pids = l.ask(terminateSQL, true); len(pids) == 0 {
		l.t.Fatalf("pglocktest: terminate who has %s: nobody has it; AwaitHeld waits for somebody", l.name)
	}
	l.gone(join(pids))
	return pids
}

// try takes the lock and gives it back.
func (l *Lock) try() error {
	l.t.Helper()
	l.look()
	ctx, cancel := bounded()
	defer cancel()
	if err := l.looking.Exec(ctx, `BEGIN`); err != nil {
		l.t.Fatalf("pglocktest: %v", err)
	}
	err := l.take(ctx, l.looking, pglock.NoWait())
	if err := l.looking.Exec(ctx, `ROLLBACK`); err != nil {
		l.t.Fatalf("pglocktest: %v", err)
	}
	return err
}

// look opens the session that looks.
func (l *Lock) look() {
	l.t.Helper()
	if l.looking == nil {
		l.looking, l.lookPID = open(l.t, l.source)
	}
}

// ask asks for the sessions of others that have the lock or wait for it.
func (l *Lock) ask(sql string, granted bool) []int32 {
	l.t.Helper()
	l.look()
	own := []string{l.lookPID}
	if l.holding != nil {
		own = append(own, l.holdPID)
	}
	args := append([]string{strconv.FormatBool(granted)}, l.what[:]...)
	if !granted && l.what[3] != "" { // any lock of the table
		var all []string
		for _, mode := range pglock.Modes() {
			all = append(all, mode.PgLocks())
		}
		args[5] = "{" + strings.Join(all, ",") + "}"
	}
	answer := answerOf(l.t, l.looking, sql, append(args, "{"+strings.Join(own, ",")+"}")...)
	if answer == "no such table" {
		l.t.Fatalf("pglocktest: %s: there is no such table; names are as Postgres has them, capital letters included", l.name)
	}
	return pidsOf(answer)
}

// await waits until n others have the lock or wait for it.
func (l *Lock) await(granted bool, n int, verb string) []int32 {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		pids := l.ask(sessionsSQL, granted)
		if len(pids) >= n {
			return pids
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("pglocktest: after %v, %d sessions %s %s, want %d: %s", patience, len(pids), verb, l.name, n, l.others(granted))
		}
	}
}

// others tells of those who do what was not waited for.
func (l *Lock) others(granted bool) string {
	l.t.Helper()
	pids := join(l.ask(sessionsSQL, !granted))
	switch {
	case pids == "":
		return "nobody has it or waits for it"
	case granted:
		return "waiting for it are the pids " + pids
	}
	return "it is held by the pids " + pids
}

// gone waits until the sessions with these pids have ended.
func (l *Lock) gone(pids string) {
	l.t.Helper()
	l.look()
	awaitGone(l.t, l.looking, pids)
}

// AwaitBlocked waits until the session with this pid waits for a lock that others
// have or stand in line for, of whatever kind, and returns their pids.
func AwaitBlocked(t testing.TB, source pglock.Source, pid int32) (blockers []int32) {
	t.Helper()
	session, _ := open(t, source)
	defer session.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		if blockers = pidsOf(answerOf(t, session, blockedSQL, fmt.Sprint(pid))); len(blockers) > 0 {
			return blockers
		}
		if time.Now().After(deadline) {
			t.Fatalf("pglocktest: after %v pid %d is not blocked", patience, pid)
		}
	}
}

// TerminateApplication ends the sessions in this database whose application_name is
// name, and returns their pids when they are gone. That there is none ends the test.
// It takes the right to do so, as [Lock.Terminate] does.
func TerminateApplication(t testing.TB, source pglock.Source, name string) (pids []int32) {
	t.Helper()
	session, _ := open(t, source)
	defer session.Close()
	if pids = pidsOf(answerOf(t, session, terminateApplicationSQL, name)); len(pids) == 0 {
		t.Fatalf("pglocktest: no session in this database has application_name %q", name)
	}
	awaitGone(t, session, join(pids))
	return pids
}

// bounded is a context for what is to come about. It has nothing to do with the
// test's own, which is over when the test cleans up.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience+soon)
}

// open opens a session for the length of a test, and returns its pid. The session must be
// the test's own: what is held on one that a pooler lends to others is held by them.
func open(t testing.TB, source pglock.Source) (session pglock.Session, pid string) {
	t.Helper()
	ctx, cancel := bounded()
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

// answerOf is the answer to a statement that must have one.
func answerOf(t testing.TB, session pglock.Session, sql string, args ...string) string {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	answer, err := session.Ask(ctx, sql, args...)
	if err != nil {
		t.Fatalf("pglocktest: %s: %v", sql, err)
	}
	return answer
}

func awaitGone(t testing.TB, session pglock.Session, pids string) {
	t.Helper()
	array := "{" + strings.ReplaceAll(pids, " ", ",") + "}"
	for deadline := time.Now().Add(patience); answerOf(t, session, aliveSQL, array) != "0"; time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("pglocktest: after %v not all of the sessions %s have ended", patience, pids)
		}
	}
}

func pidsOf(answer string) (pids []int32) {
	for _, word := range strings.Fields(answer) {
		n, _ := strconv.Atoi(word) // they are Postgres' own
		pids = append(pids, int32(n))
	}
	return pids
}

func join(pids []int32) string { return strings.Trim(fmt.Sprint(pids), "[]") }
