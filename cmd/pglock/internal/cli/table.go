package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A table has attributes as columns.
type table struct {
	columns []inspect.Attribute
	rows    []row
}

type row struct {
	values  []any
	waiting bool
}

// add adds a row, with the result of value for each column.
func (t *table) add(waiting bool, value func(inspect.Attribute) any) {
	r := row{waiting: waiting}
	for _, a := range t.columns {
		r.values = append(r.values, value(a))
	}
	t.rows = append(t.rows, r)
}

// write writes the table in a format.
func (t *table) write(out io.Writer, f format) error {
	switch {
	case f.name == "json":
		return t.writeJSON(out)
	case f.name == "csv":
		return t.writeCSV(out)
	case f.expanded:
		return t.writeExpanded(out, f.color)
	case f.name == "tsv":
		return t.writeTSV(out)
	}
	return t.writeAligned(out, f.width, f.color)
}

// A format is how a table is written.
type format struct {
	name     string // table, tsv, csv or json
	expanded bool
	width    int // of the terminal, 0 if unknown
	color    bool
}

// writeTSV writes tab-separated lines under a header.
func (t *table) writeTSV(out io.Writer) error {
	w := bufio.NewWriter(out)
	var cells []string
	for _, a := range t.columns {
		cells = append(cells, a.Name)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for _, r := range t.rows {
		cells = cells[:0]
		for _, v := range r.values {
			cells = append(cells, machineText(v))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// writeCSV writes CSV (RFC 4180) with a header. It keeps line breaks in text.
func (t *table) writeCSV(out io.Writer) error {
	w := csv.NewWriter(out)
	var cells []string
	for _, a := range t.columns {
		cells = append(cells, a.Name)
	}
	_ = w.Write(cells) // the error comes from Flush
	for _, r := range t.rows {
		cells = cells[:0]
		for _, v := range r.values {
			if text, ok := v.(string); ok {
				cells = append(cells, termtext.Lines(text))
			} else {
				cells = append(cells, machineText(v))
			}
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return w.Error()
}

// writeExpanded writes each attribute on its own line, in full.
func (t *table) writeExpanded(out io.Writer, color bool) error {
	w := bufio.NewWriter(out)
	widest := 0
	for _, a := range t.columns {
		widest = max(widest, len(a.Name))
	}
	paint := func(style, text string) string {
		if !color {
			return text
		}
		return style + text + reset
	}
	for i, r := range t.rows {
		fmt.Fprintln(w, paint(bold, fmt.Sprintf("-[ %d ]%s", i+1, strings.Repeat("-", 30))))
		for j, a := range t.columns {
			text := humanText(r.values[j])
			if s, ok := r.values[j].(string); ok {
				text = strings.ReplaceAll(termtext.Lines(strings.TrimSpace(s)), "\n", "\n"+strings.Repeat(" ", widest)+" | ")
			}
			name := a.Name + strings.Repeat(" ", widest-len(a.Name))
			if r.waiting && (a.Name == "granted" || strings.HasPrefix(a.Name, "wait_")) {
				text = paint(yellow, text)
			}
			fmt.Fprintln(w, strings.TrimRight(paint(bold, name)+" | "+text, " "))
		}
	}
	return w.Flush()
}

// machineText formats a value for scripts: seconds, RFC 3339, no line breaks.
func machineText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return printable(v)
	case time.Duration:
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case map[string]string:
		text, _ := json.Marshal(v) // a map of strings cannot fail
		return printable(string(text))
	}
	return fmt.Sprint(value)
}

// humanText formats a value for people.
func humanText(value any) string {
	switch v := value.(type) {
	case time.Duration:
		return shortDuration(v)
	case time.Time:
		return v.Local().Format("2006-01-02 15:04:05")
	case bool:
		if v {
			return "yes"
		}
		return "no"
	}
	return machineText(value)
}

// The colors: headers are bold, waiting rows are yellow.
const (
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// writeAligned writes a table that fits width, or any width if that is 0. It narrows
// columns of long text first, and then cuts lines.
func (t *table) writeAligned(out io.Writer, width int, color bool) error {
	const gap = 2
	lines := [][]string{nil}
	for _, a := range t.columns {
		lines[0] = append(lines[0], a.Name)
	}
	for _, r := range t.rows {
		var line []string
		for _, v := range r.values {
			line = append(line, humanText(v))
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(t.columns))
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
			if runes := []rune(cell); len(runes) > widths[i] {
				cell = string(runes[:widths[i]-1]) + "…"
			}
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		text := strings.TrimRight(b.String(), " ")
		if runes := []rune(text); width > 1 && len(runes) > width {
			text = string(runes[:width-1]) + "…"
		}
		switch {
		case color && n == 0:
			text = bold + text + reset
		case color && t.rows[n-1].waiting:
			text = yellow + text + reset
		}
		fmt.Fprintln(w, text)
	}
	return w.Flush()
}

// fit narrows the widest columns of long text until the table fits: queries and contexts
// first, since their beginnings matter most, and names last. Names are narrowed too, so
// that a long one cannot push the other columns out of sight.
func (t *table) fit(widths []int, width, gap int) {
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
			for i, a := range t.columns {
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
func (t *table) writeJSON(out io.Writer) error {
	var objects []jsonObject
	for _, r := range t.rows {
		var o jsonObject
		for i, a := range t.columns {
			o.add(a.Name, r.values[i])
		}
		objects = append(objects, o)
	}
	return writeJSONList(out, objects)
}

// A jsonObject is a JSON object whose members are ordered.
type jsonObject []jsonMember

type jsonMember struct {
	name  string
	value any
}

func (o *jsonObject) add(name string, value any) { *o = append(*o, jsonMember{name, value}) }

// writeJSONList writes an array with an object on each line.
func writeJSONList(out io.Writer, objects []jsonObject) error {
	w := bufio.NewWriter(out)
	w.WriteString("[")
	for i, o := range objects {
		if i > 0 {
			w.WriteString(",")
		}
		w.WriteString("\n  ")
		if err := o.write(w, "  "); err != nil {
			return err
		}
	}
	if len(objects) > 0 {
		w.WriteString("\n")
	}
	w.WriteString("]\n")
	return w.Flush()
}

func (o jsonObject) write(w *bufio.Writer, indent string) error {
	w.WriteString("{")
	for i, m := range o {
		if i > 0 {
			w.WriteString(", ")
		}
		fmt.Fprintf(w, "%q: ", m.name)
		switch v := m.value.(type) {
		case jsonObject:
			if err := v.write(w, indent); err != nil {
				return err
			}
		case []jsonObject:
			w.WriteString("[")
			for i, o := range v {
				if i > 0 {
					w.WriteString(",")
				}
				w.WriteString("\n" + indent + "  ")
				if err := o.write(w, indent+"  "); err != nil {
					return err
				}
			}
			w.WriteString("]")
		default:
			text, err := jsonValue(v)
			if err != nil {
				return err
			}
			w.Write(text)
		}
	}
	w.WriteString("}")
	return nil
}

// jsonValue encodes a value as JSON that is safe to show on a terminal: encoding/json
// does not escape control characters from U+007F on.
func jsonValue(value any) ([]byte, error) {
	if d, ok := value.(time.Duration); ok {
		value = d.Seconds()
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return []byte(safeJSON(strings.TrimSuffix(buffer.String(), "\n"))), nil
}

// safeJSON escapes characters that a terminal might interpret. In JSON they occur only
// in strings.
func safeJSON(text string) string {
	var safe strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || termtext.Shows(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return safe.String()
}

// printJSON writes a value as indented JSON.
func printJSON(out io.Writer, value any) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(out, safeJSON(buffer.String()))
	return err
}
