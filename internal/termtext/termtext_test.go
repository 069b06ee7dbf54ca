package termtext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for s, want := range map[string]string{
		"":                        "",
		" ":                       "",
		"plain":                   "plain",
		"a b":                     "a b",
		" a  b ":                  "a b",
		"a\tb\r\nc\u2028d\u00a0e": "a b c d e",
		"\x1b[31mred":             `\x1b[31mred`,
		"\x1b]8;;http://x\a":      `\x1b]8;;http://x\x07`,
		"\u009b31m\u0085":         `\u009b31m\u0085`,
		"back\bspace\x7f\x00":     `back\x08space\x7f\x00`,
		"\u202eright":             `\u202eright`,
		"zero\u200bwidth\ufeff":   `zero\u200bwidth\ufeff`,
		"tag\U000e0041":           `tag\U000e0041`,
		"\xff\xfe broken \xc3":    `\xff\xfe broken \xc3`,
		"\u05d0\u05d1 日本 é":       "\u05d0\u05d1 日本 é",
	} {
		if got := Line(s); got != want {
			t.Errorf("%q: %q, not %q", s, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	for s, want := range map[string]string{
		"a\n\tb":            "a\n\tb",
		"a\r\nb":            "a\nb",
		"a\rb":              `a\x0db`,
		"a\u2029b\v":        "a\nb" + `\x0b`,
		"\x1b]52;c;x\x1b\\": `\x1b]52;c;x\x1b\`,
	} {
		if got := Lines(s); got != want {
			t.Errorf("%q: %q, not %q", s, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "a b", "\x1b[2J", "\u009b0m\u202e\u2066", "\xff\xc3(", "a\r\n\tb\u2028c", "\u00ad\U000e0001 日"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, got := range map[string]string{"Line": Line(s), "Lines": Lines(s)} {
			if !utf8.ValidString(got) {
				t.Errorf("%s(%q) is not UTF-8: %q", name, s, got)
			}
			if i := strings.IndexFunc(got, func(r rune) bool {
				return (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) && (name == "Line" || r != '\n' && r != '\t')
			}); i >= 0 {
				t.Errorf("%s(%q) contains what a terminal may obey: %q", name, s, got)
			}
		}
		line := Line(s)
		if strings.ContainsAny(line, "\n\t\u2028\u2029") || strings.Contains(line, "  ") || line != strings.TrimSpace(line) {
			t.Errorf("Line(%q) is not one line: %q", s, line)
		}
		if Line(line) != line {
			t.Errorf("Line(%q) changes when applied again: %q", s, line)
		}
	})
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 1, ""},
		{"a", 1, "a"},
		{"ab", 1, "…"},
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"abcd", 1, "…"},
		{"日本語", 2, "日…"},
		{"äöü", 3, "äöü"},
		{"äöüß", 3, "äö…"},
		{"a\xff\xffb", 4, "a\xff\xffb"},
		{"a\xff\xffb", 3, "a\xff…"},
	} {
		if got := Cut(test.text, test.width); got != test.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", test.text, test.width, got, test.want)
		}
	}
}

func TestShort(t *testing.T) {
	name := strings.Repeat("ä", 100)
	if got := Short(name); got != name {
		t.Errorf("100 characters are cut to %q", got)
	}
	if got, want := Short(name+"ä"), strings.Repeat("ä", 99)+"…"; got != want {
		t.Errorf("101 characters are cut to %q", got)
	}
}

func TestSession(t *testing.T) {
	for _, test := range []struct {
		application, user string
		more              []string
		want              string
	}{
		{"", "", []string{"checkpointer"}, "pid 7 (checkpointer)"},
		{"", "u", nil, "pid 7 (user u)"},
		{"my \"app\"", "u", []string{"active", "idle"}, `pid 7 ("my \"app\"", user u, active, idle)`},
		{"", "\x1b[31m", nil, `pid 7 (user \x1b[31m)`},
	} {
		if got := Session(7, test.application, test.user, test.more...); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}
