package pglock

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// A quoted name parses back to itself, and the parts of a parsed name are valid names in
// Postgres.
func FuzzTableName(f *testing.F) {
	for _, s := range []string{
		"t", "app.t", `"a.b"."c""d"`, `a"b`, `"a`, `"a"b`, "a..b", "", ".", "a.b.c", "\x00", "\xff", "K.ſ", strings.Repeat("x", 64), `""`, "a\nb", `x"; DROP TABLE t; --`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := parseTableName(s)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		} else {
			again, err := parseTableName(name.sql())
			if err != nil || again != name {
				t.Errorf("%q is %q, which reads as %q, %v", s, name.sql(), again, err)
			}
			for _, part := range []string{name.schema, name.table} {
				if len(part) > maxName || !utf8.ValidString(part) || strings.Contains(part, "\x00") {
					t.Errorf("%q has the part %q", s, part)
				}
			}
		}
		// The name ends where SQL sees its end, and not before.
		quoted := sqltext.Identifier(s)
		if end := closingQuote(quoted); end != len(quoted)-1 {
			t.Errorf("%s ends at %d", quoted, end)
		}
	})
}

func FuzzReadHolders(f *testing.F) {
	for _, s := range []string{
		"[]", "null", "", "{}", `[{"pid": 1, "user": "u", "mode": "ExclusiveLock", "granted": true, "since": "2026-01-31T12:00:00+00:00"}, {"pid": 2}]`,
		`[{"pid": 99999999999}]`, `[{"since": "never"}]`, `[{"granted": false}, {"granted": true}]`, `[[[[`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		holders, err := readHolders(s)
		if err != nil {
			return
		}
		if len(holders) > 0 && holders[0].Granted && slices.ContainsFunc(holders, func(h Holder) bool { return !h.Granted }) {
			t.Errorf("there is a waiter among the holders: %v", holders)
		}
		for _, h := range holders {
			_ = h.String()
		}
	})
}

func FuzzParseMode(f *testing.F) {
	for _, s := range []string{"ACCESS SHARE", " access\texclusive ", "RowExclusiveLock", "", "SHARE ROW", "ſhare", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mode, err := ParseMode(s)
		if (err == nil) != mode.valid() {
			t.Errorf("%q: %v, %v", s, mode, err)
		}
		if again, err := ParseMode(mode.String()); err == nil && again != mode {
			t.Errorf("%q: %v, then %v", s, mode, again)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("", int64(0), int32(0), int32(0))
	f.Add("nightly", int64(-1), int32(-1), int32(1<<31-1))
	f.Add("\x00\xff\x1b[31m\u202e", int64(-1<<63), int32(-1<<31), int32(7))
	f.Fuzz(func(t *testing.T, name string, n int64, class, object int32) {
		for _, key := range []Key{Name(name), Int(n), Pair(class, object)} {
			back, ok := PgLocksKey(key.PgLocks())
			if !ok || back.ID() != key.ID() || back.pair != key.pair {
				t.Errorf("%v is shown as %v", key, back)
			}
			if text := key.String(); !utf8.ValidString(text) || len(text) > 1500 || strings.ContainsAny(text, "\x1b\n\u202e") {
				t.Errorf("%q", text)
			}
		}
	})
}
