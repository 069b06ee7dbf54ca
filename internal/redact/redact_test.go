package redact

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	for _, test := range [][3]string{
		{"postgres://u:hunter2@h:x/d", `parse "postgres://u:hunter2@h:x/d": invalid port ":x"`, `parse "(the connection string)": invalid port ":x"`},
		{"postgres://u:hun/ter2@h/d", `invalid port ":hun" after host`, `invalid port ":xxxxx" after host`},
		{"host=h password=x hunter2 port=1", `missing "=" after "hunter2"`, `missing "=" after "xxxxx"`},
		{"password = 'a hunter2' host=h", `what is a hunter2?`, `what is xxxxx?`},
		{"postgres://h/d?password=hunter2%21&x=y", `what is hunter2!?`, `what is xxxxx?`},
		{"u:hunter2@h", `u:hunter2@h is nothing`, `(the connection string) is nothing`},
		{"host=h port=x", `invalid port`, `invalid port`},
		{"", `nothing`, `nothing`},
		{"postgres://u@h/d", `user u`, `user u`},
	} {
		if got := Mask(test[1], test[0]); got != test[2] {
			t.Errorf("%s: %s, not %s", test[0], got, test[2])
		}
	}
}

func TestHide(t *testing.T) {
	const dsn = "postgres://u:hunter2@h:x/d"
	harmless := errors.New("harmless")
	if got := Hide(harmless, dsn); got != harmless {
		t.Error(got)
	}
	inner := &url.Error{Op: "parse", URL: dsn, Err: harmless}
	hidden := Hide(fmt.Errorf("opening: %w", inner), dsn)
	if strings.Contains(hidden.Error(), "hunter2") || errors.As(hidden, &inner) {
		t.Error(hidden)
	}
	if Hide(nil, dsn) != nil {
		t.Error("nothing is something")
	}
}

// Wherever the password is in a connection string, a text that quotes the string, or a
// tail of it, does not show it after Mask.
func FuzzMask(f *testing.F) {
	for i, password := range []string{"hunter2", "a b c d", "p@ss:w/rd", "it's", `back\slash`, "%zz%41", "x&y=z", "münchen", "'quoted'"} {
		f.Add(password, i)
	}
	f.Fuzz(func(t *testing.T, password string, form int) {
		if len(password) < minPiece || strings.TrimSpace(password) != password || strings.Contains(mask+"(the connection string)", password) {
			return
		}
		forms := []string{
			"postgres://u:" + password + "@h/d", "postgres://h/d?password=" + url.QueryEscape(password), "postgres://u:" + url.PathEscape(password) + "@h",
			"host=h password=" + password, "password='" + password + "' host=h", "u:" + password + "@h",
		}
		if form < 0 {
			form = -(form + 1)
		}
		dsn := forms[form%len(forms)]
		if strings.Count(dsn, password) != 1 && strings.Contains(dsn, password) {
			return // the rest of the string contains it, too
		}
		for _, text := range []string{"cannot parse " + dsn + ": no", "parse \"" + dsn + "\"", "after \"" + password + "\""} {
			got := Mask(text, dsn)
			if strings.Contains(got, password) && !strings.Contains(Mask("cannot parse : no parse after \"\"", dsn), password) {
				t.Errorf("%q: %q contains %q", dsn, got, password)
			}
		}
	})
}
