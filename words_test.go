package pglock_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules of CONTRIBUTING.md for English that a program can check.

// A function comment begins with the name and a verb. Comments such as "size is the
// size" are sometimes the simplest, so a few are allowed.
func TestFunctionComments(t *testing.T) {
	const limit = 0.05
	commented := 0
	var offenders []string
	goFiles(t, func(path string) {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Doc == nil {
				continue
			}
			commented++
			if text := f.Doc.Text(); describes(text, f.Name.Name) {
				first, _, _ := strings.Cut(text, "\n")
				offenders = append(offenders, fmt.Sprintf("%s:%d: %s", path, fset.Position(f.Doc.Pos()).Line, first))
			}
		}
	})
	if commented < 100 {
		t.Fatalf("only %d functions have comments", commented)
	}
	if share := float64(len(offenders)) / float64(commented); share >= limit {
		t.Errorf("%d of %d function comments (%.1f %%, limit %.0f %%) begin with the name and is, are, was or were; use a verb such as returns, reports, waits:\n%s",
			len(offenders), commented, 100*share, 100*limit, strings.Join(offenders, "\n"))
	}
}

// describes reports whether a comment begins with the name and a form of "to be".
func describes(comment, name string) bool {
	words := strings.Fields(comment)
	return len(words) > 1 && words[0] == name && slices.Contains([]string{"is", "are", "was", "were"}, words[1])
}

func TestFunctionCommentsAreFound(t *testing.T) {
	for comment, want := range map[string]bool{
		"size is the size.":    true,
		"size\nare the sizes.": true,
		"size returns what is": false,
		"sizes are sizes.":     false,
		"size":                 false,
		"":                     false,
	} {
		if got := describes(comment, "size"); got != want {
			t.Errorf("%q: %v, want %v", comment, got, want)
		}
	}
}

// A wordRule is an expression to avoid. A space in it matches any white space, and case
// does not matter.
type wordRule struct {
	avoid string // a regular expression
	write string // what to write instead
}

// wordRules returns the expressions that are never right here: each has one term that
// says the same, and no other meaning in this repository.
func wordRules() []wordRule {
	return []wordRule{
		// One word for one thing.
		{`(is|are|was|were|be|been|being) (not |never )?had`, "acquired (a lock), available (a server)"},
		{`(gives|given|giving|gave) back`, "released, returned"},
		{`who(so|m)?ever`, "the holder, the blocker, any session"},
		{`hears`, "is notified, learns"},
		{`laden`, "full"},
		{`obstinacy`, "retries"},
		{`heirs?`, "inheritance children"},
		{`ledger`, "tracker"},
		{`(its|their|the) own corner of memory`, "fast path"},
		{`(am|is|are|was|were|be|been|stand|stands) in (the|its|their|his|our|my|your) way`, "blocks, is a blocker"},

		// Plain, modern English.
		{`shall`, "must, will"},
		{`of (the|a|an|this|that|another) \w+'s[.,;:)]`, "the caller's session"},
		{`of (nobody|somebody|everybody|one)'s`, "unowned, another session's, separate"},
		{`(sees|see|saw) to it`, "ensures"},
		{`for ever`, "forever, without end"},
		{`at the (most|least)`, "at most, at least"},
		{`by and by`, "later"},

		// American spelling, as in Go.
		{`cancell(ed|ing|er)`, "canceled, canceling"},
		{`colour(s|ed|ing|ful|less)?`, "color"},
		{`(mis)?behaviours?`, "behavior"},
		{`favour(s|ed|ing|ite|able)?`, "favor"},
		{`neighbour(s|ing)?`, "neighbor"},
		{`honour(s|ed|ing)?`, "honor"},
		{`licences?`, "license"},
		{`judgements?`, "check, judgment"},
		{`artefacts?`, "artifact"},
		{`catalogues?`, "catalog"},
		{`per cent`, "percent"},
		{`(mis)?spelt|learnt|whilst|amongst`, "spelled, learned, while, among"},
		{`(recogn|organ|serial|initial|synchron|final|optim|minim|maxim|summar|normal|general|priorit|author|custom|emphas|real)is(e|es|ed|er|ers|ing|ation)`, "-ize"},
	}
}

// A wordFinder finds the expressions of rules. All rules are one regular expression, so
// that a text is read once.
type wordFinder struct {
	any   *regexp.Regexp
	rules []*regexp.Regexp
	write []string
}

func newWordFinder(rules []wordRule) *wordFinder {
	f := new(wordFinder)
	var all []string
	for _, r := range rules {
		pattern := `(?:` + strings.ReplaceAll(r.avoid, " ", `\s+`) + `)`
		if !strings.HasSuffix(r.avoid, "]") {
			pattern += `\b`
		}
		all = append(all, pattern)
		f.rules = append(f.rules, regexp.MustCompile(`(?i)^`+pattern))
		f.write = append(f.write, r.write)
	}
	f.any = regexp.MustCompile(`(?i)\b(?:` + strings.Join(all, "|") + `)`)
	return f
}

// find calls report for each expression in a text.
func (f *wordFinder) find(text []byte, report func(line int, found, write string)) {
	for _, at := range f.any.FindAllIndex(text, -1) {
		found := text[at[0]:at[1]]
		i := slices.IndexFunc(f.rules, func(r *regexp.Regexp) bool { return r.Match(found) })
		report(1+bytes.Count(text[:at[0]], []byte("\n")), strings.Join(strings.Fields(string(found)), " "), f.write[i])
	}
}

// Comments, messages, SQL, pages and scripts avoid the expressions of wordRules. Only
// code in backquotes on a page is free, such as the words that a rule is about.
func TestWords(t *testing.T) {
	finder := newWordFinder(wordRules())
	check := func(path string, prose func([]byte) []byte) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		finder.find(prose(data), func(line int, found, write string) {
			t.Errorf("%s:%d: %q; write: %s", path, line, found, write)
		})
	}
	checked := make(map[string]int)
	goFiles(t, func(path string) {
		checked[".go"]++
		if path != "words_test.go" {
			check(path, goProse)
		}
	})
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch ext := filepath.Ext(path); {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != ".":
			return filepath.SkipDir
		case d.IsDir():
		case ext == ".sql", ext == ".md", ext == ".txtar":
			checked[ext]++
			check(path, textProse)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{".go", ".sql", ".md", ".txtar"} {
		if checked[ext] < 5 {
			t.Errorf("only %d files %s were checked", checked[ext], ext)
		}
	}
}

// goProse returns the comments and string literals of Go source. Offsets and lines stay
// the same: white space remains, other code becomes NUL bytes, and comment markers become
// spaces.
func goProse(src []byte) []byte {
	prose := make([]byte, len(src))
	for i, c := range src {
		if c == ' ' || c == '\t' || c == '\n' {
			prose[i] = c
		}
	}
	file := token.NewFileSet().AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, scanner.ScanComments)
	for {
		pos, tok, lit := s.Scan()
		at := file.Offset(pos)
		switch tok {
		case token.EOF:
			return prose
		case token.COMMENT:
			copy(prose[at:], "  "+lit[2:])
		case token.STRING:
			text := strings.NewReplacer(`\n`, "  ", `\t`, "  ").Replace(lit[1 : len(lit)-1])
			copy(prose[at+1:], text)
		}
	}
}

var (
	lineMarker = regexp.MustCompile(`(?m)^\s*(--|#+|>|//)`)
	inlineCode = regexp.MustCompile("`[^`\n]+`")
)

// textProse returns a text without inline code and without the markers of comments and
// quotes. Offsets and lines stay the same.
func textProse(text []byte) []byte {
	blank := func(match []byte) []byte {
		return regexp.MustCompile(`[^\n]`).ReplaceAll(match, []byte(" "))
	}
	return lineMarker.ReplaceAllFunc(inlineCode.ReplaceAllFunc(text, func(match []byte) []byte {
		return bytes.Repeat([]byte{0}, len(match))
	}), blank)
}

func TestWordsAreFound(t *testing.T) {
	const source = "package p\n\n// The lock is\n// had.\nfunc shall() string { return `it\nshall` + \"was \" + \"had\" }\n"
	for _, test := range []struct {
		prose func([]byte) []byte
		text  string
		want  string
	}{
		{goProse, source, "3 is had, 6 shall"},
		{goProse, "package p\n\nvar s = \"one\\ncancelled wait\" // a colour\n", "3 cancelled, 3 colour"},
		{textProse, "-- It is\n-- never had.\nSELECT 1;\n", "1 is never had"},
		{textProse, "Write must, not `shall`.\n\nWhoever waits\n", "3 Whoever"},
		{textProse, "A session of the caller's.\nThe end of the caller's session.\n", "1 of the caller's."},
		{textProse, "marshals, Marshall, a cancellation, what the caller had, to have had\n", ""},
	} {
		var got []string
		newWordFinder(wordRules()).find(test.prose([]byte(test.text)), func(line int, found, _ string) {
			got = append(got, fmt.Sprintf("%d %s", line, found))
		})
		slices.Sort(got)
		if s := strings.Join(got, ", "); s != test.want {
			t.Errorf("%q:\ngot  %q\nwant %q", test.text, s, test.want)
		}
	}
}
