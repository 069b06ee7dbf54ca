//go:build unix

package doctest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
)

// TestShell runs the guides' shell commands, one block at a time, each with a scene on
// the server.
func TestShell(t *testing.T) {
	t.Parallel()
	stage := newStage(t)
	count := 0
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "sh", "console", "text") {
			scene, _ := b.mark("scene")
			command, output := b.mark("output")
			_, usage := b.mark("usage")
			_, newcomer := b.mark("newcomer")
			if _, shape := b.mark("shape"); shape || newcomer {
				continue // not run, or run by TestNewcomer
			}
			count++
			t.Run(b.String(), func(t *testing.T) {
				switch {
				case usage:
					checkUsage(t, stage.play(t, "none"), b)
				case output:
					s := stage.play(t, scene)
					checkOutput(t, b.text, s.run(t, command, exitCode(t, b)))
				case b.language == "console":
					s := stage.play(t, scene)
					for _, step := range steps(b.text) {
						checkOutput(t, step.output, s.run(t, step.command, exitCode(t, b)))
					}
				default:
					stage.play(t, scene).run(t, b.text, exitCode(t, b))
				}
			})
		}
	}
	if count < 15 {
		t.Errorf("ran only %d blocks", count)
	}
}

func exitCode(t *testing.T, b *block) int {
	t.Helper()
	text, ok := b.mark("exit")
	if !ok {
		return 0
	}
	code, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: exit %s: %v", b, text, err)
	}
	return code
}

var (
	synopsis = regexp.MustCompile(`(?m)^pglock (\w+) (.*(?:\n +.*)*)`)
	oneFlag  = regexp.MustCompile(`[\s\[(|](--?[a-zA-Z][a-z-]*)`)
	helpFlag = regexp.MustCompile(`(?m)^ +(?:(-\w), +)?(--[a-z-]+)`)
)

// checkUsage checks that a verb has the flags of its synopsis, and that the page
// mentions all flags of the verb.
func checkUsage(t *testing.T, s *scene, b *block) {
	t.Helper()
	found := synopsis.FindAllStringSubmatch(b.text, -1)
	if len(found) == 0 {
		t.Error("the block is not a synopsis")
	}
	for _, m := range found {
		verb := m[1]
		flags := map[string]bool{}
		for _, line := range helpFlag.FindAllStringSubmatch(s.run(t, "pglock "+verb+" --help", 0), -1) {
			flags[line[1]], flags[line[2]] = true, true
			mentioned := func(name string) bool {
				return name != "" && regexp.MustCompile("[`\\s\\[(|]"+name+"\\b").Match(b.page.source)
			}
			if !mentioned(line[1]) && !mentioned(line[2]) {
				t.Errorf("the page does not mention the flag %s of %s", line[2], verb)
			}
		}
		for _, f := range oneFlag.FindAllStringSubmatch(" "+m[2], -1) {
			if !flags[f[1]] {
				t.Errorf("%s has no flag %s", verb, f[1])
			}
		}
	}
}

// A step is a command and its output.
type step struct{ command, output string }

// steps splits a console block into its steps.
func steps(text string) []step {
	var list []step
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, step{command: command})
		} else if len(list) > 0 {
			list[len(list)-1].output += line
		}
	}
	return list
}

// run runs lines of shell on a terminal, and returns their output.
func (s *scene) run(t *testing.T, text string, code int) string {
	t.Helper()
	for name, pid := range s.pids {
		text = regexp.MustCompile(`\b`+name+`\b`).ReplaceAllString(text, strconv.Itoa(int(pid)))
	}
	file := filepath.Join(t.TempDir(), "block.sh")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-e", file)
	cmd.Dir, cmd.Env = s.folder, s.env
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 160})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	shown := &answering{terminal: terminal}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			shown.add(buffer[:n])
			if err != nil {
				return // on Linux EIO, when the last process has closed it
			}
		}
	}()
	err = cmd.Wait()
	<-read
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("exit code %d, want %d:\n%s\n%s", got, code, text, shown.text())
	}
	s.raw = shown.all.String()
	return shown.text()
}

// answering collects a terminal's output and answers yes to each question.
type answering struct {
	terminal *os.File
	mu       sync.Mutex
	all      bytes.Buffer
	answered int
}

func (a *answering) add(data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all.Write(data)
	if asked := strings.Count(a.all.String(), "[y/N]"); asked > a.answered {
		a.answered = asked
		_, _ = a.terminal.WriteString("y\n") // a command that misses the answer runs into its time limit
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

func (a *answering) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return escapes.ReplaceAllString(strings.ReplaceAll(a.all.String(), "\r\n", "\n"), "")
}

var (
	times    = regexp.MustCompile(`\b(\d+h)?(\d+m)?(\d+(\.\d+)?(s|ms|µs))\b|\b(\d+h)?\d+m\b|\b\d+(\.\d+)?h\b`)
	clocks   = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?`)
	pidWords = regexp.MustCompile(`\b(pid |PID )\d+\b`)
	numbers  = regexp.MustCompile(`\b\d{2,}\b`)
	runName  = regexp.MustCompile(`prioritize [0-9a-f]{6}`)
)

// normalize replaces the parts that differ from run to run, and joins runs of space.
func normalize(text string) string {
	text = clocks.ReplaceAllString(text, "TIME")
	text = times.ReplaceAllString(text, "DURATION")
	text = pidWords.ReplaceAllString(text, "${1}N")
	text = runName.ReplaceAllString(text, "prioritize RUN")
	text = numbers.ReplaceAllString(text, "N")
	return strings.Join(strings.Fields(text), " ")
}

// checkOutput compares the output in a guide with the real output.
func checkOutput(t *testing.T, want, got string) {
	t.Helper()
	var pattern strings.Builder
	for i, part := range strings.Split(normalize(want), "...") {
		if i > 0 {
			pattern.WriteString(".*")
		}
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	if !regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(normalize(got)) {
		t.Errorf("the guide shows\n%s\nbut the command printed\n%s\nWithout numbers and times:\n%s\n%s", want, got, normalize(want), normalize(got))
	}
}

// normalize and steps work on examples.
func TestSame(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"pid 4711 waits 5m12s", "pid 7 waits 0.1s", true},
		{"pid 4711 waits 12ms", "pid 7 waits 1h2m", true},
		{"pid 4711 waits", "pid 7 holds", false},
	} {
		if got := normalize(c.a) == normalize(c.b); got != c.want {
			t.Errorf("%q and %q: %v", normalize(c.a), normalize(c.b), got)
		}
	}
	if got := fmt.Sprint(steps("$ a\nx\ny\n$ b\n")); got != "[{a\n x\ny\n} {b\n }]" {
		t.Error(got)
	}
}
