package top

import (
	"context"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

const (
	// holdStill is how long rows stay where they are after a key.
	holdStill = 2 * time.Second

	// noticeFor is how long an outcome or another notice is shown.
	noticeFor = 10 * time.Second

	// The intervals that + and - reach.
	shortest = 200 * time.Millisecond
	longest  = time.Minute
)

// A model is the state of the program.
type model struct {
	Style
	ctx       context.Context // of everything that commands do
	describe  func(error) string
	now       time.Time
	databases []*database
	current   int // the database that is shown
	view      view
	width     int
	height    int

	lastKey time.Time
	pending bool // the rows on the screen are not those of the newest picture
	paused  bool
	every   time.Duration

	page   page
	box    *box    // asks before sessions are ended, or nil
	prompt *prompt // reads a line, or nil
	notice string
	until  time.Time // when notice disappears
	log    []entry
	picked int  // in the list of databases
	scroll int  // in a page
	left   bool // the program ends
}

// A page is what covers the lists.
type page int

const (
	noPage page = iota
	helpPage
	logPage
	detailsPage
	databasesPage
)

// An entry is a line of the log.
type entry struct {
	at   time.Time
	text string
}

// Style is how to draw.
type Style struct {
	Color bool
	ASCII bool
}

// Messages.
type (
	// frameMsg is a reading of a database.
	frameMsg struct {
		database int
		frame    feed.Frame[*picture]
	}

	// tickMsg comes each second, for durations and for what disappears.
	tickMsg time.Time

	// checkedMsg is what ending sessions would do.
	checkedMsg struct {
		box      *box
		outcomes []inspect.Outcome
		err      error
	}

	// endedMsg is what ending sessions did.
	endedMsg struct {
		box      *box
		outcomes []inspect.Outcome
		err      error
	}

	// writtenMsg is where a picture was written to.
	writtenMsg struct {
		path string
		err  error
	}
)

// Init starts reading the frames and the clock.
func (m *model) Init() tea.Cmd {
	commands := []tea.Cmd{tick()}
	for i := range m.databases {
		commands = append(commands, m.awaitFrame(i, 0))
	}
	return tea.Batch(commands...)
}

func tick() tea.Cmd { return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) }) }

// awaitFrame returns a command that waits for a frame newer than the one with a number.
func (m *model) awaitFrame(database int, after int64) tea.Cmd {
	ctx, f := m.ctx, m.databases[database].feed
	return func() tea.Msg {
		frame, err := f.Next(ctx, after)
		if err != nil {
			return nil
		}
		return frameMsg{database, frame}
	}
}

// Update changes the state as a message demands.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	command := m.handle(msg)
	m.settle()
	return m, command
}

// handle handles a message.
func (m *model) handle(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.handleKey(msg)
	case tea.PasteMsg:
		if m.prompt != nil {
			m.prompt.text += termtext.Line(msg.Content)
		}
	case tickMsg:
		m.now = time.Time(msg)
		if m.pending && m.now.Sub(m.lastKey) >= holdStill {
			m.reorder()
		}
		if m.now.After(m.until) {
			m.notice = ""
		}
		return tick()
	case frameMsg:
		m.accept(msg)
		return m.awaitFrame(msg.database, msg.frame.Sequence)
	case checkedMsg:
		m.checked(msg)
	case endedMsg:
		m.ended(msg)
	case writtenMsg:
		if msg.err != nil {
			m.notify("not written: " + msg.err.Error())
		} else {
			m.notify("written to " + msg.path)
		}
	}
	return nil
}

// db returns the database that is shown.
func (m *model) db() *database { return m.databases[m.current] }

// list returns the list that is shown.
func (m *model) list() *list { return &m.db().views[m.view] }

// accept stores a frame.
func (m *model) accept(msg frameMsg) {
	d := m.databases[msg.database]
	d.frame = msg.frame
	if msg.frame.At.After(m.now) {
		m.now = msg.frame.At
	}
	if d.lost() {
		return
	}
	d.picture, d.readAt = msg.frame.Value, msg.frame.At
	d.history.add(d.readAt, d.picture.all)
	switch {
	case len(d.picture.all) == 0:
		d.since = time.Time{}
	case d.since.IsZero():
		d.since = d.readAt.Add(-d.longest())
	}
	for key := range d.marked {
		if d.picture.find(key) == nil {
			delete(d.marked, key)
		}
	}
	if msg.database != m.current {
		return
	}
	if m.now.Sub(m.lastKey) < holdStill {
		m.list().update(m.newRows())
		m.pending = true
		return
	}
	m.reorder()
}

// longest returns the longest wait of a database.
func (d *database) longest() time.Duration {
	var longest time.Duration
	for _, t := range d.picture.all {
		longest = max(longest, t.Longest)
	}
	return longest
}

// newRows returns the rows of the newest picture.
func (m *model) newRows() []row {
	d := m.db()
	selected := sessionKey{}
	if r := d.views[m.view].selected(); r != nil {
		selected = r.key.session
	}
	return d.rows(m.view, linesFor(m.ASCII), func(k sessionKey) bool { return k == selected || d.marked[k] })
}

// reorder shows the rows of the newest picture in its order.
func (m *model) reorder() {
	m.pending = false
	m.list().replace(m.newRows())
}

// settle scrolls so that the selected row is on the screen.
func (m *model) settle() {
	l := m.list()
	_, l.offset = l.show(max(m.layout().list, 1))
}

// show shows a view or another database, whose rows may be old.
func (m *model) show(database int, v view) {
	m.current, m.view = database, v
	m.reorder()
}

// notify shows a notice for a while.
func (m *model) notify(text string) {
	m.notice, m.until = termtext.Line(text), m.now.Add(noticeFor)
}

// record shows a notice, and keeps it in the log.
func (m *model) record(text string) {
	m.notify(text)
	m.log = append(m.log, entry{m.now, termtext.Line(text)})
}

// setInterval changes the interval of all databases.
func (m *model) setInterval() {
	for _, d := range m.databases {
		if m.paused {
			d.feed.SetInterval(0)
		} else {
			d.feed.SetInterval(m.every)
		}
	}
}

// setFilters changes which locks of the current database are selected.
func (m *model) setFilters(filters []inspect.Filter) {
	m.db().filters.Store(&filters)
}

// currentFilters returns the filters of the current database.
func (m *model) currentFilters() []inspect.Filter {
	if filters := m.db().filters.Load(); filters != nil {
		return *filters
	}
	return nil
}

// writePicture returns a command that writes the trees as JSON into a new file.
func (m *model) writePicture() tea.Cmd {
	d := m.db()
	path := "pglock-top-" + d.readAt.Format("20060102-150405") + ".json"
	grove := new(render.Grove)
	for _, t := range d.picture.trees {
		grove.Add(d.Name, t)
	}
	return func() tea.Msg {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return writtenMsg{path, err}
		}
		err = render.WriteForestJSON(file, []*render.Grove{grove})
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		return writtenMsg{path, err}
	}
}

// whyNotEnd returns why no session of the current database can be ended now, or "".
func (m *model) whyNotEnd() string {
	d := m.db()
	switch {
	case d.ReadOnly != "":
		return "nothing can be ended: " + d.ReadOnly
	case d.lost():
		return "nothing can be ended: the connection is lost"
	case d.picture == nil:
		return "nothing can be ended: nothing has been read yet"
	}
	return ""
}

// status describes in a few words how the current database is read.
func (m *model) status() (word string, ok bool) {
	d := m.db()
	switch {
	case d.lost() && d.picture == nil:
		return "no connection", false
	case d.lost():
		return "lost " + render.Duration(max(m.now.Sub(d.readAt), 0).Truncate(time.Second)) + " ago", false
	case d.picture == nil:
		return "connecting", true
	case m.paused:
		return "paused", true
	}
	return "live", true
}

// reason describes why the current database cannot be read, and when that is tried again.
func (m *model) reason() string {
	d := m.db()
	text := m.describe(d.frame.Err)
	if next := d.frame.At.Add(d.frame.Pause).Sub(m.now); next >= time.Second {
		return fmt.Sprintf("%s; trying again in %ds", text, int(next/time.Second))
	}
	return text + "; trying again"
}
