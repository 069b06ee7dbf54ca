package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

func TestNamePattern(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"nightly":          "nightly",
		"order:{1..3}":     "order:1 order:2 order:3",
		"{-1..1}":          "-1 0 1",
		"{08..10}":         "08 09 10",
		"{0..1}":           "0 1",
		"{-02..-01}":       "-02 -01",
		"{eu,us}-{1..2}/x": "eu-1/x eu-2/x us-1/x us-2/x",
		"a{,b}":            "a ab",
		`\{"job": 7\}`:     `{"job": 7}`,
		`a\\{1..2}`:        `a\1 a\2`,
		"ä{ö,ü}":           "äö äü",
	} {
		p, err := config.ParseNamePattern(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		got := slices.Collect(p.Names())
		if wanted := strings.Split(want, " "); strings.Join(got, " ") != want || p.Count() != len(got) || len(got) != len(wanted) && !strings.Contains(want, `"`) {
			t.Errorf("%s: %q, %d, not %s", pattern, got, p.Count(), want)
		}
		if p.String() != pattern {
			t.Errorf("%s has become %s", pattern, p)
		}
	}
	for pattern, want := range map[string]string{
		"a{":                 "not closed",
		"a{1..2":             "not closed",
		"a}":                 "closes nothing",
		`a\`:                 "backslash ends it",
		"{a}":                "neither a range",
		"{}":                 "neither a range",
		"{a..b}":             "not a range of numbers",
		"{1..}":              "not a range of numbers",
		"{3..1}":             "must not be greater",
		"{0..100000}":        "more than 100000 names",
		"{1..1000}{1..1000}": "more than 100000 names",
		"{-9223372036854775808..9223372036854775807}": "more than 100000 names",
		strings.Repeat("{1..99999}", 50):              "more than 100000 names",
	} {
		if _, err := config.ParseNamePattern(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %s", pattern, err, want)
		}
	}
}

func FuzzNamePattern(f *testing.F) {
	for _, s := range []string{"order:{1..500}", "{a,b}{c,d}", `\{\\`, "{0..99999}{1..2}", "{9223372036854775806..9223372036854775807}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := config.ParseNamePattern(s)
		if err != nil {
			return
		}
		n := 0
		for range p.Names() {
			n++
		}
		if n != p.Count() || n == 0 || n > 100_000 {
			t.Errorf("%q: %d names, not %d", s, n, p.Count())
		}
		if !strings.ContainsAny(s, `{}\`) {
			if got := slices.Collect(p.Names()); len(got) != 1 || got[0] != s {
				t.Errorf("%q: %q", s, got)
			}
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("c.yaml", []byte("names:\n  - nightly\n  - order:{1..2}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(c.LockNames()); strings.Join(got, " ") != "nightly order:1 order:2" {
		t.Errorf("%q", got)
	}
	for text, want := range map[string]string{
		"names:\n  - a\n  - b{1..}\n":                 `c.yaml:3: names: {1..} is not a range`,
		"names:\n  - '{1..60000}'\n  - 'x{1..60000}'": "c.yaml:3: names: with it there are more than 100000 names",
		"names:\n  a: b\n":                            "each of the names must be text, not a mapping",
		"names: ''\n":                                 "is empty",
	} {
		if _, err := config.Parse("c.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %s", text, err, want)
		}
	}
}
