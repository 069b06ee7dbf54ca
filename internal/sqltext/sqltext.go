// Package sqltext writes the SQL that several packages need: quoted identifiers and
// literals, statements with their parameters inlined, and the names of savepoints.
package sqltext

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/termtext"
)

// The savepoints that pglock sets in a caller's transaction. Each has its own name, so that
// they can be nested.
const (
	LockSavepoint  = "_pglock"       // for an attempt to take a lock
	RetrySavepoint = "_pglock_retry" // for one of several tries of a function
	TimerSavepoint = "_pglock_timer" // restarts the statement timeout
	ProbeSavepoint = "_pglock_probe" // shows whether a transaction is open
)

// Identifier returns a name as a quoted identifier.
func Identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal returns s as a string in SQL that does not depend on
// standard_conforming_strings. Characters that a terminal might interpret or not show
// are escaped.
func Literal(s string) string {
	escape := ""
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\'':
			b.WriteString("''")
			continue
		case r == '\\':
			b.WriteString(`\\`)
		case termtext.Shows(r):
			b.WriteRune(r)
			continue
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		escape = "E"
	}
	return escape + "'" + b.String() + "'"
}

// ASCIILiteral returns s as an SQL expression. It is ASCII without quotes and backslashes
// in it, so that it does not depend on client_encoding or standard_conforming_strings.
func ASCIILiteral(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\'' || r == '\\' }) {
		return "'" + s + "'"
	}
	return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString([]byte(s)) + "', 'hex'), 'UTF8')"
}

// Inline replaces the parameters of sql by args. Any dollar sign followed by a number is
// a parameter, so sql must be pglock's own.
func Inline(sql string, args ...string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(sql, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		sql = strings.TrimLeft(rest, "0123456789")
		number := rest[:len(rest)-len(sql)]
		if n, err := strconv.Atoi(number); err == nil && number[0] != '0' && n <= len(args) {
			b.WriteString(ASCIILiteral(args[n-1]))
		} else {
			b.WriteString("$" + number) // Postgres reports the error
		}
	}
}

// WithoutComment returns the statements of an SQL file without the comment at its
// beginning, which is for readers: pg_stat_activity shows what is sent.
func WithoutComment(file string) string {
	for strings.HasPrefix(file, "--") {
		_, file, _ = strings.Cut(file, "\n")
	}
	return strings.TrimSpace(file)
}

// InSchema moves the tables and functions of pglock that a statement names to another
// schema. The statement must be pglock's own: it names them as pglock.lease, and has this
// text nowhere else.
func InSchema(sql, schema string) string {
	if schema == "pglock" {
		return sql
	}
	quoted := Identifier(schema)
	return strings.NewReplacer(
		"SCHEMA IF NOT EXISTS pglock;", "SCHEMA IF NOT EXISTS "+quoted+";",
		"pglock.lease", quoted+".lease",
		"pglock.session", quoted+".session",
		"pglock.fence", quoted+".fence",
	).Replace(sql)
}
