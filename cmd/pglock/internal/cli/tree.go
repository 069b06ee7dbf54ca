package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/inspect"
)

const treeHelp = `Draws who waits for whom. Each root is a session or a prepared transaction that
blocks others and does not wait. Below each session are those that wait for it. The
root with the most sessions behind it comes first: ending it frees the most.

PIDs, filters and tables select the trees in which a session holds or waits for a
matching lock. A tree is always shown whole.

-o json prints an array of the roots, each with the sessions that it blocks in
"blocked".`

const treeExamples = `  pglock tree
  pglock tree --on orders
  pglock tree --watch
  pglock tree -f 'wait_duration > 1min' -o json | jq '.[].pid'`

func (a *app) treeCommand() *cobra.Command {
	var s selection
	var ascii bool
	var watch watchFlag
	output := outputFlag{choices: []string{"tree", "json"}, value: "tree"}
	cmd := &cobra.Command{
		Use:                   "tree [FLAG...] [PID...]",
		Short:                 "Draw who waits for whom",
		Long:                  treeHelp,
		Example:               treeExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = watch.fromArgs(args)
			if err := s.resolve(a, cmd, args); err != nil {
				return err
			}
			format := s.outputOr(output)
			terminal := isTerminal(a.Out)
			style := treeStyle{
				width: a.terminalWidth(),
				color: terminal && a.useColor(),
				lines: unicodeLines,
				extra: s.columns(),
			}
			if ascii || !a.useUnicode() {
				style.lines = asciiLines
			}
			return a.show(cmd.Context(), "tree", watch, func(ctx context.Context, session *session, out *bytes.Buffer) ([]string, error) {
				forest, err := s.forest(ctx, session, format != "json")
				if err != nil {
					return nil, err
				}
				if format == "json" {
					return hiddenInForest(session, forest), writeForestJSON(out, forest)
				}
				return hiddenInForest(session, forest), style.write(out, forest)
			})
		},
	}
	cmd.Flags().SortFlags = false
	s.register(cmd.Flags(), "filter pairs of a waiting session and one that blocks it")
	cmd.Flags().VarP(&s.attributes, "attribute", "a", "also show this `attribute` of each session; repeat or separate with commas")
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	cmd.Flags().BoolVar(&ascii, "ascii", false, "draw with ASCII characters")
	watch.register(cmd.Flags())
	return cmd
}

// forest reads the selected trees. With named, it adds the known names of advisory locks.
func (s *selection) forest(ctx context.Context, session *session, named bool) ([]*inspect.Tree, error) {
	snapshot, err := inspect.ReadSnapshot(ctx, session.guarded)
	if err != nil {
		return nil, err
	}
	if named {
		nameKeys(locksOf(snapshot.Locks, snapshot.Pairs))
	}
	if s.isEmpty() {
		return snapshot.Forest(), nil
	}
	var pids []int32
	if s.blocking {
		pairs, err := inspect.Blocked(ctx, session.guarded, s.all()...)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			pids = append(pids, p.PID)
		}
	} else {
		locks, err := inspect.Locks(ctx, session.guarded, s.all()...)
		if err != nil {
			return nil, err
		}
		for _, l := range locks {
			pids = append(pids, l.PID)
			if l.LeaderPID != 0 {
				pids = append(pids, l.LeaderPID)
			}
		}
	}
	if len(pids) == 0 {
		return nil, nil
	}
	return snapshot.Forest(pids...), nil
}

// treeLines holds the characters that branches are drawn with.
type treeLines struct{ branch, last, down, none string }

var (
	unicodeLines = treeLines{"├─ ", "└─ ", "│  ", "   "}
	asciiLines   = treeLines{"|- ", "`- ", "|  ", "   "}
)

// A treeStyle is how a forest is drawn.
type treeStyle struct {
	width int // 0 for no limit
	color bool
	lines treeLines
	extra []inspect.Attribute // attributes shown for each session
}

// A span is text in one color.
type span struct{ color, text string }

const (
	dim = "\x1b[2m"
	red = "\x1b[31m"
)

func (style treeStyle) write(out io.Writer, forest []*inspect.Tree) error {
	if len(forest) == 0 {
		_, err := fmt.Fprintln(out, "nobody waits")
		return err
	}
	for i, t := range forest {
		if i > 0 {
			fmt.Fprintln(out)
		}
		style.node(out, t, "", "", "")
	}
	return nil
}

// node writes a session and the sessions below it. Its first line begins with first, its
// other lines with rest. above is the session that it waits for.
func (style treeStyle) node(out io.Writer, t *inspect.Tree, first, rest, above string) {
	line := func(prefix string, spans ...span) {
		style.line(out, append([]span{{dim, prefix}}, spans...))
	}
	line(first, style.title(t, above)...)
	below := rest
	if len(t.Blocked) > 0 {
		below += style.lines.down
	} else {
		below += style.lines.none
	}
	switch {
	case t.Again:
		return
	case t.Prepared != nil && t.Prepared.GID != "":
		line(below, span{"", "to end it: " + printable(t.Prepared.Remedy()) + "; or COMMIT PREPARED, in database " + printable(t.Prepared.Database)})
	case t.Query != "":
		line(below, span{dim, printable(t.Query)})
	}
	for i, child := range t.Blocked {
		first, next := style.lines.branch, style.lines.down
		if i == len(t.Blocked)-1 {
			first, next = style.lines.last, style.lines.none
		}
		style.node(out, child, rest+first, rest+next, sessionName(t.Session))
	}
}

func (style treeStyle) title(t *inspect.Tree, above string) []span {
	name := bold
	if t.Pair == nil {
		name = bold + red
	}
	spans := []span{{name, sessionName(t.Session)}, {"", applicationText(t.Session)}}
	if t.Pair != nil {
		spans = append(spans, span{yellow, "  waits " + waitText(t.Pair)}, span{"", blockText(t.Pair, above)})
	}
	if t.Again {
		return append(spans, span{dim, "  (drawn elsewhere, with the sessions behind it)"}, span{"", ownerText(t.Session)})
	}
	if t.Pair == nil || t.State != "active" {
		spans = append(spans, span{"", stateText(t.Session)})
	}
	if t.Behind > 0 {
		text := fmt.Sprintf("  blocks %d", t.Behind)
		if len(t.Blocked) > 0 && t.Pair == nil {
			text += ", the longest for " + shortDuration(t.Longest)
		}
		spans = append(spans, span{bold, text})
	}
	if t.Cycle {
		spans = append(spans, span{red, "  in a cycle: waits for itself through others"})
	}
	// At the end, because long lines are cut.
	spans = append(spans, span{"", ownerText(t.Session)})
	for _, a := range style.extra {
		v := a.Value(&inspect.Lock{Session: t.Session})
		if a.Name == "application" {
			v = applicationOf(t.Session)
		}
		if v != nil {
			spans = append(spans, span{"", "  " + a.Name + "=" + humanText(v)})
		}
	}
	return spans
}

// line writes a line, cut at the width.
func (style treeStyle) line(out io.Writer, spans []span) {
	var b strings.Builder
	left := style.width
	for i, s := range spans {
		text := s.text
		if i == len(spans)-1 {
			text = strings.TrimRight(text, " ")
		}
		if n := utf8.RuneCountInString(text); style.width > 1 && n > left {
			text = string([]rune(text)[:max(left-1, 0)]) + "…"
			left = 0
		} else {
			left -= n
		}
		if style.color && s.color != "" && text != "" {
			text = s.color + text + reset
		}
		b.WriteString(text)
		if style.width > 1 && left == 0 {
			break
		}
	}
	fmt.Fprintln(out, b.String())
}

// sessionName names a session by its PID, or a prepared transaction by its name.
func sessionName(s *inspect.Session) string {
	switch {
	case s.Prepared != nil && s.Prepared.GID == "":
		return "a prepared transaction"
	case s.Prepared != nil:
		return "prepared transaction " + quoted(s.Prepared.GID)
	}
	return fmt.Sprintf("pid %d", s.PID)
}

// applicationText returns a session's application, and its type unless it is a client backend.
func applicationText(s *inspect.Session) string {
	text := ""
	if s.Application != "" {
		text += " " + quoted(applicationOf(s))
	}
	if s.BackendType != "" && s.BackendType != "client backend" {
		text += " " + printable(s.BackendType)
	}
	return text
}

// ownerText returns a session's role and database.
func ownerText(s *inspect.Session) string {
	if s.User == "" && s.Database == "" {
		return ""
	}
	return "  " + printable(s.User+"@"+s.Database)
}

// waitText describes what a session waits for and for how long.
func waitText(p *inspect.Pair) string {
	about := ""
	if p.WaitApprox {
		about = "about "
	}
	return fmt.Sprintf("%s%s for %s on %s", about, shortDuration(p.WaitDuration), printable(p.Mode), printable(p.Target()))
}

// blockOf returns the attribute block of a pair: hard or soft.
func blockOf(p *inspect.Pair) any {
	block, _ := attributeOf(inspect.PairAttributes(), "block")
	return block.PairValue(p)
}

// blockText describes a hard or soft block.
func blockText(p *inspect.Pair, above string) string {
	switch {
	case !p.Hard:
		return ", queued behind " + above + " (soft)"
	case p.Held != nil:
		return ", held in " + printable(p.Held.Mode)
	}
	return ", held"
}

// stateText describes the state of a session.
func stateText(s *inspect.Session) string {
	switch {
	case s.Prepared != nil:
		if s.Prepared.PreparedAt.IsZero() {
			return ""
		}
		return "  prepared " + s.Prepared.PreparedAt.Local().Format("2006-01-02 15:04:05")
	case s.Hidden:
		return "  (its activity is hidden from this role)"
	case s.State == "":
		return ""
	}
	text := "  " + printable(s.State)
	if s.Duration > 0 {
		text += " " + shortDuration(s.Duration)
	}
	if !s.XactStart.IsZero() && !s.StateChange.IsZero() {
		// Use the server's clock, as the durations do.
		since := s.StateChange
		if s.State == "active" && !s.QueryStart.IsZero() {
			since = s.QueryStart
		}
		if age := s.Duration + since.Sub(s.XactStart); age-s.Duration >= 100*time.Millisecond {
			text += ", in a transaction for " + shortDuration(age)
		}
	}
	return text
}

// sessionAttributes returns the attributes of sessions.
func sessionAttributes() []inspect.Attribute {
	var attributes []inspect.Attribute
	pairs := inspect.PairAttributes()
	for _, a := range inspect.Attributes() {
		if _, ok := attributeOf(pairs, "blocking_"+a.Name); ok {
			attributes = append(attributes, a)
		}
	}
	return attributes
}

// writeForestJSON writes the trees in the format of docs/command.md.
func writeForestJSON(out io.Writer, forest []*inspect.Tree) error {
	ofSession := sessionAttributes()
	var ofLock []inspect.Attribute
	for _, a := range inspect.Attributes() {
		if _, ok := attributeOf(ofSession, a.Name); !ok {
			ofLock = append(ofLock, a)
		}
	}
	var object func(t *inspect.Tree) jsonObject
	list := func(trees []*inspect.Tree) []jsonObject {
		objects := []jsonObject{}
		for _, t := range trees {
			objects = append(objects, object(t))
		}
		return objects
	}
	object = func(t *inspect.Tree) jsonObject {
		var o jsonObject
		for _, a := range ofSession {
			o.add(a.Name, a.Value(&inspect.Lock{Session: t.Session}))
		}
		o.add("hidden", t.Hidden)
		o.add("prepared", preparedObject(t.Prepared))
		o.add("depth", t.Depth)
		o.add("behind", t.Behind)
		o.add("longest_wait", t.Longest)
		o.add("cycle", t.Cycle)
		o.add("again", t.Again)
		if t.Pair == nil {
			o.add("waits_for", nil)
		} else {
			var w jsonObject
			for _, a := range ofLock {
				w.add(a.Name, a.Value(t.Pair.Lock))
			}
			w.add("block", blockOf(t.Pair))
			if t.Pair.Held != nil {
				w.add("held_mode", t.Pair.Held.Mode)
			} else {
				w.add("held_mode", nil)
			}
			o.add("waits_for", w)
		}
		o.add("blocked", list(t.Blocked))
		return o
	}
	return writeJSONList(out, list(forest))
}

// preparedObject returns a prepared transaction as a JSON object, or nil.
func preparedObject(p *inspect.Prepared) any {
	if p == nil || p.GID == "" {
		return nil
	}
	var o jsonObject
	o.add("gid", p.GID)
	o.add("owner", p.Owner)
	o.add("database", p.Database)
	o.add("transactionid", p.TransactionID)
	o.add("prepared_at", p.PreparedAt)
	o.add("remedy", p.Remedy())
	return o
}

// hiddenInForest returns a notice if the activity of sessions in the trees is hidden.
func hiddenInForest(s *session, forest []*inspect.Tree) []string {
	hidden := map[int32]bool{}
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		if t.Hidden {
			hidden[t.PID] = true
		}
		for _, b := range t.Blocked {
			visit(b)
		}
	}
	for _, t := range forest {
		visit(t)
	}
	return hiddenNotice(s, len(hidden))
}

// hiddenNotice returns a notice about how to see the activity of count hidden sessions.
func hiddenNotice(s *session, count int) []string {
	if count == 0 {
		return nil
	}
	role := `"` + strings.ReplaceAll(s.user, `"`, `""`) + `"`
	return []string{fmt.Sprintf("the activity of %s is hidden from this role; a superuser can show it: GRANT pg_read_all_stats TO %s",
		plural(count, "session", "sessions"), role)}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// useUnicode reports whether to draw with line characters, which it does unless the
// locale is not UTF-8. No locale at all is common in containers, and means nothing.
func (a *app) useUnicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(a.getenv(name)); locale != "" {
			return slices.ContainsFunc([]string{"utf-8", "utf8"}, func(s string) bool { return strings.Contains(locale, s) })
		}
	}
	return true
}
