// Package sqltext writes the parts of SQL that several packages need: quoted identifiers
// and literals, and the names of savepoints.
package sqltext

import (
	"encoding/hex"
	"fmt"
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
