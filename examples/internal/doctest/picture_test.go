//go:build unix

package doctest

import (
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var writePictures = flag.Bool("picture", false, "write the pictures of the README instead of comparing them")

// A theme is the color scheme of a picture. The colors are those of GitHub's pages.
type theme struct {
	name, background, border, text, faint string
	colors                                map[string]string // by the code in the escape sequence
}

var themes = []theme{
	{
		"light", "#f6f8fa", "#d0d7de", "#1f2328", "#59636e",
		map[string]string{"31": "#cf222e", "32": "#116329", "33": "#7d4e00", "34": "#0550ae", "35": "#8250df", "36": "#1b7c83"},
	},
	{
		"dark", "#0d1117", "#30363d", "#e6edf3", "#9198a1",
		map[string]string{"31": "#ff7b72", "32": "#3fb950", "33": "#d29922", "34": "#58a6ff", "35": "#bc8cff", "36": "#39c5cf"},
	},
}

// TestPicture draws pglock tree as a terminal shows it, on a server where a migration
// waits behind a forgotten transaction. The pictures in the repository must show the
// same, except for times and numbers. "make picture" writes them.
func TestPicture(t *testing.T) {
	t.Parallel()
	stage := newStage(t)
	s := stage.play(t, "shop")
	for i, kv := range s.env {
		if kv == "NO_COLOR=1" {
			s.env[i] = "NO_COLOR="
		}
		if kv == "TERM=dumb" {
			s.env[i] = "TERM=xterm-256color"
		}
	}
	if *writePictures {
		time.Sleep(12 * time.Second) // so that the times look realistic
	}
	s.run(t, "pglock tree", 0)
	shown := strings.ReplaceAll(s.raw, "\r\n", "\n")
	if !strings.Contains(shown, "\x1b[") {
		t.Fatalf("the output has no colors: %q", shown)
	}
	for _, l := range themes {
		path := filepath.Join(root, "docs", "pictures", "tree-"+l.name+".svg")
		svg := draw("$ pglock tree\n"+shown, l)
		if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
		if *writePictures {
			if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("make picture: %v", err)
		}
		if normalize(pictureText(string(old))) != normalize(pictureText(svg)) {
			t.Errorf("%s shows\n%s\nbut the command prints\n%s\nRun make picture.", path, pictureText(string(old)), pictureText(svg))
		}
	}
}

var (
	tag       = regexp.MustCompile(`<[^>]*>`)
	graphics  = regexp.MustCompile("\x1b\\[([0-9;]*)m")
	unescaper = strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&")
)

// pictureText returns the text in a picture.
func pictureText(svg string) string {
	_, body, _ := strings.Cut(svg, "</title>")
	return unescaper.Replace(tag.ReplaceAllString(body, ""))
}

const (
	charWidth  = 7.83 // of a 13 px monospaced character
	lineHeight = 19
	margin     = 16
)

// draw returns an SVG of a terminal's contents.
func draw(shown string, l theme) string {
	lines := strings.Split(strings.TrimRight(shown, "\n"), "\n")
	columns := 0
	for _, line := range lines {
		columns = max(columns, len([]rune(graphics.ReplaceAllString(line, ""))))
	}
	width, height := int(float64(columns)*charWidth)+2*margin, len(lines)*lineHeight+2*margin-4
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", width, height)
	b.WriteString("<title>pglock tree: who waits for whom</title>\n")
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" fill="%s" stroke="%s"/>`+"\n", width-1, height-1, l.background, l.border)
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="13" fill="%s" xml:space="preserve">`+"\n", l.text)
	var codes []string
	for i, line := range lines {
		columns := len([]rune(graphics.ReplaceAllString(line, "")))
		// Set the length, so that text in a wider font stays inside the picture.
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%.1f" lengthAdjust="spacingAndGlyphs">`, margin, margin+11+i*lineHeight, float64(columns)*charWidth)
		for len(line) > 0 {
			next := graphics.FindStringSubmatchIndex(line)
			text := line
			if next != nil {
				text = line[:next[0]]
			}
			if text != "" {
				fmt.Fprintf(&b, "<tspan%s>", style(codes, l))
				_ = xml.EscapeText(&b, []byte(strings.ReplaceAll(text, " ", "\u00a0"))) // a Builder never fails
				b.WriteString("</tspan>")
			}
			if next == nil {
				break
			}
			for code := range strings.SplitSeq(line[next[2]:next[3]], ";") {
				if code == "" || code == "0" {
					codes = nil
				} else {
					codes = append(codes, code)
				}
			}
			line = line[next[1]:]
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

func style(codes []string, l theme) string {
	text := ""
	for _, code := range codes {
		switch code {
		case "1":
			text += ` font-weight="bold"`
		case "2":
			text += fmt.Sprintf(` fill="%s"`, l.faint)
		default:
			if color := l.colors[code]; color != "" {
				text += fmt.Sprintf(` fill="%s"`, color)
			}
		}
	}
	return text
}
