//go:build unix

package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// What the server says about others never reaches a terminal as it is.
func TestLsIsSafe(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const evil = "evil \x1b[31m \u009b31m \u202e\tname\nhere"
	holder := connectTo(t, s.server.ConnString(s.name))
	holder.exec(t, `CREATE TABLE "`+evil+`" ()`)
	holder.exec(t, "BEGIN")
	holder.exec(t, `LOCK TABLE "`+evil+`" /* `+evil+` */`)

	for _, format := range []string{"tsv", "json", "table"} {
		cmd := exec.Command(testBinary(t), "ls", "-o", format)
		cmd.Args[0] = "pglock"
		cmd.Env = s.env()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		text := string(out)
		if strings.ContainsAny(text, "\x1b\u009b\u202e") {
			t.Errorf("%s: %q", format, text)
		}
		if format != "json" {
			if !strings.Contains(text, `evil \x1b[31m \u009b31m \u202e name here`) {
				t.Errorf("%s: %q", format, text)
			}
			continue
		}
		var locks []map[string]any
		if err := json.Unmarshal(out, &locks); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		found := false
		for _, l := range locks {
			found = found || l["relation"] == evil && l["mode"] == "AccessExclusiveLock"
		}
		if !found {
			t.Errorf("json does not tell the name as it is: %s", text)
		}
	}
}

// On a terminal it is a table in colour, or without where that is asked for.
func TestLsOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "SELECT pg_advisory_lock(42)")
	env := append(s.env(), "TERM=xterm", "NO_COLOR=")
	term := inTerminal(t, env, testBinary(t), "pglock", "ls")
	term.sees("\x1b[1mpid ")
	term.sees("advisory 42")
	term.want(0)

	term = inTerminal(t, append(env, "NO_COLOR=1"), testBinary(t), "pglock", "ls")
	term.sees("advisory 42")
	term.want(0)
	if text := term.shown(); strings.Contains(text, "\x1b") {
		t.Errorf("colour in spite of NO_COLOR: %q", text)
	}
	for _, line := range lines(term.shown()) {
		if n := len([]rune(strings.TrimRight(line, "\r"))); n > 120 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}
