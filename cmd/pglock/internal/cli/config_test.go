package cli

import (
	"strings"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

// However odd a connection string is, its password is not shown.
func TestRedacted(t *testing.T) {
	for _, text := range []string{
		"postgres://u:s3cret@h/d",
		"postgresql://u:s3cret@h:1,h2:2/d?sslmode=require",
		"postgres://u:s3c/s3cret@h/d",
		"postgres://u:p@s3cret@h/d",
		"postgres://:s3cret@h/d",
		"postgres:///d?password=s3cret",
		"postgres:///d?user=u&password=s3cret&x=y",
		"password=s3cret",
		"host=h password = s3cret user=u",
		"host=h password='a s3cret' user=u",
		`password='a \' s3cret' user=u`,
		"password='s3cret",
		"sslpassword=s3cret",
	} {
		if got := redacted(config.Database{ConnString: text}); strings.Contains(got, "s3cret") {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"shop", "host=h user=u", "postgres://u@h/d", "postgres://h:5432/d"} {
		if got := redacted(config.Database{ConnString: text}); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
	d := config.Database{Settings: []config.Setting{{Name: "host", Value: "a b"}, {Name: "password", Value: "s3 cret"}}}
	if got := redacted(d); got != "host='a b' password=xxxxx" {
		t.Error(got)
	}
}
