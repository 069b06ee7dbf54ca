package render

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A Table has attributes as columns, and a row for each lock, session, pair or outcome.
type Table struct {
	Columns []inspect.Attribute
	Format  Format

	// Database is the name of the database of the rows that are added next, for
	// AddDatabaseName.
	Database string

	rows []row
}

// DatabaseName is the column, and the name in JSON, that lists from several databases
// have: the name of the database in -d or in the config file.
const DatabaseName = "database_name"

// AddDatabaseName adds the column DatabaseName in front.
func (t *Table) AddDatabaseName() {
	t.Columns = append([]inspect.Attribute{{Name: DatabaseName}}, t.Columns...)
}

// A Format is how a table is written.
type Format struct {
	Name     string // table, tsv, csv or json
	Expanded bool   // each attribute on its own line, in table and tsv
	Width    int    // of the terminal, 0 if unknown
	Color    bool
}

// IsMachine reports whether the format is only for programs.
func (f Format) IsMachine() bool { return f.Name == "json" || f.Name == "csv" }

type row struct {
	values  []any
	waiting bool
}

// AddLock adds a row for a lock.
func (t *Table) AddLock(l *inspect.Lock) {
	t.add(!l.Granted, func(a inspect.Attribute) any {
		switch {
		case t.Format.IsMachine():
		case a.Name == "relation" && l.Relation == "":
			return l.Target() // always show people what is locked
		case a.Name == "application":
			return Application(l.Session)
		}
		return a.Value(l)
	})
}

// AddSession adds a row for a session.
func (t *Table) AddSession(s *inspect.Session) {
	t.add(s.WaitEventType == "Lock", func(a inspect.Attribute) any {
		if a.Name == "application" && !t.Format.IsMachine() {
			return Application(s)
		}
		return a.Value(&inspect.Lock{Session: s})
	})
}

// AddPair adds a row for a waiting session and one that blocks it.
func (t *Table) AddPair(p *inspect.Pair) {
	t.add(true, func(a inspect.Attribute) any {
		switch {
		case t.Format.IsMachine():
		case a.Name == "application":
			return Application(p.Session)
		case a.Name == "blocking_application":
			return Application(p.Blocking)
		}
		return a.PairValue(p)
	})
}

// add adds a row, with the result of value for each column.
func (t *Table) add(waiting bool, value func(inspect.Attribute) any) {
	r := row{waiting: waiting}
	for _, a := range t.Columns {
		if a.Name == DatabaseName {
			r.values = append(r.values, t.Database)
			continue
		}
		r.values = append(r.values, value(a))
	}
	t.rows = append(t.rows, r)
}

// Write writes the table in its format.
func (t *Table) Write(out io.Writer) error {
	switch f := t.Format; {
	case f.Name == "json":
		return t.writeJSON(out)
	case f.Name == "csv":
		return t.writeCSV(out)
	case f.Expanded:
		return t.writeExpanded(out, f.Color)
	case f.Name == "tsv":
		return t.writeTSV(out)
	default:
		return t.writeAligned(out, f.Width, f.Color)
	}
}

// writeTSV writes tab-separated lines under a header.
func (t *Table) writeTSV(out io.Writer) error {
	w := bufio.NewWriter(out)
	var cells []string
	for _, a := range t.Columns {
		cells = append(cells, a.Name)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for _, r := range t.rows {
		cells = cells[:0]
		for _, v := range r.values {
			cells = append(cells, machine(v))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// writeCSV writes CSV (RFC 4180) with a header. It keeps line breaks in text.
func (t *Table) writeCSV(out io.Writer) error {
	w := csv.NewWriter(out)
	var cells []string
	for _, a := range t.Columns {
		cells = append(cells, a.Name)
	}
	_ = w.Write(cells) // the error comes from Flush
	for _, r := range t.rows {
		cells = cells[:0]
		for _, v := range r.values {
			if text, ok := v.(string); ok {
				cells = append(cells, termtext.Lines(text))
			} else {
				cells = append(cells, machine(v))
			}
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return w.Error()
}

// writeExpanded writes each attribute on its own line, in full.
func (t *Table) writeExpanded(out io.Writer, color bool) error {
	w := bufio.NewWriter(out)
	widest := 0
	for _, a := range t.Columns {
		widest = max(widest, len(a.Name))
	}
	paint := func(style, text string) string {
		if !color {
			return text
		}
		return Paint(style, text)
	}
	for i, r := range t.rows {
		fmt.Fprintln(w, paint(Bold, fmt.Sprintf("-[ %d ]%s", i+1, strings.Repeat("-", 30))))
		for j, a := range t.Columns {
			text := human(r.values[j])
			if s, ok := r.values[j].(string); ok {
				text = strings.ReplaceAll(termtext.Lines(strings.TrimSpace(s)), "\n", "\n"+strings.Repeat(" ", widest)+" | ")
			}
			name := a.Name + strings.Repeat(" ", widest-len(a.Name))
			if r.waiting && (a.Name == "granted" || strings.HasPrefix(a.Name, "wait_")) {
				text = paint(Yellow, text)
			}
			fmt.Fprintln(w, strings.TrimRight(paint(Bold, name)+" | "+text, " "))
		}
	}
	return w.Flush()
}

// writeAligned writes a table that fits width, or any width if that is 0. It narrows
// columns of long text first, and then cuts lines.
func (t *Table) writeAligned(out io.Writer, width int, color bool) error {
	const gap = 2
	lines := [][]string{nil}
	for _, a := range t.Columns {
		lines[0] = append(lines[0], a.Name)
	}
	for _, r := range t.rows {
		var line []string
		for _, v := range r.values {
			line = append(line, human(v))
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(t.Columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	t.fit(widths, width, gap)
	w := bufio.NewWriter(out)
	for n, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			cell = termtext.Cut(cell, widths[i])
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		text := strings.TrimRight(b.String(), " ")
		if width > 1 {
			text = termtext.Cut(text, width)
		}
		switch {
		case color && n == 0:
			text = Paint(Bold, text)
		case color && t.rows[n-1].waiting:
			text = Paint(Yellow, text)
		}
		fmt.Fprintln(w, text)
	}
	return w.Flush()
}

// fit narrows the widest columns of long text until the table fits: queries and contexts
// first, since their beginnings matter most, and names last. Names are narrowed too, so
// that a long one cannot push the other columns out of sight.
func (t *Table) fit(widths []int, width, gap int) {
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for _, give := range []struct {
		names []string
		min   int
	}{
		{[]string{"query", "context"}, 24},
		{[]string{"query", "context", "outcome"}, 16},
		{[]string{"query", "context", "outcome", "application"}, 12},
		{[]string{"query", "context", "outcome", "application", "target", "relation"}, 8},
		{[]string{"query", "context", "outcome", "application", "target", "relation", "user", "database", "schema", "key", "client"}, 8},
	} {
		for ; width > 0 && total > width; total-- {
			widest := -1
			for i, a := range t.Columns {
				gives := slices.Contains(give.names, strings.TrimPrefix(a.Name, "blocking_"))
				if gives && widths[i] > give.min && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
}

// writeJSON writes an array with an object for each row. Every object has all columns,
// with null for missing values.
func (t *Table) writeJSON(out io.Writer) error {
	var objects []Object
	for _, r := range t.rows {
		var o Object
		for i, a := range t.Columns {
			o.Add(a.Name, r.values[i])
		}
		objects = append(objects, o)
	}
	return WriteObjects(out, objects)
}
