package render

import (
	"fmt"
	"strconv"
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
func Duration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

// Time formats t for people, in the local time zone.
func Time(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
