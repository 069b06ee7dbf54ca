package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/termtext"
)

// The smallest screen that is drawn on, and what fits on it.
const (
	minWidth, minHeight = 40, 8

	// Below these, there is only a list.
	roomyWidth, roomyHeight = 60, 15

	// From this width on, the details are beside the list.
	wideWidth = 100
)

// A layout is the sizes of the parts of the screen.
type layout struct {
	tiny    bool
	head    int // lines at the top, with the rule below them
	list    int // lines of the list
	width   int // of the list
	right   int // width of the details beside it, or 0
	below   int // lines of the details below it, or 0
	bottom  int // lines at the bottom, with the rule above them
	sparing bool
}

func (m *model) layout() layout {
	l := layout{width: m.width}
	if m.width < minWidth || m.height < minHeight {
		l.tiny = true
		return l
	}
	if m.width < roomyWidth || m.height < roomyHeight {
		l.sparing, l.head, l.bottom = true, 1, 1
		l.list = m.height - 2
		return l
	}
	l.head, l.bottom = 3, 3
	l.list = m.height - l.head - l.bottom
	if m.width >= wideWidth {
		l.right = min(max(m.width/3, 38), 56)
		l.width = m.width - l.right - 3
	} else {
		l.below = min(l.list/2, 10)
		l.list -= l.below
	}
	return l
}

// View draws the screen. At the end it clears it: a terminal without an alternate screen,
// such as GNU screen's unless it is told to have one, keeps what is there, and what comes
// after it would be mixed with it.
func (m *model) View() tea.View {
	var v tea.View
	if !m.left {
		v = tea.NewView(strings.Join(m.screen(), "\n"))
	}
	v.AltScreen = true
	v.WindowTitle = "pglock top"
	return v
}

// screen returns the lines of the screen.
func (m *model) screen() []string {
	l := m.layout()
	switch {
	case m.width == 0 || m.height == 0:
		return nil
	case l.tiny:
		return []string{m.draw(line{{"", fmt.Sprintf("pglock top needs %d x %d", minWidth, minHeight)}}, m.width)}
	}
	var lines []string
	lines = append(lines, m.headLines(l)...)
	lines = append(lines, m.bodyLines(l)...)
	lines = append(lines, m.bottomLines(l)...)
	return lines
}

// headLines returns the lines at the top: where, how it is read, and how many wait.
func (m *model) headLines(l layout) []string {
	d := m.db()
	word, ok := m.status()
	bullet := "●"
	if m.ASCII {
		bullet = "*"
	}
	color := render.Green
	switch {
	case !ok:
		color = render.Red
	case word != "live":
		color = render.Yellow
	}
	status := line{{color, " " + bullet + " " + word + " "}}
	if l.sparing {
		return []string{m.apart(append(line{{"", " "}}, m.counts()...), status, m.width)}
	}
	where := d.Where
	if d.Name != "" {
		where = d.Name + "  " + where
		if n := len(m.databases); n > 1 {
			where += fmt.Sprintf("  (%d of %d)", m.current+1, n)
		}
	}
	first := line{{render.Bold, " pglock top"}, {"", "  " + where}}
	if p := d.picture; p != nil {
		role := "primary"
		if p.Server.InRecovery {
			role = "standby"
		}
		first = append(first, span{"", fmt.Sprintf("  PG %s %s", version(p.Server.Version), role)})
	}
	first = append(first, span{"", "  " + m.now.Local().Format("15:04:05")})
	if p := d.picture; p != nil {
		every := m.every
		if d.frame.Err == nil && d.frame.Pause > every {
			every = (d.frame.Pause + d.frame.Cost).Round(100 * time.Millisecond)
		}
		took := ""
		if d.frame.Err == nil {
			took = fmt.Sprintf(" (took %s)", render.Duration(d.frame.Cost))
		}
		first = append(first, span{render.Dim, "  every " + interval(every) + took})
	}
	second := append(line{{"", " "}}, m.counts()...)
	if f := m.currentFilters(); len(f) > 0 {
		var texts []string
		for _, filter := range f {
			texts = append(texts, filter.String())
		}
		second = append(second, span{render.Yellow, "   only " + strings.Join(texts, " and ")})
	}
	return []string{m.apart(first, status, m.width), m.draw(second, m.width), m.rule(l)}
}

// version returns a version of Postgres as people write it.
func version(number int) string { return fmt.Sprintf("%d.%d", number/10000, number%10000) }

// interval formats an interval shortly.
func interval(d time.Duration) string {
	if d >= time.Minute {
		return render.Duration(d)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + "s"
}

// counts returns how many sessions wait, and the like.
func (m *model) counts() line {
	d := m.db()
	p := d.picture
	if p == nil {
		return line{{render.Dim, "nothing has been read yet"}}
	}
	waiting := map[sessionKey]bool{}
	for i := range p.Pairs {
		waiting[keyOf(p.Pairs[i].Session)] = true
	}
	idle, hidden := 0, p.hiddenSessions()
	for i := range p.sessions {
		if strings.HasPrefix(p.sessions[i].State, "idle in transaction") {
			idle++
		}
	}
	color := ""
	if len(waiting) > 0 {
		color = render.Yellow
	}
	counts := line{{color, fmt.Sprintf("waiting %d", len(waiting))}}
	if len(p.all) > 0 {
		counts = append(counts, span{"", fmt.Sprintf("   roots %d", len(p.all))}, span{"", "   longest " + render.Duration(d.longest())})
	}
	counts = append(counts, span{"", fmt.Sprintf("   idle in transaction %d", idle)})
	if !d.since.IsZero() {
		counts = append(counts, span{"", "   since " + d.since.Local().Format("15:04:05")})
	}
	if hidden > 0 {
		counts = append(counts, span{render.Yellow, fmt.Sprintf("   hidden %d", hidden)})
	}
	return counts
}

// rule returns the line above the body, with the titles of its parts.
func (m *model) rule(l layout) string {
	left := m.view.title()
	if m.page != noPage && m.page != detailsPage {
		left = [...]string{helpPage: "keys", logPage: "what was done", databasesPage: "databases"}[m.page]
	}
	if m.page == detailsPage || m.box != nil {
		left = ""
	}
	text := m.ruled(left, m.width)
	if l.right > 0 && m.page == noPage && m.box == nil {
		text = m.ruled(left, l.width+1) + m.char("┬", "+") + m.ruled(m.selectedName(), l.right+1)
	}
	return m.draw(line{{render.Dim, text}}, m.width)
}

// selectedName names the selected session, or returns "".
func (m *model) selectedName() string {
	if r := m.list().selected(); r != nil && r.subject() != nil {
		return render.SessionName(r.subject())
	}
	return ""
}

// ruled returns a line of a width with a title in it.
func (m *model) ruled(title string, width int) string {
	dash := m.char("─", "-")
	text := dash
	if title != "" {
		text += " " + m.clean(title) + " "
	}
	return m.cut(text+strings.Repeat(dash, max(width-cells(text), 0)), width)
}

// char returns a character, or its replacement in ASCII.
func (m *model) char(unicode, ascii string) string {
	if m.ASCII {
		return ascii
	}
	return unicode
}

// bodyLines returns the lines between the head and the bottom.
func (m *model) bodyLines(l layout) []string {
	height := l.list + l.below
	var lines []string
	switch {
	case m.box != nil:
		for _, text := range m.boxLines(m.width-2, height) {
			lines = append(lines, m.draw(text, m.width))
		}
	case m.page == detailsPage:
		lines = m.scrolled(m.details(m.width-2), height)
	case m.page == helpPage:
		lines = m.scrolled(m.helpLines(), height)
	case m.page == logPage:
		lines = m.scrolled(m.logLines(), height)
	case m.page == databasesPage:
		lines = m.databaseLines()
	default:
		return m.listLines(l)
	}
	return fill(lines, height)
}

// fill returns exactly as many lines as there is room for.
func fill(lines []string, height int) []string {
	if len(lines) > height {
		return lines[:height]
	}
	return append(lines, make([]string, height-len(lines))...)
}

// scrolled draws the lines of a page from m.scroll on.
func (m *model) scrolled(page []line, height int) []string {
	first := max(min(m.scroll, len(page)-height), 0)
	var lines []string
	for _, text := range page[first:min(first+height, len(page))] {
		lines = append(lines, m.draw(append(line{{"", " "}}, text...), m.width))
	}
	return lines
}

// listLines returns the lines of a list, with the details of the selected row.
func (m *model) listLines(l layout) []string {
	d := m.db()
	list := m.list()
	rows, first := list.show(l.list)
	var lines []string
	for i := range rows {
		lines = append(lines, m.rowLine(&rows[i], first+i == list.cursor, l.width))
	}
	if len(rows) == 0 {
		for _, text := range wrap(m.emptyText(), l.width-2) {
			lines = append(lines, m.draw(line{{"", "  " + text}}, l.width))
		}
	}
	if d.lost() {
		for i := range lines {
			lines[i] = m.dimmed(lines[i])
		}
	}
	lines = fill(lines, l.list)
	switch {
	case l.right > 0:
		details := m.details(l.right)
		separator := " " + m.paint(render.Dim, m.char("│", "|")) + " "
		for i := range lines {
			text := ""
			if i < len(details) {
				text = m.draw(details[i], l.right)
			}
			if d.lost() {
				text = m.dimmed(text)
			}
			lines[i] = m.pad(lines[i], l.width) + separator + text
		}
	case l.below > 0:
		lines = append(lines, m.draw(line{{render.Dim, m.ruled(m.selectedName(), m.width)}}, m.width))
		details := m.details(m.width - 1)
		for i := range l.below - 1 {
			text := ""
			if i < len(details) {
				text = m.draw(append(line{{"", " "}}, details[i]...), m.width)
			}
			lines = append(lines, text)
		}
	}
	return lines
}

// emptyText explains why a list is empty.
func (m *model) emptyText() string {
	d := m.db()
	switch {
	case d.lost() && d.picture == nil:
		return m.describe(d.frame.Err)
	case d.picture == nil:
		return "connecting to " + d.Where
	case d.picture.filterErr != nil:
		return m.describe(d.picture.filterErr)
	case m.view == historyView:
		return "nobody has waited since pglock top began"
	case d.picture.selected != nil:
		return "nothing matches"
	case m.view == treeView, m.view == pairsView:
		return "nobody waits"
	}
	return "nothing to show"
}

// boxLines returns the lines of the box that asks.
func (m *model) boxLines(width, height int) []line {
	b := m.box
	var lines []line
	add := func(color, text string) {
		for i, part := range wrap(m.clean(text), width-2) {
			indent := ""
			if i > 0 {
				indent = "  "
			}
			lines = append(lines, line{{color, " " + indent + part}})
		}
	}
	what := map[action]string{cancelAction: "Cancel the statement of ", terminateAction: "Terminate "}[b.action]
	name := render.SessionName(b.victims[0].Session)
	if n := len(b.victims); n > 1 {
		name = fmt.Sprintf("%d sessions", n)
	}
	add(render.Bold, what+name+"?")
	lines = append(lines, nil)
	facts := b.who
	if b.stage != refused {
		facts = slices.Concat(facts, b.facts)
	}
	for _, fact := range facts {
		add("", fact)
	}
	ending := b.action.ending()
	ending.DryRun = true
	for _, o := range b.outcomes {
		if !o.Signaled {
			add(render.Yellow, ending.Describe(o))
		}
	}
	lines = append(lines, nil)
	var answers []line
	switch b.stage {
	case checking:
		answers = append(answers, line{{render.Dim, " checking what can be done ..."}})
	case working:
		answers = append(answers, line{{render.Yellow, " " + map[action]string{cancelAction: "canceling ...", terminateAction: "terminating ..."}[b.action]}})
	case refused:
		if b.err != "" {
			answers = append(answers, line{{render.Red, " " + b.err}})
		}
		answers = append(answers, line{{"", " nothing can be ended here   "}, {render.Bold, "[ back ]"}})
	case asking:
		answers = m.answerLines()
	}
	if n := height - len(answers); len(lines) > n { // the answers must be seen
		lines = lines[:max(n, 0)]
	}
	return append(lines, answers...)
}

// answerLines returns the lines with the possible answers.
func (m *model) answerLines() []line {
	b := m.box
	if b.grave == "" {
		keep, end := "[ keep it ]", "  y "+b.action.String()+"  "
		if b.focus {
			keep, end = "  keep it  ", "[ y "+b.action.String()+" ]"
			return []line{{{"", " " + keep + "   "}, {render.Bold + render.Red, end}}}
		}
		return []line{{{render.Bold, " " + keep}, {"", "   " + end}}}
	}
	lines := []line{
		{{render.Yellow, " " + m.clean(b.grave)}},
		{{"", " type "}, {render.Bold, b.confirmation()}, {"", " and enter to " + b.action.String() + ": "}, {render.Bold, b.typed + "_"}},
	}
	if b.problem != "" {
		lines = append(lines, line{{render.Red, " " + b.problem}})
	}
	return append(lines, line{{render.Bold, " [ enter keeps it ]"}})
}

// bottomLines returns the lines at the bottom: a notice, and what can be done here.
func (m *model) bottomLines(l layout) []string {
	keys := m.keysLine()
	notice := m.noticeLine()
	if l.sparing {
		if notice != nil {
			keys = notice
		}
		return []string{m.draw(keys, m.width)}
	}
	rule := m.char("─", "-")
	return []string{
		m.draw(line{{render.Dim, strings.Repeat(rule, m.width)}}, m.width),
		m.draw(notice, m.width),
		m.draw(keys, m.width),
	}
}

// noticeLine returns the most important thing to say, or nil.
func (m *model) noticeLine() line {
	d := m.db()
	switch {
	case m.prompt != nil && m.prompt.err != "":
		return line{{render.Red, " " + m.prompt.err}}
	case m.notice != "":
		return line{{render.Bold, " " + m.notice}}
	case d.lost():
		return line{{render.Red, " " + m.reason()}}
	case d.picture == nil:
		return nil
	case d.picture.filterErr != nil:
		return line{{render.Red, " " + m.describe(d.picture.filterErr)}}
	case m.pending:
		return line{{render.Dim, " rows stay where they are while you move; r orders them now"}}
	}
	if r := m.list().selected(); r != nil && r.subject() != nil && !r.gone && m.box == nil && (m.page == noPage || m.page == detailsPage) {
		if s := r.subject(); d.ReadOnly == "" && strings.HasPrefix(s.State, "idle") && len(d.picture.blockedBy(s)) > 0 {
			return line{{render.Dim, " cancel does nothing here: it is " + s.State}}
		}
	}
	if hidden := d.picture.hiddenSessions(); hidden > 0 {
		return line{{render.Dim, " " + render.HiddenNotice(hidden, d.picture.Server.User)[0]}}
	}
	if d.picture.Server.InRecovery {
		return line{{render.Dim, " this is a standby: its sessions only read, and replay waits for some of them"}}
	}
	return nil
}

// hiddenSessions returns how many sessions are hidden from this role, without the server's
// own processes, which are in no database.
func (p *picture) hiddenSessions() int {
	n := 0
	for i := range p.sessions {
		if p.sessions[i].Hidden && p.sessions[i].Database != "" {
			n++
		}
	}
	return n
}

// keysLine returns which keys do something here.
func (m *model) keysLine() line {
	switch {
	case m.prompt != nil:
		return line{{render.Bold, " " + m.prompt.title + ": "}, {"", m.clean(m.prompt.text) + "_"}}
	case m.box != nil:
		return keys("esc", "keep it")
	case m.page == databasesPage:
		return keys("enter", "show", "esc", "back")
	case m.page == detailsPage && m.db().ReadOnly == "":
		return keys("t", "terminate", "c", "cancel", "y", "copy query", "esc", "back")
	case m.page != noPage:
		return keys("esc", "back")
	}
	var pairs []string
	if r := m.list().selected(); r != nil && r.fold > 0 {
		pairs = append(pairs, "enter", "show them")
	} else if r != nil {
		pairs = append(pairs, "enter", "details")
	}
	if d := m.db(); d.ReadOnly == "" && !d.lost() {
		pairs = append(pairs, "t", "terminate", "c", "cancel")
	}
	pairs = append(pairs, "tab", "view", "/", "filter", "o", "table", "p", "pause", "L", "log", "?", "help", "q", "quit")
	if m.width < roomyWidth {
		pairs = []string{"tab", "view", "?", "help", "q", "quit"}
		if d := m.db(); d.ReadOnly == "" && !d.lost() {
			pairs = append([]string{"t", "end"}, pairs...)
		}
	}
	if len(m.databases) > 1 {
		pairs = append([]string{"d", "database"}, pairs...)
	}
	return keys(pairs...)
}

// keys returns keys and what they do.
func keys(pairs ...string) line {
	text := line{{"", " "}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			text = append(text, span{"", "  "})
		}
		text = append(text, span{render.Bold, pairs[i]}, span{"", " " + pairs[i+1]})
	}
	return text
}

// clean returns text as it is safe to show on a line.
func (s Style) clean(text string) string {
	text = termtext.Line(text)
	if isPlain(text) {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 0xfe00 && r <= 0xfe0f: // selects a variant, whose width terminals disagree about
			return -1
		case s.ASCII && r > '~':
			return '?'
		}
		return r
	}, text)
}

func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] > '~' {
			return false
		}
	}
	return true
}
