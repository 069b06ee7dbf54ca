package inspect

import (
	"strings"
	"testing"
)

func TestSplitComments(t *testing.T) {
	for _, test := range []struct {
		query   string
		context Context
		rest    string
	}{
		{"SELECT 1", "", "SELECT 1"},
		{"", "", ""},
		{"/* why */ SELECT 1 -- because", "", "/* why */ SELECT 1 -- because"},
		{
			`/*pga_context={"url": "/checkout/", "method": "POST"}*/ SELECT 1`,
			`{"url":"/checkout/","method":"POST"}`,
			"SELECT 1",
		},
		{
			`/*pga_context={"n": 1, "b": null, "l": ["x"]}*/SELECT 1`,
			`{"n":1,"b":null,"l":["x"]}`,
			"SELECT 1",
		},
		{
			"SELECT 1 /*action='run',route='%2Fa%20b'*/",
			`{"action":"run","route":"/a b"}`,
			"SELECT 1",
		},
		{`SELECT 1 /*name='it\'s'*/ ; `, `{"name":"it's"}`, "SELECT 1;"},
		{`SELECT 1 /*a='1+1', b='%'*/`, `{"a":"1+1","b":"%"}`, "SELECT 1"},
		{`/*pga_context={"a": "x"}*/ SELECT 1 /*b='y'*/`, `{"a":"x","b":"y"}`, "SELECT 1"},
		{`/*b='y'*/ SELECT 1`, `{"b":"y"}`, "SELECT 1"},
		{`/*b='y'*/ /* why */ SELECT 1`, `{"b":"y"}`, "/* why */ SELECT 1"},
		{`SELECT '/*b=''y''*/'`, "", `SELECT '/*b=''y''*/'`},
		{`/*pga_context={"url": "/chec`, "", `/*pga_context={"url": "/chec`},
		{`/*pga_context=null*/ SELECT 1`, "", `/*pga_context=null*/ SELECT 1`},
		{`SELECT 1 /*b='y*/`, "", `SELECT 1 /*b='y*/`},
		{`SELECT 1 /*='y'*/`, "", `SELECT 1 /*='y'*/`},
		{`SELECT 1 /*b='y' c='z'*/`, "", `SELECT 1 /*b='y' c='z'*/`},
		{`/*/ SELECT 1 /*/`, "", `/*/ SELECT 1 /*/`},
		{`*/`, "", `*/`},
		{`/*`, "", `/*`},
	} {
		context, rest := splitComments(test.query)
		if context != test.context || rest != test.rest {
			t.Errorf("%s\n  got  %q, %q\n  want %q, %q", test.query, context, rest, test.context, test.rest)
		}
	}
}

func FuzzSplitComments(f *testing.F) {
	for _, seed := range []string{
		`/*pga_context={"url": "/"}*/ SELECT 1`, "SELECT 1 /*a='b',c='%2F'*/", `SELECT 1 /*a='it\'s'*/;`,
		"/*a='b'*//*a='b'*/", "/*/", "*/", "/*", "/*='*/", "SELECT '/*a=''b''*/'", "/*a='\\", ";;; /*a='b'*/ ;;",
		`/*pga_context={"a":{"b":[1,null]}}*/`, "/*a='%zz'*/", "\x00/*a='\xff'*/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		context, rest := splitComments(query)
		if context == "" && !strings.Contains(query, djangoStart) {
			if rest != query {
				t.Fatalf("%q became %q though there is no context", query, rest)
			}
			return
		}
		if context != "" && len(rest) >= len(query) {
			t.Fatalf("%q became %q, which is no shorter", query, rest)
		}
		// The rest, except for the space and the semicolon at its end, is part of the
		// query.
		if !strings.Contains(query, strings.TrimRight(rest, "; \t\r\n")) {
			t.Fatalf("%q became %q, which it does not contain", query, rest)
		}
	})
}

func TestContextDepth(t *testing.T) {
	nested := func(depth int) string {
		return `{"a": ` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
	}
	for depth, want := range map[int]bool{2: true, maxContextDepth: true, maxContextDepth + 1: false, 20_000: false} {
		query := djangoStart + nested(depth) + commentEnd + " SELECT 1"
		context, rest := splitComments(query)
		if (context != "") != want || (rest == "SELECT 1") != want {
			t.Errorf("depth %d: %.50q, %.50q", depth, context, rest)
		}
	}
}

func TestLookup(t *testing.T) {
	const context Context = `{"n":3,"text":"3","deep":{"a":[1,null,{"b":"x"}]},"http.route":"/x","http":{"route":"/y","code":200},"no":null,"yes":true,"f":1.50,"a":{"b.c":1},"a.b":{"d":2},"0":"zero"}`
	for path, want := range map[string]string{
		"n": "3", "text": "3", "deep.a": `[1,null,{"b":"x"}]`, "deep.a.0": "1", "deep.a.2.b": "x", "deep.a.-1.b": "x", "deep": `{"a":[1,null,{"b":"x"}]}`,
		"http.route": "/x", "http.code": "200", "yes": "true", "f": "1.50", "a.b.c": "1", "a.b.d": "2", "0": "zero",
	} {
		if got, ok := context.Lookup(path); got != want || !ok {
			t.Errorf("%s: %q, %v, want %q", path, got, ok, want)
		}
	}
	for _, path := range []string{"", ".", "no", "deep.a.1", "deep.a.3", "deep.a.-4", "deep.a.x", "deep.a.", "deep.", ".deep", "n.0", "text.0", "none", "no.x", "a.b.e"} {
		if got, ok := context.Lookup(path); ok || got != "" {
			t.Errorf("%s: %q", path, got)
		}
	}
	for _, context := range []Context{"", "x", "{", "[", `{"a":`} {
		if got, ok := context.Lookup("a"); ok {
			t.Errorf("%q: %q", context, got)
		}
	}
}
