package inspect

import (
	"slices"
	"testing"
)

func TestRecord(t *testing.T) {
	for text, want := range map[string][]string{
		`(a,b,c)`:             {"a", "b", "c"},
		`(,,)`:                {"", "", ""},
		`(a,"b c",d)`:         {"a", "b c", "d"},
		`("a ""b""","c\\d",)`: {`a "b"`, `c\d`, ""},
		`("","",",")`:         {"", "", ","},
	} {
		var fields [3]string
		if n := parseRecord(text, fields[:]); n != 3 || !slices.Equal(fields[:], want) {
			t.Errorf("%s: %d fields %q, want %q", text, n, fields, want)
		}
	}
	for _, text := range []string{"", "(", "a", "(a,b,c,d)", `("a)`, `("a"b)`, `("a\)`} {
		var fields [3]string
		if n := parseRecord(text, fields[:]); n != -1 {
			t.Errorf("%q is read as %d fields %q", text, n, fields)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, seed := range []string{"(a,b)", `("a ""b""",)`, `("\\",x)`, "()", `(")`, `("",`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var fields [4]string
		if n := parseRecord(text, fields[:]); n < -1 || n == 0 || n > len(fields) {
			t.Fatalf("%q: %d fields", text, n)
		}
	})
}
