package connect

import (
	"strings"
	"testing"
)

// What a URI says itself wins over the flags, in whichever of its parts it says it.
func TestConnString(t *testing.T) {
	flags := Flags{Host: "h", Port: "1", User: "u"}
	for database, want := range map[string]string{
		"":                           "user='u' port='1' host='h' ",
		"d":                          "user='u' port='1' host='h' dbname='d'",
		`it's \`:                     `user='u' port='1' host='h' dbname='it\'s \\'`,
		"dbname=d host=x":            "user='u' port='1' host='h' dbname=d host=x",
		"postgres://":                "postgres://?host=h&port=1&user=u",
		"postgresql:///d":            "postgresql:///d?host=h&port=1&user=u",
		"postgres://x":               "postgres://x?port=1&user=u",
		"postgres://x:2/d":           "postgres://x:2/d?user=u",
		"postgres://:2/d":            "postgres://:2/d?host=h&user=u",
		"postgres://v@x":             "postgres://v@x?port=1",
		"postgres://:secret@x":       "postgres://:secret@x?port=1&user=u",
		"postgres://[::1]/d":         "postgres://[::1]/d?port=1&user=u",
		"postgres://[::1]:2/d":       "postgres://[::1]:2/d?user=u",
		"postgres://a,b/d":           "postgres://a,b/d?port=1&user=u",
		"postgres:///d?host=%2Ftmp":  "postgres:///d?host=%2Ftmp&port=1&user=u",
		"postgres:///d?%68ost=x":     "postgres:///d?%68ost=x&port=1&user=u",
		"postgres:///d?user=w&x=y":   "postgres:///d?user=w&x=y&host=h&port=1",
		"postgres://v:a/b@x:2/d?c=1": "postgres://v:a/b@x:2/d?c=1&user=u", // a broken one: pgx refuses it
	} {
		flags.Database = database
		if got := flags.connString(); got != want {
			t.Errorf("%s:\n%s, not\n%s", database, got, want)
		}
	}
}

// An error about settings never has the password in it.
func TestNoPasswordInErrors(t *testing.T) {
	for _, database := range []string{
		"postgres://u:sEcReT@h:port/d",
		"postgres://u:sEc/ReT@h/d?sslmode=loud",
		"postgres://u:x:sEcReT@h:99999/d",
		"postgres://u:sEcReT%zz@h/d",
		"postgres://u:sEcReT%00@h/d",
		"postgres://h/d?password=sEcReT%00",
		"postgres://h/d?password=sEcReT&sslmode=loud",
		"host=h password=sEcReT port=x",
		"host=h password='x sEcReT",
		"host=h password=x sEcReT",
		"host=h password=x sEcReT port=1",
		"password = sEcReT sslmode=loud host=h",
	} {
		_, err := Flags{Database: database}.Config(func(string) string { return "" }, "test")
		if err == nil {
			t.Errorf("%s: no error", database)
		} else if strings.Contains(err.Error(), "sEc") || strings.Contains(err.Error(), "ReT") {
			t.Errorf("%s: %v", database, err)
		}
	}
}
