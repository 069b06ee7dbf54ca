//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestScripts runs the scripts in testdata against the shared server. The PG* variables
// name a database for each script.
func TestScripts(t *testing.T) {
	runScripts(t, "testdata", pgtest.Server(t))
}

// TestPasswords tests logins with a password, as alice and bob, and a role without a free
// connection, carol.
func TestPasswords(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{
		TCP: true,
		HBA: []string{
			"local all alice,bob scram-sha-256",
			"host all alice,bob 127.0.0.1/32 scram-sha-256",
		},
	})
	d := connectTo(t, server.ConnString("postgres"))
	for _, role := range []string{"alice", "bob"} {
		d.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret of "+role+"'")
	}
	d.exec(t, "CREATE ROLE carol LOGIN CONNECTION LIMIT 0")
	s := site{server: server, name: "postgres"}
	t.Run("scripts", func(t *testing.T) { runScripts(t, filepath.Join("testdata", "password"), server) })

	t.Run("asked for when the server wants one", func(t *testing.T) {
		term := s.inTerminal(t, "-U", "alice", "run", "x", "--", "echo", "ran")
		term.sees(`Password for user "alice": `)
		if !term.silent() {
			t.Error("the terminal asks for a password before it is silent")
		}
		term.types("secret of alice\n")
		term.sees("ran")
		term.want(0)
		if strings.Contains(term.shown(), "secret") {
			t.Error("the password is shown")
		}
	})
	t.Run("asked for by the one that watches", func(t *testing.T) {
		term := s.inTerminal(t, "-U", "alice", "prioritize", "--", "echo", "ran")
		term.sees(`Password for user "alice": `)
		if !term.silent() {
			t.Error("the terminal asks for a password before it is silent")
		}
		term.types("secret of alice\n")
		term.sees("ran")
		term.want(0)
	})
	t.Run("asked for before", func(t *testing.T) {
		term := s.inTerminal(t, "ls", "-W", "-U", "bob")
		term.sees(`Password for user "bob": `)
		if !term.silent() {
			t.Error("the terminal asks for a password before it is silent")
		}
		term.types("wrong\n")
		term.sees(`password authentication failed for user "bob"`)
		term.want(1)
	})
	t.Run("never asked for", func(t *testing.T) {
		term := s.inTerminal(t, "ls", "-w", "-U", "bob")
		term.want(1)
		if strings.Contains(term.shown(), "Password") {
			t.Error("it asked")
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		term := s.inTerminal(t, "-W", "run", "x", "--", "echo", "ran")
		term.sees("Password")
		term.types("\x03")
		term.want(130)
	})
}

func runScripts(t *testing.T, dir string, server *pgserver.Server) {
	bin := t.TempDir()
	for _, name := range []string{"pglock", migratorName} {
		if err := os.Symlink(testBinary(t), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	commands := sessionCommands()
	commands["exits"] = exits
	commands["await-held"] = awaitHeld
	commands["await-waiting"] = awaitWaiting
	commands["await-lease"] = awaitLease
	commands["await-sql"] = awaitSQL
	commands["pooler"] = func(ts *testscript.TestScript, _ bool, args []string) { startPooler(ts, server, args) }
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			name := pgtest.DatabaseOn(env.T().(testing.TB), server)
			env.Vars = append(env.Vars, server.Env(name)...)
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("GORACE", goRace)
			env.Setenv("HOME", env.WorkDir)
			// Cache the server that pglock demo downloads.
			if cache, err := os.UserCacheDir(); err == nil {
				env.Setenv("XDG_CACHE_HOME", cache)
			}
			env.Setenv("CONNSTRING", server.ConnString(name))
			env.Values[testKey{}] = env.T()
			prepareSessions(env)
			return nil
		},
		Cmds: commands,
		Condition: func(name string) (bool, error) {
			if name != "pg_dump" {
				return false, fmt.Errorf("unknown condition %s", name)
			}
			return dumps(t, server), nil
		},
	})
}

// dumps reports whether pg_dump can dump databases of the server: one of an older version
// refuses.
func dumps(t *testing.T, server *pgserver.Server) bool {
	t.Helper()
	out, err := exec.Command("pg_dump", "--version").Output()
	match := regexp.MustCompile(`(\d+)[.\d]*`).FindSubmatch(out)
	if err != nil || match == nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("pg_dump is missing; install it: Debian's package postgresql-client")
		}
		return false
	}
	major, err := strconv.Atoi(string(match[1]))
	return err == nil && major >= server.Binaries().Major
}

// testKey is the key of a script's test in its values.
type testKey struct{}

// startPooler starts a PgBouncer in front of the server until the end of the script, and
// sets $POOLED to the connection string of the script's database: pooler MODE.
func startPooler(ts *testscript.TestScript, server *pgserver.Server, args []string) {
	if len(args) != 1 {
		ts.Fatalf("expected the mode of the pooler")
	}
	bouncer := pgbouncer.Start(ts.Value(testKey{}).(testing.TB), server, pgbouncer.Mode(args[0]), "default_pool_size = 2")
	ts.Setenv("POOLED", bouncer.ConnString(ts.Getenv("PGDATABASE")))
}

// exits runs a command and checks its exit code: exits CODE COMMAND...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

// awaitHeld waits until the lock of a name is held: await-held NAME.
func awaitHeld(ts *testscript.TestScript, neg bool, args []string) {
	await(ts, args, "granted", !neg)
}

// awaitWaiting waits until a session waits for the lock of a name.
func awaitWaiting(ts *testscript.TestScript, neg bool, args []string) {
	await(ts, args, "NOT granted", !neg)
}

// awaitLease waits until a process holds the lease of a name, in the schema pglock:
// await-lease NAME.
func awaitLease(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("expected the name of a lease")
	}
	ts.Check(poll(ts, "SELECT EXISTS (SELECT FROM pglock.lease JOIN pglock.session ON id = owner"+
		" WHERE until > clock_timestamp() AND name = '"+args[0]+"')", !neg))
}

// awaitSQL waits until a query returns true: await-sql QUERY.
func awaitSQL(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("expected a query")
	}
	ts.Check(poll(ts, args[0], !neg))
}

func await(ts *testscript.TestScript, args []string, condition string, want bool) {
	if len(args) != 1 {
		ts.Fatalf("expected the name of a lock")
	}
	d, err := connectString(ts.Getenv("CONNSTRING"))
	ts.Check(err)
	defer d.close()
	ts.Check(d.awaitLock(pglock.Name(args[0]), condition, want))
}

func testBinary(t testing.TB) string {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// oneLine fails if text is more than one line.
func oneLine(t *testing.T, text string) {
	t.Helper()
	if strings.Count(strings.TrimSuffix(text, "\n"), "\n") > 0 {
		t.Errorf("more than one line:\n%s", text)
	}
}
