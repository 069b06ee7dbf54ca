//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/pgxlock"
)

// installLeases creates the tables of leases.
func (s site) installLeases(t *testing.T) {
	t.Helper()
	s.exec(t, pglock.LeaseSQL("pglock"))
}

// leaseLocker returns a Locker with leases.
func (s site) leaseLocker(t *testing.T) *pglock.Locker {
	t.Helper()
	config, err := pgx.ParseConfig(s.server.ConnString(s.name))
	if err != nil {
		t.Fatal(err)
	}
	locker, err := pglock.New(pgxlock.Config(config), pglock.Leases(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = locker.Close() })
	return locker
}

// lock acquires the lease of a name.
func lock(t *testing.T, locker *pglock.Locker, name string) *pglock.Lock {
	t.Helper()
	held, err := locker.Lock(t.Context(), pglock.Name(name))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// At a terminal, break shows the holder and asks. It breaks the lease only if that is still
// the holder when the answer comes.
func TestBreakAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installLeases(t)
	first, second := s.leaseLocker(t), s.leaseLocker(t)
	held := lock(t, first, "report")
	for _, answer := range []string{"\n", "n\n", "\x04"} {
		term := s.inTerminal(t, "break", "report")
		term.sees(`lease "report" is held by process `)
		term.sees("Its holder works on until it is notified. Break the lease? [y/N] ")
		term.types(answer)
		term.sees("pglock: the lease was not broken")
		term.want(3)
	}
	if err := held.Err(); err != nil {
		t.Fatal(err)
	}

	term := s.inTerminal(t, "break", "report")
	term.sees("Break the lease? [y/N] ")
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	held = lock(t, first, "report") // by the same session
	term.types("y\n")
	term.sees(`pglock: lease "report" was not broken, since it was taken anew meanwhile: process `)
	term.want(1)

	term = s.inTerminal(t, "break", "report")
	term.sees("Break the lease? [y/N] ")
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	other := lock(t, second, "report")
	term.types("y\n")
	term.sees(`pglock: lease "report" was not broken, since it was taken anew meanwhile: process `)
	term.want(1)

	term = s.inTerminal(t, "break", "report")
	term.sees("Break the lease? [y/N] ")
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	term.types("y\n")
	term.sees(`lease "report" is free: its holder has released it`)
	term.want(0)

	held = lock(t, first, "report")
	term = s.inTerminal(t, "break", "report")
	term.sees("Break the lease? [y/N] ")
	term.types("y\n")
	term.sees(`broke lease "report" of process `)
	term.want(0)
	if again := lock(t, second, "report"); again.Token() <= held.Token() {
		t.Errorf("the token is %d, after %d", again.Token(), held.Token())
	}
	// Its session is renewed within ten seconds and a tenth of that.
	select {
	case <-held.Done():
	case <-time.After(bound):
		t.Fatal("the holder was not notified")
	}
}

// At a terminal, uninstall asks. A session that began meanwhile keeps the tables.
func TestUninstallAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installLeases(t)
	exist := func() (exist bool) {
		if err := s.conn.QueryRow(t.Context(), "SELECT to_regclass('pglock.lease') IS NOT NULL").Scan(&exist); err != nil {
			t.Fatal(err)
		}
		return exist
	}
	const question = `Drop the tables of leases in schema "pglock"? [y/N] `
	term := s.inTerminal(t, "uninstall")
	term.sees(question)
	term.types("n\n")
	term.sees("pglock: nothing was dropped")
	term.want(3)

	term = s.inTerminal(t, "uninstall")
	term.sees(question)
	locker := s.leaseLocker(t)
	lock(t, locker, "report")
	term.types("y\n")
	term.sees(`pglock: the leases in schema "pglock" are in use, so nothing was dropped: stop these programs first: process `)
	term.want(1)
	if !exist() {
		t.Fatal("the tables are gone")
	}
	_ = locker.Close() // reports the lease that was held

	term = s.inTerminal(t, "uninstall")
	term.sees(question)
	term.types("y\n")
	term.sees(`dropped the tables of leases in schema "pglock"`)
	term.want(0)
	if exist() {
		t.Error("the tables are there")
	}
}

// Installations at the same time do not fail.
func TestInstallTogether(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var all []*command
	for range 6 {
		all = append(all, s.start(t, "install"))
	}
	created := 0
	for _, c := range all {
		c.want(0)
		for line := range c.output {
			if strings.HasPrefix(line, "created ") {
				created++
			}
		}
	}
	if created == 0 {
		t.Error("no tables were created")
	}
}

// At a terminal, run shows the holder of the lease that it waits for, and Ctrl-C ends the
// wait.
func TestLeaseAtATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installLeases(t)
	held := lock(t, s.leaseLocker(t), "report")
	term := s.inTerminal(t, "run", "--lease", "30s", "report", "--", "echo", "ran")
	term.sees(`pglock: waiting: lock "report" is held by process `)
	term.types("\x03")
	term.want(130)

	term = s.inTerminal(t, "run", "--lease", "30s", "report", "--", "echo", "r''an")
	term.sees("waiting: ")
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	term.sees("r''an")
	term.want(0)
}

// A command that was stopped for longer than its lease lasts is ended when it goes on.
func TestStoppedLongerThanTheLease(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installLeases(t)
	c := s.start(t, "run", "--lease", "3s", "report", "--", "sh", "-c", `echo $$; trap 'echo ended; exit 3' TERM; while :; do sleep 0.01; done`)
	c.pid()
	c.signal(syscall.SIGSTOP)
	eventually(t, "the lease expires", func() (expired bool) {
		err := s.conn.QueryRow(t.Context(), "SELECT bool_and(until < clock_timestamp()) FROM pglock.session").Scan(&expired)
		return err == nil && expired
	})
	c.signal(syscall.SIGCONT)
	c.want(76)
	if line := c.line(); line != "ended" {
		t.Errorf("the command printed %q", line)
	}
}

// The verbs for leases leave a pooled session unchanged, in transaction and statement mode.
func TestLeasesBehindAPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.exec(t, "CREATE TABLE orders (id int)")
			bouncer := pgbouncer.Start(t, s.server, mode, "default_pool_size = 1", "server_reset_query =")
			t.Cleanup(func() { bouncer.Stop(t) })
			dsn := bouncer.ConnString(s.name)
			before := stateOf(t, dsn)
			for _, step := range []struct {
				says string
				args []string
			}{
				{"created ", []string{"install"}},
				{"ran", []string{"run", "--lease", "3s", "job", "--", "echo", "ran"}},
				{`lease "job" is free`, []string{"break", "-y", "job"}},
				{`lock "job" is free`, []string{"who", "job"}},
				{"lease\t", []string{"leases"}},
				{"", []string{"ls", "-o", "table"}},
				{"dropped the schema", []string{"uninstall", "-y"}},
			} {
				c := s.start(t, append([]string{"-d", dsn}, step.args...)...)
				if step.args[0] == "who" {
					c.want(1)
				} else {
					c.want(0)
				}
				var output []string
				for line := range c.output {
					output = append(output, line)
				}
				if said := strings.Join(output, "\n"); !strings.Contains(said, step.says) {
					t.Errorf("%v printed %s, not %q", step.args, said, step.says)
				}
				if after := stateOf(t, dsn); after != before {
					t.Errorf("after %v the pooled session is\n%s\nand was\n%s", step.args, after, before)
				}
			}
		})
	}
}

// The verbs for leases neither fail nor wait, whatever the defaults of the role are.
func TestLeasesOfAHostileRole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE SCHEMA app; CREATE TABLE app.scene (id int)")
	writer := connectTo(t, s.server.ConnString(s.name))
	s.exec(t, `ALTER DATABASE `+s.name+` SET search_path = app, nowhere`)
	defer makeHostile(t, s, writer, all)()
	for _, step := range []struct {
		says string
		args []string
	}{
		{"created ", []string{"install"}},
		{"up to date", []string{"install", "--grant", "public"}},
		{"ran", []string{"run", "--lease", "30s", "job", "--", "echo", "ran"}},
		{`lease "job" is free`, []string{"break", "-y", "job"}},
		{"lease\t", []string{"leases"}},
		{"dropped the schema", []string{"uninstall", "-y"}},
	} {
		c := s.start(t, step.args...)
		c.want(0)
		var output []string
		for line := range c.output {
			output = append(output, line)
		}
		if said := strings.Join(output, "\n"); !strings.Contains(said, step.says) {
			t.Errorf("%v printed %s, not %q: %s", step.args, said, step.says, c.errors())
		}
	}
}
