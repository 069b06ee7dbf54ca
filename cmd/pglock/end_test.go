//go:build unix

package main

import (
	"fmt"
	"syscall"
	"testing"
)

// At a terminal it shows whom it would end, and asks.
func TestEndAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	holder := connectTo(t, s.server.ConnString(s.name)+" application_name=holder")
	holder.exec(t, "SELECT pg_advisory_lock(42)")
	pid := fmt.Sprint(holder.conn.PgConn().PID())
	isThere := func() (there bool) {
		row := s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = "+pid+")")
		if err := row.Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	}

	for _, answer := range []string{"\n", "n\n", "yes please\n", "\x04"} {
		term := s.inTerminal(t, "terminate", pid)
		term.sees("would be terminated")
		term.sees("Terminate 1 session? [y/N] ")
		term.types(answer)
		term.sees("pglock: nobody was ended")
		term.want(3)
		if !isThere() {
			t.Fatalf("%q ended it", answer)
		}
	}

	term := s.inTerminal(t, "cancel", pid)
	term.sees("was not cancelled: it is idle")
	term.want(1)

	// Whoever lost the lock while the answer was thought about is spared.
	term = s.inTerminal(t, "terminate", "-f", "key=42", "-f", "database="+s.name)
	term.sees("Terminate 1 session? [y/N] ")
	holder.exec(t, "SELECT pg_advisory_unlock(42)")
	term.types("y\n")
	term.sees("spared")
	term.want(0)
	if !isThere() {
		t.Fatal("a session was ended that has no such lock")
	}

	holder.exec(t, "SELECT pg_advisory_lock(42)")
	term = s.inTerminal(t, "terminate", pid, "--wait", "20s")
	term.sees("Terminate 1 session? [y/N] ")
	term.types("Y\n")
	term.sees("terminated")
	term.want(0)
	if isThere() {
		t.Error("it is still there")
	}
}

// It draws in place until Ctrl-C.
func TestWatchOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	term := s.inTerminal(t, "ls", "--watch", "100ms", "-f", "database="+s.name)
	term.sees("\x1b[2J\x1b[H")
	term.sees("every 100ms; Ctrl-C ends")
	term.sees("no locks")
	s.exec(t, "SELECT pg_advisory_lock(42)")
	term.sees("\x1b[H")
	term.sees("advisory 42")
	term.types("\x03")
	term.want(0)
}

// In a pipe the drawings come one after the other, and a session that was ended is
// opened again.
func TestWatchInPipe(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "SELECT pg_advisory_lock(42)")
	c := s.start(t, "ls", "--watch=100ms", "-f", "key=42", "-f", "database="+s.name, "-a", "key")
	for _, want := range []string{"key", "42", "", "key", "42", ""} {
		if got := c.line(); got != want {
			t.Fatalf("%q, not %q", got, want)
		}
	}
	s.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pglock ls' AND datname = current_database()")
	s.exec(t, "SELECT pg_advisory_unlock(42)")
	for empty := 0; empty < 2; { // lines of names, without locks
		if line := c.line(); line == "" {
			empty++
		} else if line == "key" {
			continue
		}
	}
	c.signal(syscall.SIGINT)
	c.want(0)
}
