package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
)

// table is locks as rows and attributes as columns.
type table struct {
	columns []inspect.Attribute
	rows    []row
}

type row struct {
	values  []any
	waiting bool
}

// newTable has the columns that names say, of all attributes there are.
func newTable(attributes []inspect.Attribute, names []string) *table {
	t := &table{}
	for _, name := range names {
		for _, a := range attributes {
			if a.Name == name {
				t.columns = append(t.columns, a)
			}
		}
	}
	return t
}

func (t *table) add(l *inspect.Lock) {
	r := row{waiting: !l.Granted}
	for _, a := range t.columns {
		r.values = append(r.values, a.Value(l))
	}
	t.rows = append(t.rows, r)
}

// writeTSV writes lines with tabs, under a line of names.
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

// machineText is a value as scripts like it: seconds, RFC 3339, no line breaks.
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
		text, _ := json.Marshal(v) // of strings, which cannot fail
		return printable(string(text))
	}
	return fmt.Sprint(value)
}

// humanText is a value as people like it.
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

// The few colours: names are bold, and so is a row that waits, in yellow.
const (
	bold   = "\x1b[1m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// writeAligned writes a table as wide as the terminal, or as needed when that is
// not known (0): the last column is cut.
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
	w := bufio.NewWriter(out)
	for n, line := range lines {
		var b strings.Builder
		for i, cell := range line {
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

// writeJSON writes an array of objects, one for each lock, which have all
// attributes, null where there is none.
func writeJSON(out io.Writer, attributes []inspect.Attribute, locks []inspect.Lock) error {
	w := bufio.NewWriter(out)
	w.WriteString("[")
	for i := range locks {
		if i > 0 {
			w.WriteString(",")
		}
		w.WriteString("\n  {")
		for j, a := range attributes {
			if j > 0 {
				w.WriteString(", ")
			}
			value, err := jsonValue(a.Value(&locks[i]))
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%q: %s", a.Name, value)
		}
		w.WriteString("}")
	}
	if len(locks) > 0 {
		w.WriteString("\n")
	}
	w.WriteString("]\n")
	return w.Flush()
}

// jsonValue is a value in JSON that is safe to show on a terminal: encoding/json
// leaves control characters from U+007F on as they are.
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
	var safe bytes.Buffer
	for _, r := range strings.TrimSuffix(buffer.String(), "\n") {
		switch {
		case !isUnprintable(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return safe.Bytes(), nil
}
