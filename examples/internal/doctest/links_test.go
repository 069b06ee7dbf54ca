package doctest

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// Every link inside the repository leads to an existing file and heading. For external
// links only the form is checked: tests do not use the network.
func TestLinks(t *testing.T) {
	count := 0
	anchors := map[string]map[string]bool{}
	for _, p := range everyPage(t) {
		for _, l := range p.links(t) {
			count++
			u, err := url.Parse(l.target)
			switch {
			case err != nil:
				t.Errorf("%s:%d: %v", p.path, l.line, err)
				continue
			case u.Scheme == "https":
				if u.Host == "" || strings.ContainsAny(l.target, " <>") {
					t.Errorf("%s:%d: %s is not a valid URL", p.path, l.line, l.target)
				}
				continue
			case u.Scheme != "" || u.Host != "":
				t.Errorf("%s:%d: %s is neither https nor relative", p.path, l.line, l.target)
				continue
			}
			target := p.path
			if u.Path != "" {
				target = path.Join(path.Dir(p.path), u.Path)
			}
			if strings.HasPrefix(target, "..") || path.IsAbs(u.Path) {
				t.Errorf("%s:%d: %s leads out of the repository", p.path, l.line, l.target)
				continue
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s:%d: %s does not exist", p.path, l.line, target)
				continue
			}
			if u.Fragment == "" {
				continue
			}
			if !strings.HasSuffix(target, ".md") {
				t.Errorf("%s:%d: %s is not a Markdown page and has no headings", p.path, l.line, target)
				continue
			}
			if anchors[target] == nil {
				anchors[target] = readPage(t, target).anchors(t)
			}
			if !anchors[target][u.Fragment] {
				t.Errorf("%s:%d: %s has no heading #%s", p.path, l.line, target, u.Fragment)
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d links found", count)
	}
}

// The index links to every guide.
func TestIndex(t *testing.T) {
	listed := map[string]bool{"docs/README.md": true}
	index := readPage(t, "docs/README.md")
	for _, l := range index.links(t) {
		file, _, _ := strings.Cut(l.target, "#")
		listed[path.Join("docs", file)] = true
	}
	for _, p := range guides(t) {
		if strings.HasPrefix(p.path, "docs/") && !listed[p.path] {
			t.Errorf("docs/README.md has no link to %s", p.path)
		}
	}
}

// everyPage returns every Markdown page in the repository.
func everyPage(t *testing.T) []*page {
	t.Helper()
	var pages []*page
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".github" || d.Name() == "bin" || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			pages = append(pages, readPage(t, filepath.ToSlash(relative)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

type link struct {
	target string
	line   int
}

var (
	attribute = regexp.MustCompile(`(?:src|srcset|href)="([^"]*)"`)
	anchor    = regexp.MustCompile(`<a (?:name|id)="([^"]*)"`)
)

// links returns the links and pictures of a page, including those in HTML.
func (p *page) links(t *testing.T) []link {
	t.Helper()
	var found []link
	line := 1
	err := ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
			line = p.lineOf(n.Lines().At(0).Start)
		}
		switch n := n.(type) {
		case *ast.Link:
			found = append(found, link{string(n.Destination), line})
		case *ast.Image:
			found = append(found, link{string(n.Destination), line})
		case *ast.AutoLink:
			found = append(found, link{string(n.URL(p.source)), line})
		case *ast.RawHTML:
			for _, m := range attribute.FindAllStringSubmatch(string(n.Segments.Value(p.source)), -1) {
				found = append(found, link{m[1], line})
			}
		case *ast.HTMLBlock:
			for _, m := range attribute.FindAllStringSubmatch(string(n.Lines().Value(p.source)), -1) {
				found = append(found, link{m[1], line})
			}
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// anchors returns the valid fragments of links to a page: the headings' anchors, as
// GitHub generates them, and anchors in HTML.
func (p *page) anchors(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if heading, ok := n.(*ast.Heading); ok && entering {
			name := slug(plain(heading, p.source))
			unique := name
			for i := 1; found[unique]; i++ {
				unique = name + "-" + string(rune('0'+i))
			}
			found[unique] = true
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range anchor.FindAllSubmatch(p.source, -1) {
		found[string(m[1])] = true
	}
	return found
}

// plain returns the text of a node without its markup.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		switch child := child.(type) {
		case *ast.Text:
			b.Write(child.Segment.Value(source))
		case *ast.String:
			b.Write(child.Value)
		default:
			b.WriteString(plain(child, source))
		}
	}
	return b.String()
}

// slug returns the anchor that GitHub generates for a heading.
func slug(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestSlug(t *testing.T) {
	for heading, want := range map[string]string{
		"The known pitfalls, and the tests": "the-known-pitfalls-and-the-tests",
		"Session or transaction?":           "session-or-transaction",
		"pglock ls --blocking":              "pglock-ls---blocking",
		"1. Retry":                          "1-retry",
	} {
		if got := slug(heading); got != want {
			t.Errorf("slug(%q) = %q, want %q", heading, got, want)
		}
	}
}
