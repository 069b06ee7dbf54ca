package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A Forest draws trees of sessions that wait for each other.
type Forest struct {
	Width int // of the terminal, 0 for no limit
	Color bool
	ASCII bool                // draw lines with ASCII characters
	Extra []inspect.Attribute // attributes to show for each session
	Shown map[int32]bool      // PIDs of sessions that are never folded

	folds map[*inspect.Tree]fold // by their first session
}

// treeLines holds the characters that branches are drawn with.
type treeLines struct{ branch, last, down, none, more string }

func (f Forest) lines() treeLines {
	if f.ASCII {
		return treeLines{"|- ", "`- ", "|  ", "   ", "... "}
	}
	return treeLines{"├─ ", "└─ ", "│  ", "   ", "… "}
}

// A Span is text in one color, or in none.
type Span struct{ Color, Text string }

// A Grove is the trees of one server.
type Grove struct {
	Title string // the names of the databases that were read, if there are several

	trees []*inspect.Tree
	names []string // the name of the database that each tree was read from, or ""
}

// Add adds a tree. name is that of the database it was read from, if there are several.
// The tree with the most sessions behind its root comes first.
func (g *Grove) Add(name string, t *inspect.Tree) {
	i := len(g.trees)
	for i > 0 && g.trees[i-1].Behind < t.Behind {
		i--
	}
	g.trees, g.names = slices.Insert(g.trees, i, t), slices.Insert(g.names, i, name)
}

// Write draws the trees, each server's below its title.
func (f Forest) Write(out io.Writer, groves []*Grove) error {
	for i, g := range groves {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if g.Title != "" {
			f.line(out, []Span{{Bold, g.Title + ":"}})
		}
		if err := f.writeGrove(out, g.trees); err != nil {
			return err
		}
	}
	return nil
}

func (f Forest) writeGrove(out io.Writer, trees []*inspect.Tree) error {
	if len(trees) == 0 {
		_, err := fmt.Fprintln(out, "nobody waits")
		return err
	}
	for i, t := range trees {
		if i > 0 {
			fmt.Fprintln(out)
		}
		f.folds = f.foldChains(t)
		f.node(out, t, "", "", "")
	}
	return nil
}

// node writes a session and the sessions below it. Its first line begins with first, its
// other lines with rest. above is the session that it waits for.
func (f Forest) node(out io.Writer, t *inspect.Tree, first, rest, above string) {
	lines := f.lines()
	below := rest
	if len(t.Blocked) > 0 {
		below += lines.down
	} else {
		below += lines.none
	}
	f.wrap(out, first, below, f.title(t, above))
	switch {
	case t.Again:
		return
	case t.Prepared != nil && t.Prepared.GID != "":
		f.wrap(out, below, below, []Span{{"", "to end it: " + termtext.Line(t.Prepared.Remedy()) + "; or COMMIT PREPARED, in database " + termtext.Line(t.Prepared.Database)}})
	case t.Query != "":
		f.line(out, []Span{{Dim, below}, {Dim, termtext.Line(t.Query)}})
	}
	for i, child := range t.Blocked {
		first, next := lines.branch, lines.down
		if i == len(t.Blocked)-1 {
			first, next = lines.last, lines.none
		}
		above := t
		if hidden, ok := f.folds[child]; ok { // and it is the only child
			text := Plural(hidden.count, "session", "sessions") + ", one behind the other; -o json shows them"
			f.wrap(out, rest+first, rest+next, []Span{{Dim, lines.more + text}})
			rest += next
			above, child = hidden.last, hidden.last.Blocked[0]
		}
		f.node(out, child, rest+first, rest+next, SessionName(above.Session))
	}
}

// A fold is a part of a chain that is not drawn.
type fold struct {
	count int
	last  *inspect.Tree
}

const (
	// chainEnd is how many sessions are drawn at each end of a chain.
	chainEnd = 3

	// minFold is how many sessions are worth a line that replaces them.
	minFold = 4
)

// foldChains returns the parts of the tree that are not drawn: the middle of each chain,
// in which every session has one waiter. Drawn in full, the chain of hundreds of sessions
// would be indented by thousands of columns.
func (f Forest) foldChains(root *inspect.Tree) map[*inspect.Tree]fold {
	folds := map[*inspect.Tree]fold{}
	for starts := []*inspect.Tree{root}; len(starts) > 0; {
		end := starts[len(starts)-1]
		starts = starts[:len(starts)-1]
		chain := []*inspect.Tree{end}
		for len(end.Blocked) == 1 {
			end = end.Blocked[0]
			chain = append(chain, end)
		}
		starts = append(starts, end.Blocked...)
		begin := chainEnd // of the part that may be left out
		for i := begin; i <= len(chain)-chainEnd; i++ {
			if i < len(chain)-chainEnd && !f.isSpecial(chain[i], chain[i-1]) {
				continue
			}
			if i-begin >= minFold {
				folds[chain[begin]] = fold{i - begin, chain[i-1]}
			}
			begin = i + 1
		}
	}
	return folds
}

// isSpecial reports whether a session is drawn even within a chain: it was asked for, is a
// prepared transaction, or is where a cycle begins or ends.
func (f Forest) isSpecial(t, above *inspect.Tree) bool {
	return f.Shown[t.PID] || t.Prepared != nil || t.Cycle != above.Cycle
}

// title returns the first line of a session.
func (f Forest) title(t *inspect.Tree, above string) []Span {
	spans := Title(t, above)
	if t.Again {
		return spans
	}
	for _, a := range f.Extra {
		v := a.Value(&inspect.Lock{Session: t.Session})
		if a.Name == "application" {
			v = Application(t.Session)
		}
		if v != nil {
			spans = append(spans, Span{"", "  " + a.Name + "=" + human(v)})
		}
	}
	return spans
}

// Title describes a session of a tree: its name and application, what it waits for, its
// state, what it blocks, and whose it is. above is the name of the session that it waits
// for. All views of trees begin with it.
func Title(t *inspect.Tree, above string) []Span {
	name := Bold
	if t.Pair == nil {
		name = Bold + Red
	}
	spans := []Span{{name, SessionName(t.Session)}, {"", ApplicationText(t.Session)}}
	if t.Pair != nil {
		spans = append(spans, Span{Yellow, "  waits " + WaitText(t.Pair)}, Span{"", BlockText(t.Pair, above)})
	}
	if t.Again {
		return append(spans, Span{Dim, "  (drawn elsewhere, with the sessions behind it)"}, Span{"", OwnerText(t.Session)})
	}
	if t.Pair == nil || t.State != "active" {
		spans = append(spans, Span{"", State(t.Session)})
	}
	if t.Behind > 0 {
		text := fmt.Sprintf("  blocks %d", t.Behind)
		if len(t.Blocked) > 0 && t.Pair == nil {
			text += ", the longest for " + Duration(t.Longest)
		}
		spans = append(spans, Span{Bold, text})
	}
	if t.Cycle {
		spans = append(spans, Span{Red, "  in a cycle: waits for itself through others"})
	}
	return append(spans, Span{"", OwnerText(t.Session)})
}

// wrap writes spans in one or more lines. It breaks them between words, so that nothing is
// lost in a narrow terminal. The first line begins with first, and the others with rest.
func (f Forest) wrap(out io.Writer, first, rest string, spans []Span) {
	const indent, room = "  ", 20
	breaks := f.Width-utf8.RuneCountInString(rest+indent) >= room // else each line would have a word
	line := []Span{{Dim, first}}
	used := utf8.RuneCountInString(first)
	start := used // of the text in the line
	for _, word := range words(spans) {
		n := utf8.RuneCountInString(word.Text)
		if breaks && used > start && used+n > f.Width && strings.HasPrefix(word.Text, " ") {
			f.line(out, line)
			line = []Span{{Dim, rest + indent}}
			used = utf8.RuneCountInString(rest + indent)
			start = used
			word.Text = strings.TrimLeft(word.Text, " ")
			n = utf8.RuneCountInString(word.Text)
		}
		if last := len(line) - 1; last > 0 && line[last].Color == word.Color {
			line[last].Text += word.Text
		} else {
			line = append(line, word)
		}
		used += n
	}
	f.line(out, line)
}

// words splits spans before each space that follows text.
func words(spans []Span) []Span {
	var split []Span
	for _, s := range spans {
		for s.Text != "" {
			text := strings.TrimLeft(s.Text, " ")
			end := len(s.Text)
			if i := strings.IndexByte(text, ' '); i >= 0 {
				end = len(s.Text) - len(text) + i
			}
			split = append(split, Span{s.Color, s.Text[:end]})
			s.Text = s.Text[end:]
		}
	}
	return split
}

// line writes a line, cut at the width.
func (f Forest) line(out io.Writer, spans []Span) {
	var b strings.Builder
	left := f.Width
	for i, s := range spans {
		text := s.Text
		if i == len(spans)-1 {
			text = strings.TrimRight(text, " ")
		}
		if n := utf8.RuneCountInString(text); f.Width > 1 && n > left {
			text = termtext.Cut(text, left)
			left = 0
		} else {
			left -= n
		}
		if f.Color {
			text = Paint(s.Color, text)
		}
		b.WriteString(text)
		if f.Width > 1 && left == 0 {
			break
		}
	}
	fmt.Fprintln(out, b.String())
}

// WriteForestJSON writes the trees in the format of docs/command.md.
func WriteForestJSON(out io.Writer, groves []*Grove) error {
	ofSession := inspect.SessionAttributes()
	var ofLock []inspect.Attribute
	for _, a := range inspect.Attributes() {
		if _, ok := FindAttribute(ofSession, a.Name); !ok {
			ofLock = append(ofLock, a)
		}
	}
	var object func(name string, t *inspect.Tree) Object
	list := func(name string, trees []*inspect.Tree) []Object {
		objects := []Object{}
		for _, t := range trees {
			objects = append(objects, object(name, t))
		}
		return objects
	}
	object = func(name string, t *inspect.Tree) Object {
		var o Object
		if name != "" {
			o.Add(DatabaseName, name)
		}
		o = append(o, sessionObject(t.Session)...)
		o.Add("hidden", t.Hidden)
		o.Add("prepared", preparedObject(t.Prepared))
		o.Add("depth", t.Depth)
		o.Add("behind", t.Behind)
		o.Add("longest_wait", t.Longest)
		o.Add("cycle", t.Cycle)
		o.Add("again", t.Again)
		if t.Pair == nil {
			o.Add("waits_for", nil)
		} else {
			var w Object
			for _, a := range ofLock {
				w.Add(a.Name, a.Value(t.Pair.Lock))
			}
			w.Add("block", blockOf(t.Pair))
			if t.Pair.Held != nil {
				w.Add("held_mode", t.Pair.Held.Mode)
			} else {
				w.Add("held_mode", nil)
			}
			o.Add("waits_for", w)
		}
		o.Add("blocked", list(name, t.Blocked))
		return o
	}
	var roots []Object
	for _, g := range groves {
		for i, t := range g.trees {
			roots = append(roots, object(g.names[i], t))
		}
	}
	return WriteObjects(out, roots)
}
