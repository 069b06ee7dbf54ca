package top

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A prompt reads a line at the bottom of the screen.
type prompt struct {
	title string
	text  string
	err   string
	done  func(text string) (problem string)
}

// handleKey handles a key.
func (m *model) handleKey(key tea.KeyPressMsg) tea.Cmd {
	m.lastKey = m.now
	switch key.String() {
	case "ctrl+c":
		return m.quit()
	case "ctrl+z":
		return tea.Suspend
	}
	switch {
	case m.box != nil:
		return m.boxKey(key)
	case m.prompt != nil:
		m.promptKey(key)
		return nil
	case m.page == databasesPage:
		m.databasesKey(key)
		return nil
	case m.page != noPage:
		return m.pageKey(key)
	}
	return m.listKey(key)
}

// quit ends the program.
func (m *model) quit() tea.Cmd {
	m.left = true
	return tea.Quit
}

// listKey handles a key while a list is shown.
func (m *model) listKey(key tea.KeyPressMsg) tea.Cmd {
	l := m.list()
	height := max(m.layout().list, 1)
	switch key.String() {
	case "q":
		return m.quit()
	case "up", "k":
		l.move(-1)
	case "down", "j":
		l.move(1)
	case "pgup", "ctrl+u", "ctrl+b":
		l.move(-height)
	case "pgdown", "ctrl+d", "ctrl+f":
		l.move(height)
	case "home", "g":
		l.move(-len(l.rows))
	case "end", "G":
		l.move(len(l.rows))
	case "left", "h":
		m.closeTree()
	case "right", "l":
		m.openTree()
	case "tab":
		m.show(m.current, (m.view+1)%viewCount)
	case "shift+tab":
		m.show(m.current, (m.view+viewCount-1)%viewCount)
	case "1", "2", "3", "4", "5":
		m.show(m.current, view(key.String()[0]-'1'))
	case "enter":
		if r := l.selected(); r != nil && r.fold > 0 {
			m.openTree()
		} else if r != nil {
			m.page, m.scroll = detailsPage, 0
		}
	case "c":
		return m.ask(cancelAction)
	case "t":
		return m.ask(terminateAction)
	case "space":
		m.mark()
	case "esc":
		switch {
		case len(m.db().marked) > 0:
			clear(m.db().marked)
		case len(m.currentFilters()) > 0:
			m.setFilters(nil)
			m.notify("the filters are off")
		}
		m.notice = ""
	case "/":
		m.askFilter()
	case "o":
		m.askTable()
	case "p":
		m.paused = !m.paused
		m.setInterval()
	case "+", "=":
		m.every = max(m.every/2, shortest)
		m.setInterval()
	case "-":
		m.every = min(m.every*2, longest)
		m.setInterval()
	case "r":
		m.lastKey = time.Time{}
		m.reorder()
	case "y":
		return m.copyQuery()
	case "w":
		if m.db().picture == nil {
			m.notify("nothing has been read yet")
			return nil
		}
		return m.writePicture()
	case "d":
		if len(m.databases) > 1 {
			m.page, m.picked = databasesPage, m.current
		} else {
			m.notify("there is one database; -d NAME,NAME or --all shows several")
		}
	case "L":
		m.page, m.scroll = logPage, 0
	case "?":
		m.page, m.scroll = helpPage, 0
	}
	return nil
}

// pageKey handles a key while a page covers the lists.
func (m *model) pageKey(key tea.KeyPressMsg) tea.Cmd {
	switch key.String() {
	case "up", "k":
		m.scroll = max(m.scroll-1, 0)
	case "down", "j":
		m.scroll++ // the view limits it
	case "c", "t", "y":
		if m.page == detailsPage {
			return m.listKey(key)
		}
	case "esc", "q", "enter", "?", "L", "left", "h":
		m.page = noPage
	}
	return nil
}

// databasesKey handles a key in the list of databases.
func (m *model) databasesKey(key tea.KeyPressMsg) {
	switch key.String() {
	case "up", "k":
		m.picked = max(m.picked-1, 0)
	case "down", "j", "d":
		m.picked = min(m.picked+1, len(m.databases)-1)
	case "enter", "right", "l":
		m.page = noPage
		m.show(m.picked, m.view)
	case "esc", "q", "left", "h":
		m.page = noPage
	}
}

// promptKey handles a key while a line is read.
func (m *model) promptKey(key tea.KeyPressMsg) {
	p := m.prompt
	switch key.String() {
	case "esc":
		m.prompt = nil
	case "enter":
		if p.err = p.done(strings.TrimSpace(p.text)); p.err == "" {
			m.prompt = nil
		}
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(p.text)
		p.text = p.text[:len(p.text)-size]
	case "ctrl+u":
		p.text = ""
	default:
		p.text += termtextInput(key.Text)
	}
}

// termtextInput returns what was typed, as it is safe to show.
func termtextInput(text string) string {
	if text == " " {
		return text
	}
	return termtext.Line(text)
}

// askFilter asks for a filter, in the syntax of -f.
func (m *model) askFilter() {
	m.prompt = &prompt{title: "filter", done: func(text string) string {
		if text == "" {
			m.setFilters(nil)
			return ""
		}
		filter, err := inspect.ParseFilter(text)
		if err == nil {
			err = filter.Err()
		}
		if err != nil {
			return m.describe(err)
		}
		m.setFilters(append(slices.Clone(m.currentFilters()), filter))
		return ""
	}}
}

// askTable asks for a table, as --on has it. The one of the selected row is proposed.
func (m *model) askTable() {
	table := ""
	if r := m.list().selected(); r != nil {
		table = r.table()
	}
	m.prompt = &prompt{title: "on table", text: table, done: func(text string) string {
		if text != "" {
			m.setFilters(append(slices.Clone(m.currentFilters()), inspect.On(text)))
		}
		return ""
	}}
}

// mark marks the session of the selected row, or unmarks it, and moves on.
func (m *model) mark() {
	r := m.list().selected()
	if r == nil || r.subject() == nil || r.gone {
		return
	}
	if reason := m.whyNotEnd(); reason != "" {
		m.notify(reason)
		return
	}
	key := keyOf(r.subject())
	if m.db().marked[key] {
		delete(m.db().marked, key)
	} else {
		m.db().marked[key] = true
	}
	m.list().move(1)
}

// openTree shows what is folded into the selected row.
func (m *model) openTree() {
	r := m.list().selected()
	switch {
	case r == nil || m.view != treeView || r.fold == 0:
		return
	case r.tree != nil:
		delete(m.db().closed, r.key)
	default:
		m.db().expanded[r.key] = true
		m.list().move(-1) // the row that stands for the others goes
	}
	m.reorder()
}

// closeTree folds the sessions behind the selected one, or selects the one above.
func (m *model) closeTree() {
	l := m.list()
	r := l.selected()
	if r == nil || m.view != treeView {
		return
	}
	if r.tree != nil && len(r.tree.Blocked) > 0 && r.fold == 0 {
		m.db().closed[r.key] = true
		m.reorder()
		return
	}
	parent := r.key.other
	if r.tree == nil {
		parent = r.key.session
	}
	for i := l.cursor - 1; i >= 0; i-- {
		if l.rows[i].tree != nil && l.rows[i].key.session == parent {
			l.move(i - l.cursor)
			return
		}
	}
}

// copyQuery copies the query of the selected session to the clipboard.
func (m *model) copyQuery() tea.Cmd {
	r := m.list().selected()
	if r == nil || r.subject() == nil || r.subject().Query == "" {
		m.notify("no query to copy")
		return nil
	}
	m.notify("the query was sent to the terminal's clipboard")
	return tea.SetClipboard(r.subject().Query)
}
