package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

// A line is a line of the screen in several colors.
type line []span

// A span is a part of it in one color.
type span struct{ color, text string }

// cells returns how many columns a text takes. Escape sequences take none.
func cells(text string) int { return ansi.StringWidthWc(text) }

// cut cuts a text to a width.
func (s Style) cut(text string, width int) string {
	if cells(text) <= width {
		return text
	}
	tail := "…"
	if s.ASCII {
		tail = "..."
	}
	if width < len(tail) && s.ASCII {
		tail = ""
	}
	return ansi.TruncateWc(text, width, tail)
}

// paint returns text in a color, if there are colors.
func (s Style) paint(color, text string) string {
	if !s.Color {
		return text
	}
	return render.Paint(color, text)
}

// dimmed returns a line that was drawn, without its colors and dim.
func (s Style) dimmed(text string) string { return s.paint(render.Dim, ansi.Strip(text)) }

// pad fills a line that was drawn up to a width.
func (s Style) pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-cells(text), 0))
}

// draw draws a line, cut to a width. Its text is made safe.
func (s Style) draw(l line, width int) string {
	var b strings.Builder
	left := width
	for _, part := range l {
		if left <= 0 {
			break
		}
		text := s.safe(part.text)
		n := cells(text)
		if n > left {
			text = s.cut(text, left)
			n = left
		}
		left -= n
		b.WriteString(s.paint(part.color, text))
	}
	return b.String()
}

// safe makes a part of a line safe, and keeps the spaces at its ends.
func (s Style) safe(text string) string {
	inner := strings.Trim(text, " ")
	if inner == "" {
		return text
	}
	at := strings.Index(text, inner)
	return text[:at] + s.clean(inner) + text[at+len(inner):]
}

// highlighted draws a selected line over the whole width.
func (s Style) highlighted(l line, width int) string {
	if !s.Color {
		return s.draw(l, width)
	}
	plain := Style{ASCII: s.ASCII}
	return render.Paint(reverse, s.pad(plain.draw(l, width), width))
}

// reverse swaps the colors of text and background.
const reverse = "\x1b[7m"

// apart draws one line at the left and one at the right, of which the right one is never
// cut.
func (s Style) apart(left, right line, width int) string {
	end := s.draw(right, width)
	room := max(width-cells(end), 0)
	return s.pad(s.draw(left, room), room) + end
}

// wrap breaks text between words into lines of at most a width, and longer words anywhere.
func wrap(text string, width int) []string {
	width = max(width, 1)
	var lines []string
	current := ""
	for _, word := range strings.Fields(text) {
		for cells(word) > width {
			if current != "" {
				lines, current = append(lines, current), ""
			}
			head := ansi.TruncateWc(word, width, "")
			if head == "" { // a wide character in one column
				head = word[:1]
			}
			lines, word = append(lines, head), word[len(head):]
		}
		switch {
		case current == "":
			current = word
		case cells(current)+1+cells(word) > width:
			lines, current = append(lines, current), word
		default:
			current += " " + word
		}
	}
	if current != "" || len(lines) == 0 {
		lines = append(lines, current)
	}
	return lines
}
