package top

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// A view is one of the lists that can be shown.
type view int

const (
	treeView view = iota
	pairsView
	locksView
	sessionsView
	historyView
	viewCount
)

func (v view) title() string {
	return [...]string{"who waits for whom", "pairs", "locks", "sessions", "the last 15 minutes"}[v]
}

// A rowKey identifies what a row shows, in every picture.
type rowKey struct {
	session sessionKey
	other   sessionKey // the blocker of a pair, or the session above in a tree
	lock    lockKey
	fold    string // what the sessions of a fold have in common
	title   string
}

// A lockKey identifies a lock of a session.
type lockKey struct {
	kind, mode, vxid                   string
	database, relation, class, id, xid uint32
	page                               uint32
	tuple                              uint16
	sub                                int16
}

func keyOfLock(l *inspect.Lock) lockKey {
	return lockKey{
		kind: l.Type, mode: l.Mode, vxid: l.VirtualXID, xid: l.TransactionID,
		database: l.DatabaseOID, relation: l.RelationOID, class: l.ClassID, id: l.ObjectID,
		page: l.Page, tuple: l.Tuple, sub: l.ObjectSubID,
	}
}

// A row is a line of a list. What it shows is formatted when it is drawn.
type row struct {
	key    rowKey
	prefix string // of a tree
	above  string // the name of the session above

	// One of these is set, except in a title and in a fold.
	tree     *inspect.Tree
	pair     *inspect.Pair
	lock     *inspect.Lock
	session  *inspect.Session
	incident *incident

	fold int  // how many sessions are folded into this row
	gone bool // the newest picture does not have it
}

// subject returns the session that a row is about, or nil.
func (r *row) subject() *inspect.Session {
	switch {
	case r.tree != nil:
		return r.tree.Session
	case r.pair != nil:
		return r.pair.Session
	case r.lock != nil:
		return r.lock.Session
	case r.session != nil:
		return r.session
	case r.incident != nil:
		return r.incident.root
	}
	return nil
}

// table returns the table that a row is about, or "".
func (r *row) table() string {
	lock := r.lock
	switch {
	case r.pair != nil:
		lock = r.pair.Lock
	case r.tree != nil && r.tree.Pair != nil:
		lock = r.tree.Pair.Lock
	case r.tree != nil && len(r.tree.Blocked) > 0:
		lock = r.tree.Blocked[0].Pair.Lock
	}
	switch {
	case lock == nil || lock.Relation == "":
		return ""
	case lock.Schema == "":
		return lock.Relation
	}
	return lock.Schema + "." + lock.Relation
}

// isTitle reports whether a row is only a heading.
func (r *row) isTitle() bool { return r.key.title != "" }

// rows returns the rows of a view. A session for which keep is true is never folded.
func (d *database) rows(v view, lines treeLines, keep func(sessionKey) bool) []row {
	p := d.picture
	if p == nil {
		return nil
	}
	switch v {
	case treeView:
		g := grower{d, lines, keep, nil}
		for _, t := range p.trees {
			g.grow(t, "", "", "", sessionKey{})
		}
		if len(p.trees) == 0 && p.filterErr == nil {
			return d.quietRows()
		}
		return g.rows
	case pairsView:
		return p.pairRows()
	case locksView:
		return p.lockRows()
	case sessionsView:
		return p.sessionRows()
	}
	var rows []row
	for _, i := range d.history.latest() {
		rows = append(rows, row{key: rowKey{session: keyOf(i.root), fold: i.began.String()}, incident: i})
	}
	return rows
}

func (p *picture) isSelected(s *inspect.Session) bool { return p.selected == nil || p.selected[s.PID] }

func (p *picture) pairRows() []row {
	var rows []row
	for i := range p.Pairs {
		pair := &p.Pairs[i]
		if p.isSelected(pair.Session) || p.isSelected(pair.Blocking) {
			rows = append(rows, row{
				key:  rowKey{session: keyOf(pair.Session), other: keyOf(pair.Blocking), lock: keyOfLock(pair.Lock)},
				pair: pair,
			})
		}
	}
	return rows
}

// lockRows returns the locks, waits first. Those that transactions hold on their own IDs
// are left out, unless there are filters or a session waits for them.
func (p *picture) lockRows() []row {
	locks := p.Locks
	if p.selected != nil {
		locks = p.matching
	}
	type id struct {
		xid  uint32
		vxid string
	}
	awaited := map[id]bool{}
	for i := range locks {
		if !locks[i].Granted {
			awaited[id{locks[i].TransactionID, locks[i].VirtualXID}] = true
		}
	}
	rows := make([]row, 0, len(locks))
	for i := range locks {
		l := &locks[i]
		own := l.Granted && (l.Type == "virtualxid" || l.Type == "transactionid")
		if !own || p.selected != nil || awaited[id{l.TransactionID, l.VirtualXID}] {
			rows = append(rows, row{key: rowKey{session: keyOf(l.Session), lock: keyOfLock(l)}, lock: l})
		}
	}
	return rows
}

func (p *picture) sessionRows() []row {
	var rows []row
	for i := range p.sessions {
		if s := &p.sessions[i]; p.isSelected(s) {
			rows = append(rows, row{key: rowKey{session: keyOf(s)}, session: s})
		}
	}
	return rows
}

// quietRows returns what is worth knowing when nobody waits.
func (d *database) quietRows() []row {
	const most = 5
	if d.picture.selected != nil {
		return nil
	}
	rows := []row{{key: rowKey{title: "nobody waits"}}}
	add := func(title string, sessions []*inspect.Session) {
		if len(sessions) == 0 {
			return
		}
		rows = append(rows, row{key: rowKey{title: title}})
		for _, s := range sessions[:min(len(sessions), most)] {
			rows = append(rows, row{key: rowKey{session: keyOf(s), fold: title}, session: s})
		}
	}
	pick := func(want func(*inspect.Session) bool) []*inspect.Session {
		var sessions []*inspect.Session
		for i := range d.picture.sessions {
			if s := &d.picture.sessions[i]; want(s) {
				sessions = append(sessions, s)
			}
		}
		return sessions
	}
	add("longest transactions", pick(func(s *inspect.Session) bool { return !s.XactStart.IsZero() }))
	add("idle in transaction", pick(func(s *inspect.Session) bool { return strings.HasPrefix(s.State, "idle in transaction") }))
	oldest := pick(func(s *inspect.Session) bool { return s.XminAge > 0 })
	slices.SortStableFunc(oldest, func(a, b *inspect.Session) int { return int(min(max(b.XminAge-a.XminAge, -1), 1)) })
	add("oldest xmin, which holds VACUUM back", oldest)
	if latest := d.history.latest(); len(latest) > 0 {
		rows = append(rows, row{key: rowKey{title: "blocked last"}},
			row{key: rowKey{session: keyOf(latest[0].root), fold: "blocked last"}, incident: latest[0]})
	}
	return rows
}

// treeLines holds the characters that trees are drawn with.
type treeLines struct{ branch, last, down, none string }

func linesFor(ascii bool) treeLines {
	if ascii {
		return treeLines{"|- ", "`- ", "|  ", "   "}
	}
	return treeLines{"├─ ", "└─ ", "│  ", "   "}
}

// A grower makes the rows of a tree.
type grower struct {
	*database
	lines treeLines
	keep  func(sessionKey) bool
	rows  []row
}

const (
	// shownSiblings is how many sessions are shown of those that wait alike.
	shownSiblings = 3

	// minFold is how many sessions are worth a row that replaces them.
	minFold = 4
)

// grow adds a session and those behind it.
func (g *grower) grow(t *inspect.Tree, first, rest, above string, parent sessionKey) {
	key := rowKey{session: keyOf(t.Session), other: parent}
	r := row{key: key, prefix: first, above: above, tree: t}
	if g.closed[key] {
		r.fold = t.Behind
		g.rows = append(g.rows, r)
		return
	}
	g.rows = append(g.rows, r)
	folded := g.folds(t)
	type fold struct {
		key   rowKey
		count int
	}
	var folds []fold
	var shown []*inspect.Tree
	for _, b := range t.Blocked {
		if kind := folded[b]; kind != "" {
			k := rowKey{session: key.session, fold: kind}
			if i := slices.IndexFunc(folds, func(f fold) bool { return f.key == k }); i >= 0 {
				folds[i].count++
			} else {
				folds = append(folds, fold{k, 1})
			}
			continue
		}
		shown = append(shown, b)
	}
	n := len(shown) + len(folds)
	name := render.SessionName(t.Session)
	for i, b := range shown {
		head, tail := g.lines.branch, g.lines.down
		if i == n-1 {
			head, tail = g.lines.last, g.lines.none
		}
		g.grow(b, rest+head, rest+tail, name, key.session)
	}
	for i, f := range folds {
		head := g.lines.branch
		if len(shown)+i == n-1 {
			head = g.lines.last
		}
		g.rows = append(g.rows, row{key: f.key, prefix: rest + head, fold: f.count})
	}
}

// folds returns the sessions below t that are not shown, and what they have in common with
// the others of their fold: they wait alike, for the same, and nobody waits for them.
func (g *grower) folds(t *inspect.Tree) map[*inspect.Tree]string {
	if len(t.Blocked) < shownSiblings+minFold {
		return nil
	}
	alike := map[string][]*inspect.Tree{}
	for _, b := range t.Blocked {
		if len(b.Blocked) > 0 || b.Again || g.keep(keyOf(b.Session)) {
			continue
		}
		kind := fmt.Sprint(b.Pair.Hard, " ", b.Pair.Mode, " ", b.Pair.Target(), " ", shape(b.Query))
		alike[kind] = append(alike[kind], b)
	}
	folded := map[*inspect.Tree]string{}
	for kind, trees := range alike {
		if g.expanded[rowKey{session: keyOf(t.Session), fold: kind}] || len(trees) < shownSiblings+minFold {
			continue
		}
		for _, b := range trees[shownSiblings:] {
			folded[b] = kind
		}
	}
	return folded
}

// shape returns a query without the numbers and strings in it, and cut to a length that
// tells most queries apart.
func shape(query string) string {
	const most = 200
	var b strings.Builder
	quoted := false
	for i := range len(query) {
		c := query[i]
		switch {
		case c == '\'':
			quoted = !quoted
		case quoted || c >= '0' && c <= '9':
			continue
		}
		b.WriteByte(c)
		if b.Len() >= most {
			break
		}
	}
	return b.String()
}

// A list is the rows of a view, and which of them are shown.
type list struct {
	rows   []row
	cursor int // the selected row
	offset int // the first row on the screen
}

// selected returns the selected row, or nil.
func (l *list) selected() *row {
	if l.cursor < 0 || l.cursor >= len(l.rows) || l.rows[l.cursor].isTitle() {
		return nil
	}
	return &l.rows[l.cursor]
}

// replace replaces the rows. The selected row stays selected, and where it is on the
// screen, or else another row of the same session. If there is none, the row stays, marked
// as gone, until another is selected: a key that was meant for one session must not meet
// another.
func (l *list) replace(rows []row) {
	old := l.selected()
	if old == nil {
		l.rows = rows
		l.move(0)
		return
	}
	at := slices.IndexFunc(rows, func(r row) bool { return r.key == old.key })
	if at < 0 && old.subject() != nil { // in another place
		at = slices.IndexFunc(rows, func(r row) bool { return r.subject() != nil && r.key.session == old.key.session })
	}
	if at < 0 {
		ghost := *old
		ghost.gone = true
		at = min(l.cursor, len(rows))
		rows = slices.Insert(rows, at, ghost)
	}
	l.offset += at - l.cursor
	l.rows, l.cursor = rows, at
}

// update shows what is new about the rows, without moving any, and marks those that are
// not in the newest rows.
func (l *list) update(rows []row) {
	index := make(map[rowKey]int, len(rows))
	for i := range rows {
		index[rows[i].key] = i
	}
	for i := range l.rows {
		r := &l.rows[i]
		if r.isTitle() {
			continue
		}
		at, ok := index[r.key]
		if !ok {
			r.gone = true
			continue
		}
		prefix := r.prefix
		*r = rows[at]
		r.prefix = prefix
	}
}

// move selects another row, which is not a title, and forgets a selected row that is gone.
func (l *list) move(by int) {
	if old := l.selected(); by != 0 && old != nil && old.gone {
		l.rows = slices.Delete(l.rows, l.cursor, l.cursor+1)
		if by > 0 {
			by--
		}
	}
	l.cursor = max(min(l.cursor+by, len(l.rows)-1), 0)
	step := 1
	if by < 0 {
		step = -1
	}
	for range 2 { // in the other direction if there is none
		for i := l.cursor; i >= 0 && i < len(l.rows); i += step {
			if !l.rows[i].isTitle() {
				l.cursor = i
				return
			}
		}
		step = -step
	}
}

// show returns the rows that fit a height, and scrolls so that the selected one is among
// them.
func (l *list) show(height int) (rows []row, first int) {
	first = min(l.offset, l.cursor)
	first = max(first, l.cursor-height+1)
	first = max(min(first, len(l.rows)-height), 0)
	return l.rows[first:min(first+height, len(l.rows))], first
}
