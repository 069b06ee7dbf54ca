package connect

import (
	"errors"
	"strings"
	"testing"
)

// Any -d, -h, -p and -U result in settings or in an error without the password.
func FuzzConfig(f *testing.F) {
	const canary = "Kanarienvogel"
	for _, s := range []string{
		"", "d", "dbname=d", "postgres://", "postgresql:///d", "postgres://u:%s@h:1/d", "postgres://u:%s@h:x/d", "postgres://u:a/%s@h", "host=h password='%s", "password = '%s' port=x",
		"postgres://h/?password=%s&sslmode=loud", "a=b password=%s", "=", "'", `\`, "postgres://[::1", "password=x %s", "Postgres://u:%s@h/d?x=y", "%00", "\x00", "hostaddr=1 password=%s", "Password=%s",
	} {
		f.Add(s, "h", "1", "u")
		f.Add(s, "", "", "")
	}
	f.Fuzz(func(t *testing.T, database, host, port, user string) {
		all := strings.ToLower(database + host + port + user)
		// Leave out settings that read files or resolve names.
		for _, no := range []string{"file", "ssl", "service", "cert", "key", "%6", "%7", "%4", "%5"} {
			if strings.Contains(all, no) {
				return
			}
		}
		if len(all) > 1000 || strings.Contains(all, canary) {
			return
		}
		database = strings.Replace(database, "%s", canary, 1)
		target, err := Flags{Database: database, Host: host, Port: port, User: user}.Target(environment, "test")
		if err != nil {
			var settings *SettingsError
			if !errors.As(err, &settings) || settings.Text == "" {
				t.Fatalf("%T: %v", err, err)
			}
			// If it is in the place of a password.
			if strings.Contains(err.Error(), canary) && (strings.Contains(database, ":"+canary+"@") || strings.Contains(database, "password="+canary) || strings.Contains(database, "password='"+canary)) {
				t.Errorf("%q: %v", database, err)
			}
			return
		}
		for name, value := range target.base.RuntimeParams {
			if strings.Contains(name+value, "\x00") {
				t.Errorf("%q has a NUL", name)
			}
		}
		if strings.Contains(target.User+target.Database+target.password, "\x00") {
			t.Errorf("%q has a NUL", database)
		}
	})
}
