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

	// Default is whether the columns are the defaults. The aligned form then leaves out
	// those that would be empty, and kind and context where the query had too little room.
	Default bool

	// SearchPath has the schemas whose relations people see without a schema, in the rows
	// that are added next. nil stands for all.
	SearchPath []string

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
		case a.Name == "relation" && t.qualifies(l.Schema):
			return l.Schema + "." + l.Relation
		case a.Name == "application":
			return Application(l.Session)
		}
		return a.Value(l)
	})
}

// ShowsSchemas reports whether relations of schemas that are not in SearchPath are shown
// with them: to people, unless the schema has a column of its own. Programs that read tsv
// get the bare name.
func (t *Table) ShowsSchemas() bool {
	return !t.Format.IsMachine() && (t.Format.Name == "table" || t.Format.Expanded) &&
		!slices.ContainsFunc(t.Columns, func(a inspect.Attribute) bool { return a.Name == "schema" })
}

// qualifies reports whether relations of a schema are shown with it.
func (t *Table) qualifies(schema string) bool {
	return schema != "" && t.SearchPath != nil && !slices.Contains(t.SearchPath, schema) && t.ShowsSchemas()
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

// gap is the space between two columns.
const gap = 2

// writeAligned writes a table that fits width, or any width if that is 0. It narrows
// columns of long text first, and then cuts lines.
func (t *Table) writeAligned(out io.Writer, width int, color bool) error {
	names, lines := t.cells()
	widths := fit(names, lines, width)
	for _, name := range []string{"kind", "context"} {
		i, query := slices.Index(names, name), slices.Index(names, "query")
		if t.Default && i >= 0 && query >= 0 && widths[query] < min(12, widest(lines, query)) {
			names, lines = without(names, lines, i)
			widths = fit(names, lines, width)
		}
	}
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

// cells returns the names of the columns, and the header and the rows as text. Of default
// columns it leaves out those without text.
func (t *Table) cells() (names []string, lines [][]string) {
	for _, a := range t.Columns {
		names = append(names, a.Name)
	}
	lines = [][]string{slices.Clone(names)}
	for _, r := range t.rows {
		var line []string
		for _, v := range r.values {
			line = append(line, human(v))
		}
		lines = append(lines, line)
	}
	for i := len(names) - 1; i >= 0 && t.Default; i-- {
		if widest(lines[1:], i) == 0 {
			names, lines = without(names, lines, i)
		}
	}
	return names, lines
}

// without returns the table without the column i.
func without(names []string, lines [][]string, i int) ([]string, [][]string) {
	for n, line := range lines {
		lines[n] = slices.Delete(line, i, i+1)
	}
	return slices.Delete(names, i, i+1), lines
}

// widest returns the width of the longest text in column i.
func widest(lines [][]string, i int) int {
	width := 0
	for _, line := range lines {
		width = max(width, utf8.RuneCountInString(line[i]))
	}
	return width
}

// fit returns the widths of the columns. If the table does not fit, the columns of long
// text give way: contexts first, since a query tells more, and names last. They do give
// way, so that a long one cannot push the other columns out of sight.
func fit(names []string, lines [][]string, width int) []int {
	widths := make([]int, len(names))
	total := gap * (len(names) - 1)
	for i := range names {
		widths[i] = widest(lines, i)
		total += widths[i]
	}
	for _, give := range []struct {
		names []string
		min   int
	}{
		{[]string{"context"}, 24},
		{[]string{"query"}, 40},
		{[]string{"context"}, 16},
		{[]string{"outcome", "application"}, 24},
		{[]string{"query"}, 24},
		{[]string{"outcome", "application"}, 16},
		{[]string{"relation", "target"}, 28},
		{[]string{"context"}, 12},
		{[]string{"query"}, 20},
		{[]string{"relation", "target"}, 20},
		{[]string{"query"}, 16},
		{[]string{"relation", "target"}, 16},
		{[]string{"query", "context", "outcome", "application"}, 12},
		{[]string{"query", "context", "outcome", "application", "target", "relation", "user", "database", "schema", "key", "client", "client_hostname", "lease", "program", "host", "note"}, 8},
	} {
		for ; width > 0 && total > width; total-- {
			widest := -1
			for i, name := range names {
				gives := slices.Contains(give.names, strings.TrimPrefix(name, "blocking_"))
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
	return widths
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
