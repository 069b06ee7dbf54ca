package doctest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// root is the path from this package to the top of the repository.
const root = "../../.."

// A page is a Markdown page.
type page struct {
	path   string // relative to the top of the repository, such as docs/tables.md
	source []byte
	tree   ast.Node
}

// A block is a block of code in a page.
type block struct {
	page     *page
	line     int // number of its first line of code
	language string
	text     string
	marks    []mark
	seen     map[string]bool // the marks that were read
}

// A mark is an option of a block, from the comment before it.
type mark struct{ word, rest string }

func (b *block) String() string { return fmt.Sprintf("%s:%d", b.page.path, b.line) }

// id returns a name for the block that is valid in names of files and functions.
func (b *block) id() string {
	name := strings.TrimSuffix(strings.TrimPrefix(b.page.path, "docs/"), ".md")
	return regexp.MustCompile(`\W`).ReplaceAllString(name, "_") + fmt.Sprintf("_%d", b.line)
}

// mark returns the text after the given word in a comment, and whether the word exists.
func (b *block) mark(word string) (rest string, ok bool) {
	b.seen[word] = true
	for _, m := range b.marks {
		if m.word == word {
			return m.rest, true
		}
	}
	return "", false
}

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

func readPage(t *testing.T, path string) *page {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return &page{path: path, source: source, tree: markdown.Parser().Parse(text.NewReader(source))}
}

// guides returns the pages whose code is run.
func guides(t *testing.T) []*page {
	t.Helper()
	paths, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(paths) < 5 {
		t.Fatalf("found only %d guides: %v", len(paths), err)
	}
	pages := []*page{readPage(t, "README.md")}
	for _, path := range paths {
		pages = append(pages, readPage(t, "docs/"+filepath.Base(path)))
	}
	return pages
}

var comment = regexp.MustCompile(`(?s)<!--\s*doctest:(.*?)-->`)

// blocks returns all blocks of a page in one of the languages, or in any if none is given.
func (p *page) blocks(t *testing.T, languages ...string) []*block {
	t.Helper()
	var found []*block
	err := ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n.(type) {
		case *ast.CodeBlock:
			if entering {
				t.Errorf("%s:%d: indented code has no language; use a fence", p.path, p.lineOf(n.Lines().At(0).Start))
			}
			return ast.WalkContinue, nil
		case *ast.FencedCodeBlock:
		default:
			return ast.WalkContinue, nil
		}
		fenced := n.(*ast.FencedCodeBlock)
		if !entering || fenced.Lines().Len() == 0 {
			return ast.WalkContinue, nil
		}
		b := &block{
			page:     p,
			line:     p.lineOf(fenced.Lines().At(0).Start),
			language: string(fenced.Language(p.source)),
			text:     string(fenced.Lines().Value(p.source)),
			seen:     map[string]bool{},
		}
		if html, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
			b.marks = marks(string(html.Lines().Value(p.source)))
		}
		if len(languages) == 0 || slices.Contains(languages, b.language) {
			found = append(found, b)
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func marks(html string) []mark {
	var found []mark
	for _, m := range comment.FindAllStringSubmatch(html, -1) {
		for part := range strings.SplitSeq(m[1], ";") {
			word, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
			found = append(found, mark{strings.TrimSuffix(word, ":"), strings.TrimSpace(rest)})
		}
	}
	return found
}

// lineOf returns the number of the line at an offset.
func (p *page) lineOf(offset int) int {
	return 1 + strings.Count(string(p.source[:offset]), "\n")
}

// Every block has a known language, so that it is tested.
func TestBlocksHaveALanguage(t *testing.T) {
	known := []string{"go", "sh", "console", "yaml", "json", "sql", "ini", "text"}
	words := regexp.MustCompile(`^(compile|from|exit|scene|output|usage|shape|manifest|newcomer|\w+=\w+)$`)
	count := 0
	for _, p := range guides(t) {
		for _, b := range p.blocks(t) {
			count++
			if !slices.Contains(known, b.language) {
				t.Errorf("%s: the language %q is unknown; use one of %s", b, b.language, strings.Join(known, ", "))
			}
			for _, m := range b.marks {
				if !words.MatchString(m.word) {
					t.Errorf("%s: the mark %q is unknown", b, m.word)
				}
			}
			if b.language != "text" {
				continue
			}
			_, output := b.mark("output")
			_, usage := b.mark("usage")
			why, shape := b.mark("shape")
			if !output && !usage && !shape {
				t.Errorf("%s: a block of text needs a mark; see doc.go", b)
			}
			if shape && why == "" {
				t.Errorf("%s: the mark shape needs a reason", b)
			}
		}
	}
	if count < 50 {
		t.Errorf("found only %d blocks", count)
	}
}
