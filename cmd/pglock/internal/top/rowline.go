package top

import (
	"fmt"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// rowLine draws a row.
func (m *model) rowLine(r *row, selected bool, width int) string {
	cursor := "  "
	if selected {
		cursor = "> "
	}
	if r.subject() != nil && m.db().marked[r.key.session] {
		cursor = cursor[:1] + "*"
	}
	text := line{{"", cursor}}
	switch {
	case r.isTitle():
		text = line{{render.Bold, r.key.title}}
	case r.gone:
		text = append(text, span{render.Dim, r.prefix}, span{render.Dim, m.goneText(r)})
	case r.tree != nil:
		text = append(text, m.treeLine(r, width)...)
	case r.pair != nil:
		text = append(text, pairLine(r.pair)...)
	case r.lock != nil:
		text = append(text, lockLine(r.lock)...)
	case r.session != nil:
		text = append(text, sessionLine(r.session)...)
	case r.incident != nil:
		text = append(text, incidentLine(r.incident)...)
	default:
		text = append(text, span{render.Dim, r.prefix},
			span{render.Dim, fmt.Sprintf("%s %d more like these (enter shows them)", m.char("…", "..."), r.fold)})
	}
	if selected {
		return m.highlighted(text, width)
	}
	return m.draw(text, width)
}

// goneText describes a row that the newest picture does not have.
func (m *model) goneText(r *row) string {
	s := r.subject()
	switch {
	case s == nil:
		return "gone"
	case m.db().picture.find(r.key.session) != nil:
		return render.Session(s) + " is no longer here"
	}
	return render.Session(s) + " is gone"
}

// maxPrefix is how much of a line the lines of a tree may take, as one part of this many.
const maxPrefix = 3

// treeLine returns a session of a tree. Its mark tells what its color tells.
func (m *model) treeLine(r *row, width int) line {
	t := r.tree
	prefix := r.prefix
	if cells(prefix) > width/maxPrefix { // too deep to be drawn
		prefix = fmt.Sprintf("%s%d ", m.char("…", "..."), t.Depth)
	}
	mark := span{"", "  "}
	switch {
	case t.Cycle:
		mark = span{render.Red, "@ "}
	case t.Pair == nil:
		mark = span{render.Red, "! "}
	case t.Hidden:
		mark = span{render.Dim, "? "}
	case !t.Pair.Hard:
		mark = span{"", "~ "}
	}
	text := line{{render.Dim, prefix}, mark}
	if r.fold > 0 {
		text = append(text, span{render.Dim, fmt.Sprintf("[+%d] ", r.fold)})
	}
	for i, part := range render.Title(t, r.above) {
		if i == 1 && width < roomyWidth {
			continue // its application, so that what it waits for has room
		}
		text = append(text, span{part.Color, part.Text})
	}
	return text
}

func pairLine(p *inspect.Pair) line {
	return line{
		{render.Yellow, render.SessionName(p.Session)},
		{"", render.ApplicationText(p.Session)},
		{render.Yellow, "  waits " + render.WaitText(p)},
		{"", "  for "},
		{render.Bold, render.SessionName(p.Blocking)},
		{"", render.ApplicationText(p.Blocking)},
		{"", render.State(p.Blocking)},
		{"", render.BlockText(p, "it")},
	}
}

func lockLine(l *inspect.Lock) line {
	text := line{{"", fmt.Sprintf("%-12s", render.SessionName(l.Session))}}
	if l.Granted {
		text = append(text, span{"", "holds "})
	} else {
		text = append(text, span{render.Yellow, "waits " + render.Duration(l.WaitDuration) + " for "})
	}
	return append(text, span{"", l.Mode + " on "}, span{render.Bold, l.Target()},
		span{"", render.ApplicationText(l.Session) + render.State(l.Session)})
}

func sessionLine(s *inspect.Session) line {
	text := line{{render.Bold, fmt.Sprintf("%-12s", render.SessionName(s))}, {"", render.ApplicationText(s)}, {"", render.State(s)}}
	if s.BackendXID != 0 {
		text = append(text, span{render.Yellow, fmt.Sprintf("  transaction ID %d", s.BackendXID)})
	}
	if s.XminAge > 0 {
		text = append(text, span{"", fmt.Sprintf("  xmin %d back", s.XminAge)})
	}
	return append(text, span{"", render.OwnerText(s)}, span{render.Dim, "  " + s.Query})
}

func incidentLine(i *incident) line {
	until := "now     "
	color := render.Yellow
	if !i.open {
		until, color = i.seen.Local().Format("15:04:05"), ""
	}
	return line{
		{color, i.began.Local().Format("15:04:05") + " to " + until},
		{"", fmt.Sprintf("  %-6s", render.Duration(i.seen.Sub(i.began)))},
		{render.Bold, "  " + render.SessionName(i.root)},
		{"", fmt.Sprintf("  up to %d waiting, %s in all", i.peak, render.Duration(i.waited()))},
		{"", "  on " + i.target},
		{"", render.ApplicationText(i.root)},
		{"", "  the longest " + render.Duration(i.longest)},
	}
}
