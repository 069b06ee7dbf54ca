package top

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// details returns what is known about the selected row, in lines of a width.
func (m *model) details(width int) []line {
	r := m.list().selected()
	d := m.db()
	if r == nil || r.subject() == nil || d.picture == nil {
		return m.hints(width)
	}
	s := r.subject()
	var lines []line
	add := func(color, text string) {
		for _, part := range wrap(m.clean(text), width) {
			lines = append(lines, line{{color, part}})
		}
	}
	add(render.Bold, strings.TrimSpace(strings.TrimSpace(render.OwnerText(s))+"  "+s.Client+render.ApplicationText(s)))
	if r.gone || r.incident != nil && d.picture.find(r.key.session) == nil {
		add(render.Red, m.goneText(r))
		return lines
	}
	if state := strings.TrimSpace(render.State(s)); state != "" {
		add("", state+", "+written(s))
	}
	if s.Prepared != nil {
		add(render.Yellow, "no signal ends it: "+s.Prepared.Remedy()+"; or COMMIT PREPARED, in database "+s.Prepared.Database)
	}
	if r.tree != nil && r.tree.Pair != nil {
		add(render.Yellow, "waits "+render.WaitText(r.tree.Pair)+render.BlockText(r.tree.Pair, r.above))
	}
	blocks := d.picture.blockedBy(s)
	if len(blocks) > 0 {
		add("", d.picture.frees([]inspect.Victim{{Session: s}})+" (if it ends)")
	}
	if s.Query != "" {
		label := "query"
		if s.State != "active" {
			label = "last statement, perhaps not the one that locked"
		}
		add(render.Dim, label+":")
		const most = 4
		query := wrap(m.clean(s.Query), width-2)
		if len(query) > most && m.page != detailsPage {
			query = append(query[:most-1], m.char("…", "..."))
		}
		for _, part := range query {
			lines = append(lines, line{{"", "  " + part}})
		}
	}
	return append(lines, m.heldLines(s, blocks)...)
}

// heldLines lists the locks that a session holds, those that block others first.
func (m *model) heldLines(s *inspect.Session, blocks []*inspect.Pair) []line {
	const most = 50
	waiters := map[lockKey][]string{}
	for _, p := range blocks {
		if p.Held != nil && p.Held.PID == s.PID {
			k := keyOfLock(p.Held)
			waiters[k] = append(waiters[k], render.SessionName(p.Session))
		}
	}
	var first, rest []line
	key := keyOf(s)
	p := m.db().picture
	for i := range p.Locks {
		l := &p.Locks[i]
		if l.PID != key.pid || !l.Granted || keyOf(l.Session) != key || l.Type == "virtualxid" || l.Type == "transactionid" {
			continue
		}
		text := line{{"", "  " + l.Mode + " on " + l.Target()}}
		if w := waiters[keyOfLock(l)]; len(w) > 0 {
			more := ""
			if len(w) > 1 {
				more = fmt.Sprintf(" and %d more", len(w)-1)
			}
			first = append(first, append(text, span{render.Yellow, "  " + m.char("←", "<-") + " blocks " + w[0] + more}))
		} else if len(rest) < most {
			rest = append(rest, text)
		}
	}
	if len(first)+len(rest) == 0 {
		return nil
	}
	return slices.Concat([]line{{{render.Dim, "holds:"}}}, first, rest)
}

// hints returns advice if no session is selected.
func (m *model) hints(width int) []line {
	p := m.db().picture
	var lines []line
	if p == nil {
		return nil
	}
	for _, grant := range p.Server.Grants() {
		for _, part := range wrap("a superuser can let this role see or end more: "+m.clean(grant)+";", width) {
			lines = append(lines, line{{render.Dim, part}})
		}
	}
	return lines
}
