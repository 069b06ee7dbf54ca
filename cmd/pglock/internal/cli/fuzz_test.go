package cli

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock/inspect"
)

// A flag either rejects a value with an error, or formats it so that it is parsed as the
// same value again.
func FuzzFlags(f *testing.F) {
	flags := map[string]func() pflag.Value{
		"duration": func() pflag.Value { return &durationFlag{min: time.Millisecond, what: "too short"} },
		"code":     func() pflag.Value { return new(codeFlag) },
		"limit":    func() pflag.Value { return new(limitFlag) },
		"count":    func() pflag.Value { return &countFlag{what: "must be 1 or more"} },
		"pid":      func() pflag.Value { return new(pidFlag) },
		"key":      func() pflag.Value { return new(keyFlag) },
		"pg_locks": func() pflag.Value { return new(pgLocksFlag) },
		"kind": func() pflag.Value {
			return &kindFlag{choices: []inspect.Class{inspect.Superusers, inspect.Background}}
		},
		"allow": func() pflag.Value {
			return &kindFlag{choices: []inspect.Class{inspect.WALSenders, inspect.Ourselves}}
		},
		"attributes": func() pflag.Value { return new(attributeFlag) },
		"filter":     func() pflag.Value { return new(filterFlag) },
		"watch":      func() pflag.Value { return new(watchFlag) },
		"output":     func() pflag.Value { return &outputFlag{choices: []string{"table", "json"}} },
	}
	for name := range flags {
		for _, s := range []string{
			"", "0", "1", "-1", "255", "256", "7,42", "-7, -42", "1,2,3", "9223372036854775808", "1s", "1h30m", "1.5", "1e300h", "NaN", "Inf", "0x10", "1_000",
			"superusers", "walsender,self", "pid,mode", "pid = 1", "table", "\x00", "\xff", " 1 ", "²", "2147483648",
		} {
			f.Add(name, s)
		}
	}
	f.Fuzz(func(t *testing.T, name, s string) {
		make, ok := flags[name]
		if !ok {
			return
		}
		flag := make()
		if err := flag.Set(s); err != nil {
			if err.Error() == "" {
				t.Errorf("%s %q: an error without text", name, s)
			}
			return
		}
		if name == "pg_locks" {
			return // it is formatted for another flag
		}
		again := make()
		if err := again.Set(flag.String()); err != nil || again.String() != flag.String() {
			t.Errorf("%s %q is %q, which is %q, %v", name, s, flag, again, err)
		}
	})
}
