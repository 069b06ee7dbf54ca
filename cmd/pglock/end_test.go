//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// At a terminal, terminate and cancel show the sessions and ask for confirmation.
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
		term.sees("pglock: no session was ended")
		term.want(3)
		if !isThere() {
			t.Fatalf("%q ended it", answer)
		}
	}

	term := s.inTerminal(t, "cancel", pid)
	term.sees("was not canceled: it is idle")
	term.want(1)

	// A session that released the lock before the answer is spared.
	term = s.inTerminal(t, "terminate", "-f", "key=42", "-f", "database="+s.name)
	term.sees("Terminate 1 session? [y/N] ")
	holder.exec(t, "SELECT pg_advisory_unlock(42)")
	term.types("y\n")
	term.sees("spared")
	term.want(0)
	if !isThere() {
		t.Fatal("a session without the lock was ended")
	}

	holder.exec(t, "SELECT pg_advisory_lock(42)")
	term = s.inTerminal(t, "terminate", pid, "--wait", "20s")
	term.sees("Terminate 1 session? [y/N] ")
	term.types("Y\n")
	term.sees("terminated")
	term.want(0)
	if isThere() {
		t.Error("the session still exists")
	}
}

// The question suggests to end only the root, if that lets the others go on.
func TestEndSuggestsRoots(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int, n int)")
	s.exec(t, "INSERT INTO orders VALUES (1, 0), (2, 0)")
	client := func(name string) database { return connectTo(t, s.server.ConnString(s.name)+" application_name="+name) }
	checkout := client("checkout")
	checkout.exec(t, "BEGIN")
	checkout.exec(t, "UPDATE orders SET n = 1 WHERE id = 1")
	worker := client("worker")
	worker.exec(t, "BEGIN")
	worker.exec(t, "UPDATE orders SET n = 2 WHERE id = 2")
	waits := func(d database, sql string) (done chan error) {
		done = make(chan error, 1)
		pid := d.pid()
		go func() {
			_, err := d.conn.Exec(context.Background(), sql)
			done <- err
		}()
		eventually(t, "a wait", func() (waiting bool) {
			return s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", pid).Scan(&waiting) == nil && waiting
		})
		return done
	}
	updated := waits(worker, "UPDATE orders SET n = 2 WHERE id = 1")
	migrated := waits(client("migrate"), "ALTER TABLE orders ADD total int")
	read := waits(client("web"), "SELECT * FROM orders")

	term := s.inTerminal(t, "terminate", "--blocking", "--on", "orders")
	term.sees(fmt.Sprintf("ending only pid %d, which waits for nobody, would free 3 sessions: use --roots", checkout.pid()))
	term.sees("Terminate 2 sessions? [y/N] ")
	term.types("n\n")
	term.want(3)

	term = s.inTerminal(t, "terminate", "--blocking", "--roots", "--on", "orders")
	term.sees("Terminate 1 session? [y/N] ")
	term.types("y\n")
	term.sees("terminated")
	term.want(0)
	if strings.Contains(term.shown(), "use --roots") {
		t.Error("it suggests what is done")
	}
	if err := <-updated; err != nil {
		t.Error(err)
	}
	worker.exec(t, "COMMIT")
	for _, done := range []chan error{migrated, read} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The PID of a session is reused before the answer. A role that cannot see when sessions
// began does not end the new session, and is told the GRANT that it needs.
func TestEndPIDGivenAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE t ()")
	signaller := "signaller_" + s.name
	s.exec(t, "CREATE ROLE "+signaller+" LOGIN IN ROLE pg_signal_backend")
	t.Cleanup(func() { s.conn.Exec(context.Background(), "DROP ROLE "+signaller) })
	old := s.client(t, "app")
	s.exec(t, "GRANT ALL ON t TO PUBLIC")
	old.exec(t, "BEGIN")
	old.exec(t, "SELECT FROM t")
	pid := old.pid()

	term := s.inTerminal(t, "-U", signaller, "terminate", fmt.Sprint(pid))
	term.sees("Terminate 1 session? [y/N] ")
	old.close()
	eventually(t, "the end of the session", func() (gone bool) {
		return s.conn.QueryRow(t.Context(), "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid).Scan(&gone) == nil && gone
	})
	var next database
	for range 200 { // make the kernel reuse the PID
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("a PID cannot be chosen here: %v", err)
		}
		if next = s.client(t, "app"); next.pid() == pid {
			break
		}
		next.close()
	}
	if next.pid() != pid {
		t.Fatal("the PID was never reused")
	}
	next.exec(t, "BEGIN")
	next.exec(t, "SELECT FROM t")
	term.types("y\n")
	term.sees("was not terminated")
	term.sees("GRANT pg_read_all_stats TO \"" + signaller + "\"")
	term.want(1)
	next.exec(t, "COMMIT") // it still exists
}

// On a terminal, --watch redraws in place until Ctrl-C.
func TestWatchOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	term := s.inTerminal(t, "ls", "--watch", "100ms", "-f", "database="+s.name)
	term.sees("\x1b[2J\x1b[H")
	term.sees("every 100ms; Ctrl-C to stop")
	term.sees("no locks")
	s.exec(t, "SELECT pg_advisory_lock(42)")
	term.sees("\x1b[H")
	term.sees("advisory 42")
	term.types("\x03")
	term.want(0)
}

// In a pipe, --watch writes one frame after the other. It reconnects if its session was
// terminated.
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
	for empty := 0; empty < 2; { // headers without locks
		if line := c.line(); line == "" {
			empty++
		} else if line == "key" {
			continue
		}
	}
	c.signal(syscall.SIGINT)
	c.want(0)
}
