package pglock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
)

// hostileNames are valid names of tables, roles and so on that attempt an injection.
var hostileNames = []string{
	`a"b`, `"`, `""`, `a.b`, `a;b`, `a'b`, `a\b`, `$$`, `%s%n%`, `:'x'`, `$1`, "new\nline", "tab\t", "\r", " ", " lead", "UPPER",
	`x"; DROP TABLE victim; --`, `*/ DROP TABLE victim /*`, "esc\x1b[31m", "\u009b", "bidi\u202e", "zero\u200bwidth", "\ufeff",
	"K", "ſ", "İ", "é", "e\u0301", "日本", "\U0001f512", "שלום",
	strings.Repeat("x", 63), strings.Repeat("é", 31) + "x", "select", "NULL", "{a,b}", "(a,b)", `a,b`, "<x>", "=cmd()",
}

// wantPrintable fails unless text is one line without control characters.
func wantPrintable(t *testing.T, text string) {
	t.Helper()
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
		t.Errorf("not safe for a terminal: %q", text)
	}
}

// A table is locked by its name, whatever that is, and no other is; and the error lists
// its holders.
func TestLockTablesOfHostileNames(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec("CREATE TABLE victim ()")
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	var tables []any
	for _, name := range hostileNames {
		id := pgx.Identifier{name, name}.Sanitize()
		d.exec("CREATE SCHEMA " + pgx.Identifier{name}.Sanitize() + "; CREATE TABLE " + id + " ()")
		tables = append(tables, quote(name)+"."+quote(name))
	}
	holder := connect(t, d.dsn)
	must1(holder.Exec(t.Context(), `SET application_name = 'it"s'; CREATE ROLE `+pgx.Identifier{"evil\x1b[31m"}.Sanitize()))
	t.Cleanup(func() { d.exec(`DROP ROLE ` + pgx.Identifier{"evil\x1b[31m"}.Sanitize()) })
	for i, name := range hostileNames {
		tx := must1(holder.Begin(t.Context()))
		must1(tx.Exec(t.Context(), "LOCK TABLE "+pgx.Identifier{name, name}.Sanitize()))
		waiter := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
		for _, opt := range []pglock.TableOption{pglock.NoWait(), pglock.Wait(5 * time.Millisecond)} {
			err := pglock.LockTables(t.Context(), waiter, pglock.Tables(tables[i]), opt)
			var e *pglock.Error
			if !errors.Is(err, pglock.ErrNotAcquired) || !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].PID != int32(holder.PgConn().PID()) {
				t.Errorf("%q: %v", name, err)
				continue
			}
			wantPrintable(t, err.Error())
		}
		must(t, tx.Rollback(t.Context()))
		must(t, pglock.LockTables(t.Context(), waiter, pglock.Tables(tables[i]), pglock.In(pglock.Share)))
		var locked string
		d.scan(&locked, `SELECT string_agg(c.relname, '|') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			WHERE l.pid = $1 AND l.mode = 'ShareLock'`, waiter.pid())
		if locked != name {
			t.Errorf("%q is locked, not %q", locked, name)
		}
		must(t, waiter.back())
	}
	all := pgxTx(t, must1(holder.Begin(t.Context())))
	must(t, pglock.LockTables(t.Context(), all, pglock.Tables(tables...)))
	must(t, all.back())
	d.exec("SELECT FROM victim")
}

// An invalid name is rejected before anything is sent, with a short error.
func TestTablesThatAreNone(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	long := strings.Repeat("x", 1<<20)
	for _, name := range []string{"", ".", "a.", ".a", "a.b.c", "\x00", "a\x00b", `"a`, `"a"b`, `""`, "\xff", `"\xc3"` + "\xc3", strings.Repeat("x", 64), strings.Repeat("é", 32), long, `"` + long} {
		tx := pgxTx(t, must1(connect(t, d.dsn).Begin(t.Context())))
		err := pglock.LockTables(t.Context(), tx, pglock.Tables(name))
		var state interface{ SQLState() string }
		if err == nil || errors.As(err, &state) {
			t.Errorf("%.20q: %v", name, err)
			continue
		}
		if len(err.Error()) > 600 {
			t.Errorf("%.20q: an error of %d bytes", name, len(err.Error()))
		}
		wantPrintable(t, err.Error())
		tx.usable()
		must(t, tx.back())
	}
}

// Any string is a lock's name, and the messages about it are safe to print.
func TestHostileLockNames(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	ours, others := d.locker(), d.locker()
	seen := map[int64]string{}
	for _, name := range append([]string{"", "\x00", "a\x00b", "\xff", "\ufffd", strings.Repeat("x", 1<<20), strings.Repeat("\x1b", 1<<20)}, hostileNames...) {
		key := pglock.Name(name)
		if other, ok := seen[key.ID()]; ok {
			t.Errorf("%q and %q are one lock", name, other)
		}
		seen[key.ID()] = name
		if got, ok := key.Name(); !ok || got != name {
			t.Errorf("%.20q has the name %.20q", name, got)
		}
		held := lock(t, ours, key)
		_, err := others.Lock(t.Context(), key, pglock.NoWait())
		wantErr(t, err, pglock.ErrNotAcquired)
		for _, text := range []string{key.String(), err.Error(), fmt.Sprint(key), fmt.Sprintf("%v", held.Keys()[0])} {
			wantPrintable(t, text)
			if len(text) > 1500 {
				t.Errorf("%.20q: %d bytes", name, len(text))
			}
			if !strings.Contains(text, fmt.Sprint(key.ID())) {
				t.Errorf("%.20q: %s does not contain the number", name, text)
			}
		}
		must(t, held.Unlock())
	}
}

// Text chosen by others is escaped, so that it cannot control a terminal.
func TestErrorsAreSafe(t *testing.T) {
	t.Parallel()
	const evil = "evil\x1b[31m\u009b0m\u202e\a\r\n"
	h := pglock.Holder{PID: 1, User: evil, Application: evil, Client: evil, Since: time.Now()}
	e := &pglock.Error{
		Op: "lock", Keys: []pglock.Key{pglock.Name(evil)}, Tables: []string{evil}, Holders: []pglock.Holder{h},
		Kind: pglock.ErrNotAcquired, Err: errors.New(evil),
	}
	for _, text := range []string{h.String(), e.Error(), fmt.Sprint(h), e.Keys[0].String()} {
		wantPrintable(t, text)
		if !strings.Contains(text, `evil\x1b[31m`) {
			t.Errorf("the text is missing: %q", text)
		}
	}
}
