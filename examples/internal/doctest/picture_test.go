//go:build unix

package doctest

import (
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	if *writePictures {
		time.Sleep(12 * time.Second) // so that the times look realistic
	}
	checkPicture(t, s, "tree", "pglock tree: who waits for whom", "pglock tree", 0)
}

// TestTracePicture draws pglock trace in the same way.
func TestTracePicture(t *testing.T) {
	t.Parallel()
	s := newStage(t).play(t, "none")
	checkPicture(t, s, "trace", "pglock trace: what a migration locks, and what would be safer",
		"pglock trace 0043_state.sql --schema schema.sql", 1)
}

// checkPicture runs a command in a terminal, and draws what it shows.
func checkPicture(t *testing.T, s *scene, name, title, command string, code int) {
	t.Helper()
	for i, kv := range s.env {
		if kv == "NO_COLOR=1" {
			s.env[i] = "NO_COLOR="
		}
		if kv == "TERM=dumb" {
			s.env[i] = "TERM=xterm-256color"
		}
	}
	s.run(t, command, code)
	shown := strings.ReplaceAll(s.raw, "\r\n", "\n")
	if !strings.Contains(shown, "\x1b[") {
		t.Fatalf("the output has no colors: %q", shown)
	}
	for _, l := range themes {
		path := filepath.Join(root, "docs", "pictures", name+"-"+l.name+".svg")
		svg := draw(title, l, "$ "+command+"\n"+shown)
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

// TestTopPicture draws pglock top while a forgotten transaction is terminated, as tmux
// shows it: each screen is one of a moving picture. The pictures in the repository must have
// the same headings and keys. "make picture" writes them.
func TestTopPicture(t *testing.T) {
	t.Parallel()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("in CI this must be tested: ", err)
		}
		t.Skip("not tested: ", err)
	}
	stage := newStage(t)
	s := stage.play(t, "shop")
	socket := filepath.Join(t.TempDir(), "tmux")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tmux, append([]string{"-f", os.DevNull, "-S", socket}, args...)...)
		cmd.Env = append(s.env, "NO_COLOR=", "TERM=xterm-256color")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	screen := func(text string) string {
		t.Helper()
		for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			shown := run("capture-pane", "-p", "-e")
			if strings.Contains(graphics.ReplaceAllString(shown, ""), text) {
				return shown
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("%q is not on the screen:\n%s", text, shown)
			}
		}
	}
	if *writePictures {
		time.Sleep(12 * time.Second) // so that the times look realistic
	}
	pid := strconv.Itoa(int(s.pids["4711"]))
	run("new-session", "-d", "-x", "118", "-y", "20", "pglock top; sleep 60")
	defer func() { _ = exec.Command(tmux, "-S", socket, "kill-server").Run() }()
	screens := []string{screen("> ! pid " + pid)}
	run("send-keys", "t")
	screens = append(screens, screen("[ enter keeps it ]"))
	run("send-keys", pid)
	screens = append(screens, screen("terminate: "+pid+"_"))
	run("send-keys", "Enter")
	screen("was terminated")
	screens = append(screens, screen("nobody waits"))
	for _, l := range themes {
		for name, shown := range map[string][]string{"top-" + l.name: screens[:1], "top-moving-" + l.name: screens} {
			path := filepath.Join(root, "docs", "pictures", name+".svg")
			svg := draw("pglock top: a forgotten transaction blocks a migration", l, shown...)
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
			// Where the other lines are cut depends on times and numbers.
			headings := regexp.MustCompile(`─ who waits for whom ─| enter details .*| pglock top |\[ enter keeps it \]|was terminated`)
			got := headings.FindAllString(strings.ReplaceAll(pictureText(svg), "\u00a0", " "), -1)
			want := headings.FindAllString(strings.ReplaceAll(pictureText(string(old)), "\u00a0", " "), -1)
			if !slices.Equal(got, want) {
				t.Errorf("%s shows\n%q\nbut the command shows\n%q\nRun make picture.", path, want, got)
			}
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

// draw returns an SVG of what a terminal shows. Several screens follow each other, for some
// seconds each, again and again.
func draw(title string, l theme, screens ...string) string {
	columns, count := 0, 0
	all := make([][]string, len(screens))
	for i, shown := range screens {
		all[i] = strings.Split(strings.TrimRight(shown, "\n"), "\n")
		count = max(count, len(all[i]))
		for _, line := range all[i] {
			columns = max(columns, len([]rune(graphics.ReplaceAllString(line, ""))))
		}
	}
	width, height := int(float64(columns)*charWidth)+2*margin, count*lineHeight+2*margin-4
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n", title)
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" fill="%s" stroke="%s"/>`+"\n", width-1, height-1, l.background, l.border)
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="13" fill="%s" xml:space="preserve">`+"\n", l.text)
	const seconds = 4 // of each screen
	for i, lines := range all {
		if len(all) > 1 {
			var times, values []string
			for j := range all {
				times = append(times, fmt.Sprintf("%.3f", float64(j)/float64(len(all))))
				values = append(values, map[bool]string{true: "visible", false: "hidden"}[i == j])
			}
			fmt.Fprintf(&b, `<g visibility="%s"><animate attributeName="visibility" calcMode="discrete" dur="%ds" repeatCount="indefinite" keyTimes="%s" values="%s"/>`+"\n",
				values[0], seconds*len(all), strings.Join(times, ";"), strings.Join(values, ";"))
		}
		drawLines(&b, lines, l)
		if len(all) > 1 {
			b.WriteString("</g>\n")
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// A segment is a part of a line with its codes in escape sequences.
type segment struct {
	codes []string
	text  string
}

// segments splits a line. codes are those at its beginning; it returns those at its end.
func segments(line string, codes []string) ([]segment, []string) {
	var all []segment
	for len(line) > 0 {
		next := graphics.FindStringSubmatchIndex(line)
		if next == nil {
			return append(all, segment{codes, line}), codes
		}
		if next[0] > 0 {
			all = append(all, segment{codes, line[:next[0]]})
		}
		for code := range strings.SplitSeq(line[next[2]:next[3]], ";") {
			switch code {
			case "", "0":
				codes = nil
			case "39": // no color
				codes = slices.DeleteFunc(slices.Clone(codes), func(c string) bool { return strings.HasPrefix(c, "3") })
			default:
				codes = append(slices.Clone(codes), code)
			}
		}
		line = line[next[1]:]
	}
	return all, codes
}

// drawLines draws the lines of a screen.
func drawLines(b *strings.Builder, lines []string, l theme) {
	var codes []string
	for i, line := range lines {
		columns := len([]rune(graphics.ReplaceAllString(line, "")))
		var all []segment
		all, codes = segments(line, codes)
		if columns == 0 {
			continue
		}
		at := 0
		for _, s := range all {
			n := len([]rune(s.text))
			if slices.Contains(s.codes, "7") { // a selected row
				fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n",
					margin+float64(at)*charWidth, margin-3+i*lineHeight, float64(n)*charWidth, lineHeight, l.border)
			}
			at += n
		}
		// Set the length, so that text in a wider font stays inside the picture.
		fmt.Fprintf(b, `<text x="%d" y="%d" textLength="%.1f" lengthAdjust="spacingAndGlyphs">`, margin, margin+11+i*lineHeight, float64(columns)*charWidth)
		for _, s := range all {
			fmt.Fprintf(b, "<tspan%s>", style(s.codes, l))
			_ = xml.EscapeText(b, []byte(strings.ReplaceAll(s.text, " ", "\u00a0"))) // a Builder never fails
			b.WriteString("</tspan>")
		}
		b.WriteString("</text>\n")
	}
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
