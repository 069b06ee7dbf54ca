//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Text from the server is escaped before it reaches a terminal.
func TestServerTextIsSafe(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const evil = "evil \x1b[31m \u009b31m \u202e\tname\nhere"
	holder := connectTo(t, s.server.ConnString(s.name))
	holder.exec(t, `CREATE TABLE "`+evil+`" ()`)
	holder.exec(t, "SELECT set_config('application_name', 'evil \x1b]0;x', false)")
	holder.exec(t, "BEGIN")
	holder.exec(t, `LOCK TABLE "`+evil+`" /* `+evil+` */`)
	waiter := connectTo(t, s.server.ConnString(s.name))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.conn.Exec(context.Background(), `/*pga_context={"a": "\u001b[31m \u202e"}*/ SELECT FROM "`+evil+`" -- `+evil)
	}()
	t.Cleanup(func() { holder.close(); <-done })
	pid := fmt.Sprint(waiter.conn.PgConn().PID())
	eventually(t, "somebody waits", func() (waits bool) {
		row := s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = "+pid+")")
		if err := row.Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})

	for _, args := range []string{
		"ls -o tsv", "ls -o table", "ls -o csv", "ls -o json", "ls -e -o table",
		"ls --blocking -o tsv", "ls --blocking -o table", "ls --blocking -o csv", "ls --blocking -o json", "ls --blocking -e",
		"tree", "tree -o json", "tree -a application,context,query",
		"terminate --dry-run -o table", "terminate --dry-run -o csv", "terminate --dry-run -o json --blocking", "cancel --dry-run -e --blocking",
	} {
		cmd := exec.Command(testBinary(t), append(strings.Fields(args), "-f", "database="+s.name)...)
		cmd.Args[0] = "pglock"
		cmd.Env = s.env()
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil && !strings.HasPrefix(args, "cancel") {
			t.Fatalf("%s: %v: %s", args, err, stderr.String())
		}
		text := string(out)
		if strings.ContainsAny(text+stderr.String(), "\x1b\u009b\u202e\a") {
			t.Errorf("%s: %q", args, text)
		}
		if !strings.Contains(text, "evil") {
			t.Errorf("%s: the name is missing: %q", args, text)
		}
		if strings.Contains(args, "json") && !json.Valid(out) {
			t.Errorf("%s: not JSON: %s", args, text)
		}
		if args == "ls -o tsv" && !strings.Contains(text, `evil \x1b[31m \u009b31m \u202e name here`) {
			t.Errorf("%s: %q", args, text)
		}
		if args != "ls -o json" {
			continue
		}
		var locks []map[string]any
		if err := json.Unmarshal(out, &locks); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if !slices.ContainsFunc(locks, func(l map[string]any) bool { return l["relation"] == evil && l["mode"] == "AccessExclusiveLock" }) {
			t.Errorf("json does not contain the exact name: %s", text)
		}
	}
}

// On a terminal ls prints a table, in color unless NO_COLOR is set.
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
		t.Errorf("color in spite of NO_COLOR: %q", text)
	}
	for _, line := range lines(term.shown()) {
		if n := len([]rune(strings.TrimRight(line, "\r"))); n > 120 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}
