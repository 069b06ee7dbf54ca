package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pglock-go/pglock/doctor"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A Diagnosis shows the findings of package doctor.
type Diagnosis struct {
	Width int // of the terminal; 0 for no limit
	Color bool
	ASCII bool // marks in ASCII
}

// A Report is the findings about a database, or about the command's surroundings, which
// have no title.
type Report struct {
	Database string // its name, if there are several
	Title    string
	Findings []doctor.Finding
}

// WriteTitle writes the title of a report, and whether it is empty.
func (d Diagnosis) WriteTitle(out io.Writer, r Report) {
	title := r.Title + ":"
	if len(r.Findings) == 0 {
		title += " no other findings"
	}
	fmt.Fprintln(out, d.paint(Bold, title))
}

// The column of the checks' names, and of the text beside it.
const (
	checkWidth = 10
	textIndent = 4 + checkWidth + 2
)

// minText is the narrowest column that text is broken for.
const minText = 24

// Write writes a line for each check, with its mark, and the findings in it. Advice is
// never broken, so that it can be copied. Its notes are comments of SQL or of the shell.
func (d Diagnosis) Write(out io.Writer, findings []doctor.Finding) error {
	var b strings.Builder
	for len(findings) > 0 {
		check := findings[0].Check
		n := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Check != check })
		if n < 0 {
			n = len(findings)
		}
		d.writeCheck(&b, findings[:n])
		findings = findings[n:]
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (d Diagnosis) writeCheck(b *strings.Builder, findings []doctor.Finding) {
	level := doctor.Report{Findings: findings}.Level()
	head := d.mark(level) + " " + fmt.Sprintf("%-*s", checkWidth+2, findings[0].Check)
	line := func(color, first, text string) {
		for i, part := range d.wrap(text, first) {
			if i > 0 {
				first = strings.Repeat(" ", utf8.RuneCountInString(first))
			}
			fmt.Fprintf(b, "%s%s%s\n", head, first, d.paint(color, part))
			head = strings.Repeat(" ", textIndent)
		}
	}
	var good []string
	for _, f := range findings {
		text := termtext.Line(f.Text)
		if f.Level == doctor.OK {
			good = append(good, text)
			continue
		}
		line("", "", text)
		comment := "# "
		if len(f.Advice) > 0 && strings.HasSuffix(f.Advice[0], ";") {
			comment = "-- "
		}
		if f.Note != "" {
			for _, part := range d.wrap(termtext.Line(f.Note), "  "+comment) {
				fmt.Fprintf(b, "%s  %s\n", head, d.paint(Dim, comment+part))
			}
		}
		for _, advice := range f.Advice {
			// Lines keeps the spaces in names.
			fmt.Fprintf(b, "%s  %s\n", head, d.paint(Bold, termtext.Lines(advice)))
		}
	}
	if len(good) > 0 {
		line(Dim, "", strings.Join(good, "; "))
	}
}

// mark returns the mark of a level, such as [✓], in its color.
func (d Diagnosis) mark(level doctor.Level) string {
	mark, color := "✓", Green
	switch level {
	case doctor.Warning:
		mark, color = "!", Yellow
	case doctor.Problem:
		mark, color = "✗", Red
	}
	if d.ASCII {
		mark = strings.NewReplacer("✓", "+", "✗", "x").Replace(mark)
	}
	return "[" + d.paint(color, mark) + "]"
}

func (d Diagnosis) paint(color, text string) string {
	if !d.Color {
		return text
	}
	return Paint(color, text)
}

// wrap breaks text between words, for the column beside the checks' names. first is what
// precedes it there.
func (d Diagnosis) wrap(text, first string) []string {
	width := d.Width - textIndent - utf8.RuneCountInString(first)
	if width < minText {
		return []string{text}
	}
	var lines []string
	var current string
	for _, word := range strings.Fields(text) {
		switch {
		case current == "":
			current = word
		case utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > width:
			lines, current = append(lines, current), word
		default:
			current += " " + word
		}
	}
	return append(lines, current)
}

// Findings returns how many findings are not OK, in words.
func Findings(findings []doctor.Finding) string {
	count := map[doctor.Level]int{}
	for _, f := range findings {
		count[f.Level]++
	}
	var parts []string
	if n := count[doctor.Problem]; n > 0 {
		parts = append(parts, Plural(n, "problem", "problems"))
	}
	if n := count[doctor.Warning]; n > 0 {
		parts = append(parts, Plural(n, "warning", "warnings"))
	}
	if len(parts) == 0 {
		return "nothing to mend"
	}
	return strings.Join(parts, ", ")
}

// WriteFindingsJSON writes findings in the format of docs/doctor.md. If they are about
// several databases, each has the name of its database.
func WriteFindingsJSON(out io.Writer, reports []Report, several bool) error {
	var objects []Object
	for _, r := range reports {
		for _, f := range r.Findings {
			var o Object
			if several {
				o.Add(DatabaseName, orNull(r.Database))
			}
			o.Add("check", f.Check)
			o.Add("id", f.ID)
			o.Add("level", string(f.Level))
			o.Add("text", f.Text)
			o.Add("advice", append([]string{}, f.Advice...))
			o.Add("note", orNull(f.Note))
			objects = append(objects, o)
		}
	}
	return WriteObjects(out, objects)
}
