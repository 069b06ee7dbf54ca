package render

import (
	"testing"
	"time"
)

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünïcödé 漢字":    "plain ünïcödé 漢字",
		"a\n\tb  c\r\n":       "a b c",
		"\x1b[31mred\x07\x7f": `\x1b[31mred\x07\x7f`,
		"\u009b\u0085":        `\u009b\u0085`,
		"\u202e\u200b\ufeff":  `\u202e\u200b\ufeff`,
		"\xff\xc3":            `\xff\xc3`,
		"\x00":                `\x00`,
		"\ufffd":              "\ufffd",
	} {
		if got := Quote(text); got != `"`+want+`"` {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                             "0ms",
		999 * time.Millisecond:        "999ms",
		1999 * time.Millisecond:       "1.9s",
		time.Minute:                   "1m00s",
		time.Hour + 5*time.Minute:     "1h05m",
		50*time.Hour + 59*time.Minute: "2d02h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s, not %s", d, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 sessions", 1: "1 session", 2: "2 sessions"} {
		if got := Plural(n, "session", "sessions"); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}
