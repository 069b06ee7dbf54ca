package inspect

import (
	"maps"
	"strings"
	"testing"
)

func TestSplitComments(t *testing.T) {
	for _, test := range []struct {
		query   string
		context map[string]string
		rest    string
	}{
		{"SELECT 1", nil, "SELECT 1"},
		{"", nil, ""},
		{"/* why */ SELECT 1 -- because", nil, "/* why */ SELECT 1 -- because"},
		{
			`/*pga_context={"url": "/checkout/", "method": "POST"}*/ SELECT 1`,
			map[string]string{"url": "/checkout/", "method": "POST"},
			"SELECT 1",
		},
		{
			`/*pga_context={"n": 1, "b": null, "l": ["x"]}*/SELECT 1`,
			map[string]string{"n": "1", "b": "", "l": `["x"]`},
			"SELECT 1",
		},
		{
			"SELECT 1 /*action='run',route='%2Fa%20b'*/",
			map[string]string{"action": "run", "route": "/a b"},
			"SELECT 1",
		},
		{`SELECT 1 /*name='it\'s'*/ ; `, map[string]string{"name": "it's"}, "SELECT 1;"},
		{`SELECT 1 /*a='1+1', b='%'*/`, map[string]string{"a": "1+1", "b": "%"}, "SELECT 1"},
		{`/*pga_context={"a": "x"}*/ SELECT 1 /*b='y'*/`, map[string]string{"a": "x", "b": "y"}, "SELECT 1"},
		{`/*b='y'*/ SELECT 1`, map[string]string{"b": "y"}, "SELECT 1"},
		{`/*b='y'*/ /* why */ SELECT 1`, map[string]string{"b": "y"}, "/* why */ SELECT 1"},
		{`SELECT '/*b=''y''*/'`, nil, `SELECT '/*b=''y''*/'`},
		{`/*pga_context={"url": "/chec`, nil, `/*pga_context={"url": "/chec`},
		{`/*pga_context=null*/ SELECT 1`, nil, `/*pga_context=null*/ SELECT 1`},
		{`SELECT 1 /*b='y*/`, nil, `SELECT 1 /*b='y*/`},
		{`SELECT 1 /*='y'*/`, nil, `SELECT 1 /*='y'*/`},
		{`SELECT 1 /*b='y' c='z'*/`, nil, `SELECT 1 /*b='y' c='z'*/`},
		{`/*/ SELECT 1 /*/`, nil, `/*/ SELECT 1 /*/`},
		{`*/`, nil, `*/`},
		{`/*`, nil, `/*`},
	} {
		context, rest := splitComments(test.query)
		if !maps.Equal(context, test.context) || rest != test.rest {
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
		if context == nil {
			if rest != query {
				t.Fatalf("%q became %q though there is no context", query, rest)
			}
			return
		}
		if len(rest) >= len(query) {
			t.Fatalf("%q became %q, which is no shorter", query, rest)
		}
		// The rest, except for the space and the semicolon at its end, is part of the
		// query.
		if !strings.Contains(query, strings.TrimRight(rest, "; \t\r\n")) {
			t.Fatalf("%q became %q, which it does not contain", query, rest)
		}
	})
}
