package top

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

// helpLines returns the page of all keys.
func (m *model) helpLines() []line {
	var lines []line
	for _, h := range [][2]string{
		{"up down, j k", "select a session; page up and down, home, end"},
		{"left right", "close and open what is behind a session"},
		{"enter", "details, or show what was folded"},
		{"tab, 1 to 5", "tree, pairs, locks, sessions, the last 15 minutes"},
		{"t", "terminate the session, after a question"},
		{"c", "cancel its statement, after a question"},
		{"space", "mark sessions, to end several; esc unmarks"},
		{"/", "filter, as -f has it: wait_duration > 5s; esc removes"},
		{"o", "only what is about a table"},
		{"r", "order the rows now, not after two seconds"},
		{"p", "pause reading"},
		{"+ -", "read more or less often"},
		{"y", "copy the query to the terminal's clipboard"},
		{"w", "write the trees as JSON into a file"},
		{"d", "choose a database, if there are several"},
		{"L", "what was ended, by whom, when"},
		{"q, ctrl-c", "quit; ctrl-z suspends"},
		{"", ""},
		{"marks", "! root  ~ only queued (soft)  ? hidden  @ in a cycle  * marked  [+3] closed"},
	} {
		lines = append(lines, line{{render.Bold, fmt.Sprintf("%-14s", h[0])}, {"", h[1]}})
	}
	return lines
}

// logLines returns what was done, the newest first.
func (m *model) logLines() []line {
	if len(m.log) == 0 {
		return []line{{{render.Dim, "nothing was ended so far"}}}
	}
	var lines []line
	for _, e := range slices.Backward(m.log) {
		for i, part := range wrap(m.clean(e.text), m.width-12) {
			head := e.at.Local().Format("15:04:05") + "  "
			if i > 0 {
				head = strings.Repeat(" ", len(head))
			}
			lines = append(lines, line{{render.Dim, head}, {"", part}})
		}
	}
	return lines
}

// databaseLines returns a line for each database.
func (m *model) databaseLines() []string {
	var lines []string
	for i, d := range m.databases {
		cursor := "  "
		if i == m.picked {
			cursor = "> "
		}
		text := line{{"", cursor}, {render.Bold, d.Name}, {"", "  " + d.Where}}
		switch {
		case d.lost():
			text = append(text, span{render.Red, "  " + m.describe(d.frame.Err)})
		case d.picture == nil:
			text = append(text, span{render.Dim, "  connecting"})
		case len(d.picture.all) == 0:
			text = append(text, span{"", "  nobody waits"})
		default:
			waiting := 0
			for _, t := range d.picture.all {
				waiting += t.Behind
			}
			text = append(text, span{render.Yellow, fmt.Sprintf("  waiting %d, longest %s", waiting, render.Duration(d.longest()))})
		}
		if i == m.picked {
			lines = append(lines, m.highlighted(text, m.width))
		} else {
			lines = append(lines, m.draw(text, m.width))
		}
	}
	return lines
}
