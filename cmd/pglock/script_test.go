//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestScripts runs the scripts in testdata against the shared server. Each has a
// database of its own, which PG* variables name.
func TestScripts(t *testing.T) {
	runScripts(t, "testdata", pgtest.Server(t))
}

// TestPasswordScripts runs those that need passwords: alice and bob have them.
func TestPasswordScripts(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{
		TCP: true,
		HBA: []string{
			"local all alice,bob scram-sha-256",
			"host all alice,bob 127.0.0.1/32 scram-sha-256",
		},
	})
	database := connectTo(t, server.ConnString("postgres"))
	for _, role := range []string{"alice", "bob"} {
		database.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret of "+role+"'")
	}
	runScripts(t, filepath.Join("testdata", "password"), server)
}

func runScripts(t *testing.T, dir string, server *pgserver.Server) {
	bin := t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(bin, "pglock")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			name := pgtest.DatabaseOn(env.T().(testing.TB), server)
			env.Vars = append(env.Vars, server.Env(name)...)
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("GORACE", goRace)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("CONNSTRING", server.ConnString(name))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":         exits,
			"await-held":    awaitHeld,
			"await-waiting": awaitWaiting,
		},
	})
}

// exits runs a command and checks its exit code: exits CODE COMMAND...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("an exit code and a command are needed")
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

// awaitWaiting waits until somebody waits for the lock of a name.
func awaitWaiting(ts *testscript.TestScript, neg bool, args []string) {
	await(ts, args, "NOT granted", !neg)
}

func await(ts *testscript.TestScript, args []string, condition string, want bool) {
	if len(args) != 1 {
		ts.Fatalf("the name of a lock is needed")
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

// oneLine fails unless text is one line, or none.
func oneLine(t *testing.T, text string) {
	t.Helper()
	if strings.Count(strings.TrimSuffix(text, "\n"), "\n") > 0 {
		t.Errorf("more than one line:\n%s", text)
	}
}
