//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
)

// ls and tree show the name of a pglock run's lock, in any script and of any length, for
// the holder and for waiters, even from a database with another encoding.
func TestNamesOfLocks(t *testing.T) {
	t.Parallel()
	for kind, name := range map[string]string{
		"Cyrillic":                   "отчёт",
		"PGAPPNAME":                  "nightly",
		"Latin with marks":           "café-Übersicht",
		"Chinese, with an emoji":     "夜间报告 🔒",
		"longer than Postgres keeps": strings.Repeat("nightly-report/", 5) + "end",
		"long, and in Greek":         strings.Repeat("αναφορά-", 10) + "τέλος",
		"what ends comments":         `a*/ b'; c /* d % + e`,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if kind == "PGAPPNAME" {
				s.needs = append(s.needs, "PGAPPNAME=another")
			}
			holder := s.start(t, "run", name, "--", "sh", "-c", "read line")
			key := pglock.Name(name)
			if err := s.awaitLock(key, "granted", true); err != nil {
				t.Fatal(err)
			}
			waiter := s.start(t, "run", name, "--", "true")
			if err := s.awaitLock(key, "NOT granted", true); err != nil {
				t.Fatal(err)
			}
			var plain bool
			if err := s.conn.QueryRow(t.Context(), `SELECT bool_and(application_name ~ '^(pglock run |another)[ -~]*$') FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&plain); err != nil || !plain {
				t.Errorf("application_name is changed by Postgres (%v)", err)
			}
			shows := func(from string, want int, args ...string) {
				t.Helper()
				var out []byte
				defer func() {
					if t.Failed() {
						t.Logf("pglock %s, in %s:\n%s", strings.Join(args, " "), from, out)
					}
				}()
				// A waiter retries now and then, and does not wait for a moment.
				eventually(t, fmt.Sprintf("the name is shown %d times", want), func() bool {
					cmd := exec.Command(testBinary(t), append(args, "-d", from)...)
					cmd.Args[0] = "pglock"
					cmd.Env = s.env()
					var err error
					if out, err = cmd.CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					return strings.Count(string(out), name) == want
				})
			}
			only := func(args ...string) []string {
				return append(args, "-f", "database="+s.name, "-f", "type=advisory")
			}
			shows(s.name, 2, only("ls", "-a", "relation")...)
			if kind == "PGAPPNAME" {
				shows(s.name, 1, only("tree")...)
			} else if len([]rune("pglock run "+name)) <= 64 { // longer ones are cut
				// Twice as an application, and once as what is waited for.
				shows(s.name, 3, only("tree")...)
			}
			if kind == "Cyrillic" {
				other := otherEncoding(t, s)
				shows(other, 2, only("ls", "-a", "relation")...)
				shows(other, 3, only("tree")...)
				shows(s.name, 2, only("ls", "-a", "application")...)
				shows(s.name, 2, only("ls", "--blocking", "-a", "application,blocking_application")...)
				shows(s.name, 2, only("ls", "-f", "context.lock = "+name, "-a", "application")...)
				shows(s.name, 2, only("terminate", "--dry-run", "-e")...)
			}
			holder.stdin.Close()
			holder.want(1)
			waiter.want(0)
		})
	}
}

// otherEncoding creates a database on the same server with encoding LATIN1.
func otherEncoding(t *testing.T, s site) string {
	t.Helper()
	name := "latin_" + s.name
	s.exec(t, `CREATE DATABASE `+name+` ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	t.Cleanup(func() {
		d, err := connectString(s.server.ConnString(s.name))
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		if _, err := d.conn.Exec(context.Background(), `DROP DATABASE `+name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// A name that is too long for a statement's comment is cut there, and the lock works.
func TestTooLongForAComment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	name := strings.Repeat("очень-длинное-имя ", 30)
	c := s.start(t, "run", name, "--", "sh", "-c", "read line")
	pid := s.holder(t, name)
	var query string
	if err := s.conn.QueryRow(t.Context(), "SELECT query FROM pg_stat_activity WHERE pid = $1", pid).Scan(&query); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(query, "/*lock='%D0%BE") && !strings.HasSuffix(query, "'*/") {
		t.Errorf("the query is %s", query)
	}
	ls := exec.Command(testBinary(t), "ls", strconv.Itoa(int(pid)), "-f", "type=advisory", "-a", "application,context")
	ls.Args[0] = "pglock"
	ls.Env = s.env()
	out, err := ls.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "pglock run "+name[:100]) || !strings.Contains(string(out), "…") {
		t.Errorf("%v: %s", err, out)
	}
	c.stdin.Close()
	c.want(1)
}

// A lock in a database that does not have the letters of its name.
func TestNameInAnotherEncoding(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const name = "отчёт"
	other := otherEncoding(t, s)
	c := s.start(t, "-d", other, "run", name, "--", "sh", "-c", "echo ran")
	if got := c.line(); got != "ran" {
		t.Error(got)
	}
	c.want(0)
	d := connectTo(t, s.server.ConnString(other))
	d.exec(t, "SELECT pg_advisory_lock($1)", pglock.Name(name).ID())
	waiter := s.start(t, "-d", other, "run", name, "--", "true")
	if err := d.awaitLock(pglock.Name(name), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ls shows the name", func() bool {
		ls := exec.Command(testBinary(t), "ls", "-f", "database="+other, "-f", "granted=false", "-a", "relation")
		ls.Args[0] = "pglock"
		ls.Env = s.env()
		out, err := ls.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Contains(string(out), name)
	})
	d.exec(t, "SELECT pg_advisory_unlock_all()")
	waiter.want(0)
	d.close()
}
