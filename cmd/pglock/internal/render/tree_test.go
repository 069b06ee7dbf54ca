package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock/inspect"
)

// Wrapped text loses no word, and no line is wider than the terminal.
func TestWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringMatching(`[│ ]{0,12}`).Draw(t, "prefix")
		width := rapid.IntRange(utf8.RuneCountInString(prefix)+22, 120).Draw(t, "width")
		var spans []Span
		var all strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "spans") {
			text := rapid.StringMatching(` {1,2}([a-zü.]{1,19} {1,2}){0,9}[a-z]{0,5}`).Draw(t, "text")
			spans = append(spans, Span{Bold, text})
			all.WriteString(text)
		}
		var out bytes.Buffer
		Forest{Width: width}.wrap(&out, prefix, prefix, spans)
		var words []string
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > width {
				t.Fatalf("a line of %d columns in a width of %d: %q", utf8.RuneCountInString(line), width, line)
			}
			rest, ok := strings.CutPrefix(line+" ", prefix)
			if !ok && strings.TrimSpace(line) != strings.TrimSpace(prefix) {
				t.Fatalf("%q does not begin with %q", line, prefix)
			}
			words = append(words, strings.Fields(rest)...)
		}
		if got, want := strings.Join(words, " "), strings.Join(strings.Fields(all.String()), " "); got != want {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

// Without room for words, a deep session takes one line.
func TestWrapWithoutRoom(t *testing.T) {
	var out bytes.Buffer
	prefix := strings.Repeat("│  ", 20)
	Forest{Width: 70}.wrap(&out, prefix, prefix, []Span{{"", "pid 1  waits for a lock on orders"}})
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("got %d lines:\n%s", got, out.String())
	}
}

// chain returns a chain of n sessions with the PIDs from first on.
func chain(first int32, n int) *inspect.Tree {
	root := &inspect.Tree{Session: &inspect.Session{PID: first, State: "idle in transaction"}}
	for t, i := root, 1; i < n; i++ {
		s := &inspect.Session{PID: first + int32(i), State: "active", Query: "SELECT 1"}
		lock := &inspect.Lock{Session: s, Type: "advisory", Mode: "ExclusiveLock"}
		child := &inspect.Tree{Session: s, Pair: &inspect.Pair{Lock: lock, Blocking: t.Session, Hard: true}}
		t.Blocked = []*inspect.Tree{child}
		t = child
	}
	return root
}

// drawn returns the indented PIDs and folds of a drawing.
func drawn(t testing.TB, f Forest, root *inspect.Tree) []string {
	var out bytes.Buffer
	if err := f.writeGrove(&out, []*inspect.Tree{root}); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		line = strings.Replace(line, "a prepared transaction", "pid prepared", 1)
		if indent, rest, ok := strings.Cut(line, "pid "); ok {
			pid, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			lines = append(lines, indent+pid)
		} else if strings.Contains(line, "one behind the other") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

func TestFold(t *testing.T) {
	prepared := chain(1, 14)
	prepared.Blocked[0].Blocked[0].Blocked[0].Blocked[0].Blocked[0].Blocked[0].Blocked[0].Prepared = &inspect.Prepared{}
	inCycle := chain(1, 20)
	for n := inCycle.Blocked[0]; len(n.Blocked) > 0; n = n.Blocked[0] {
		n.Cycle = n.PID >= 10
	}
	forked := chain(1, 10)
	tail := forked
	for len(tail.Blocked) > 0 {
		tail = tail.Blocked[0]
	}
	tail.Blocked = []*inspect.Tree{chain(101, 3), chain(201, 10)}
	for _, b := range tail.Blocked {
		b.Pair = forked.Blocked[0].Pair
	}
	for name, test := range map[string]struct {
		tree *inspect.Tree
		f    Forest
		want string
	}{
		"short": {
			chain(1, 9),
			Forest{ASCII: true},
			"1, `- 2, `- 3, `- 4, `- 5, `- 6, `- 7, `- 8, `- 9",
		},
		"shortest": {
			chain(1, 10),
			Forest{ASCII: true},
			"1, `- 2, `- 3, `- ... 4 sessions, one behind the other; -o json shows them, `- 8, `- 9, `- 10",
		},
		"long": {
			chain(1, 800),
			Forest{},
			"1, └─ 2, └─ 3, └─ … 794 sessions, one behind the other; -o json shows them, └─ 798, └─ 799, └─ 800",
		},
		"asked for": {
			chain(1, 800),
			Forest{ASCII: true, Shown: map[int32]bool{2: true, 400: true, 796: true}},
			"1, `- 2, `- 3, `- ... 396 sessions, one behind the other; -o json shows them, `- 400, `- ... 395 sessions, one behind the other; -o json shows them, `- 796, `- 797, `- 798, `- 799, `- 800",
		},
		"prepared transaction": {
			prepared,
			Forest{ASCII: true},
			"1, `- 2, `- 3, `- ... 4 sessions, one behind the other; -o json shows them, `- prepared, `- 9, `- 10, `- 11, `- 12, `- 13, `- 14",
		},
		"cycle": {
			inCycle,
			Forest{ASCII: true},
			"1, `- 2, `- 3, `- ... 6 sessions, one behind the other; -o json shows them, `- 10, `- ... 7 sessions, one behind the other; -o json shows them, `- 18, `- 19, `- 20",
		},
		"fork": {
			forked,
			Forest{ASCII: true},
			"1, `- 2, `- 3, `- ... 4 sessions, one behind the other; -o json shows them, `- 8, `- 9, `- 10, |- 101, `- 102, `- 103, `- 201, `- 202, `- 203, `- ... 4 sessions, one behind the other; -o json shows them, `- 208, `- 209, `- 210",
		},
	} {
		t.Run(name, func(t *testing.T) {
			lines := drawn(t, test.f, test.tree)
			for i, line := range lines {
				lines[i] = strings.TrimLeft(strings.ReplaceAll(line, "|  ", ""), " ")
			}
			if got := strings.Join(lines, ", "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// However long the chain, a drawing is small, and each session is below the one that
// blocks it or the line that stands for that.
func TestFoldedIndentation(t *testing.T) {
	var out bytes.Buffer
	if err := (Forest{}).writeGrove(&out, []*inspect.Tree{chain(1, 5000)}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 2000 {
		t.Errorf("%d bytes:\n%.3000s", out.Len(), out.String())
	}
	for i, line := range drawn(t, Forest{}, chain(1, 5000)) {
		if indent := utf8.RuneCountInString(line[:strings.IndexAny(line, "…0123456789")]); indent != 3*i {
			t.Errorf("line %d is indented by %d:\n%s", i, indent, line)
		}
	}
}

// Every session is drawn, or counted in a line.
func TestFoldCountsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pid := int32(0)
		var shown []int32
		var grow func(left int) *inspect.Tree
		grow = func(left int) *inspect.Tree {
			root := chain(pid+1, rapid.IntRange(1, 30).Draw(t, "length"))
			pid += 30
			for n := root; ; n = n.Blocked[0] {
				n.Cycle = rapid.IntRange(0, 9).Draw(t, "cycle") == 0
				if rapid.IntRange(0, 9).Draw(t, "shown") == 0 {
					shown = append(shown, n.PID)
				}
				if len(n.Blocked) == 0 {
					for range left {
						n.Blocked = append(n.Blocked, grow(left-1))
					}
					break
				}
			}
			return root
		}
		root := grow(rapid.IntRange(0, 3).Draw(t, "forks"))
		total := 0
		var count func(n *inspect.Tree)
		count = func(n *inspect.Tree) {
			total++
			for _, b := range n.Blocked {
				if b.Pair == nil {
					b.Pair = &inspect.Pair{Lock: &inspect.Lock{Session: b.Session, Type: "advisory"}, Blocking: n.Session}
				}
				count(b)
			}
		}
		count(root)
		f := Forest{Shown: map[int32]bool{}}
		for _, pid := range shown {
			f.Shown[pid] = true
		}
		seen := map[int32]bool{}
		counted := 0
		var out bytes.Buffer
		if err := f.writeGrove(&out, []*inspect.Tree{root}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			var n int
			if i := strings.Index(line, "pid "); i >= 0 {
				if _, err := fmt.Sscanf(line[i:], "pid %d", &n); err != nil || seen[int32(n)] {
					t.Fatalf("%v, or drawn twice: %q", err, line)
				}
				seen[int32(n)] = true
			} else if i := strings.Index(line, "… "); i >= 0 {
				if _, err := fmt.Sscanf(line[i:], "… %d sessions", &n); err != nil || n < minFold {
					t.Fatalf("%v: %q", err, line)
				}
				counted += n
			}
		}
		if len(seen)+counted != total {
			t.Fatalf("%d sessions drawn and %d counted, of %d", len(seen), counted, total)
		}
		for _, pid := range shown {
			if !seen[pid] {
				t.Fatalf("pid %d was asked for and is not drawn", pid)
			}
		}
	})
}
