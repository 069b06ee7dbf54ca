package render

import (
	"fmt"
	"time"

	"github.com/pglock-go/pglock/internal/termtext"
)

// maxQuoted is how many characters of a text are quoted.
const maxQuoted = 65

// Quote returns s in quotes, made printable and cut to a readable length.
func Quote(s string) string {
	return `"` + termtext.Line(termtext.Cut(s, maxQuoted)) + `"`
}

// Plural returns a number with its noun.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Duration formats d for people, with at most two units.
func Duration(d time.Duration) string { return termtext.Duration(d) }

// Time formats t for people, in the local time zone.
func Time(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
