//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// canary is a password that must not appear anywhere.
const canary = "Kanarienvogel"

// passwordWays returns the ways to give a password: what they add to the command line and
// to the environment. Each file is in a separate directory.
func passwordWays(t *testing.T, user, password, host, port, database string) map[string]struct{ args, env []string } {
	t.Helper()
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	uri := fmt.Sprintf("postgres://%s:%s@%s:%s/%s?sslmode=disable", user, password, host, port, database)
	pairs := fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable password = '%s'", host, port, user, database, password)
	flags := []string{"-h", host, "-p", port, "-U", user, "-d", database}
	type way = struct{ args, env []string }
	return map[string]way{
		"URI":               {args: []string{"-d", uri}},
		"URI, in its query": {args: []string{"-d", fmt.Sprintf("postgres://%s:%s/%s?sslmode=disable&user=%s&password=%s", host, port, database, user, password)}},
		"pairs":             {args: []string{"-d", pairs}},
		"PGPASSWORD":        {args: flags, env: []string{"PGPASSWORD=" + password}},
		"PGPASSFILE":        {args: flags, env: []string{"PGPASSFILE=" + write(fmt.Sprintf("# %[2]s\n%[2]s\n*:*:*:%[1]s:%[2]s\n", user, password))}},
		"service":           {env: []string{"PGSERVICE=s", "PGSERVICEFILE=" + write(fmt.Sprintf("[s]\nhost=%s\nport=%s\nuser=%s\ndbname=%s\npassword=%s\n", host, port, user, database, password))}},
		"config, URI":       {args: []string{"-d", "c", "--config-file", write("databases: {c: '" + uri + "'}\n")}},
		"config, pairs":     {args: []string{"-d", "c", "--config-file", write("databases: {c: \"" + pairs + "\"}\n")}},
		"config, keys": {args: []string{"-d", "c", "--config-file", write(fmt.Sprintf(
			"databases: {c: {host: %s, port: %q, user: %s, dbname: %s, password: %s, sslpassword: %[5]s}}\n", host, port, user, database, password))}},
		"config, default": {args: []string{"--config-file", write("databases: {c: '" + uri + "'}\ndefaults: {database: c}\n")}, env: []string{"PGHOST=", "PGDATABASE="}},
	}
}

// A password does not appear in anything that pglock writes, passes on or sends, however it
// was given and whatever fails.
func TestNoPasswordAnywhere(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true, HBA: []string{"host all alice,bob 127.0.0.1/32 scram-sha-256"}})
	s := site{server: server, name: "postgres", database: connectTo(t, server.ConnString("postgres"))}
	s.place.binary = build(t, ".")
	s.exec(t, "CREATE ROLE alice LOGIN PASSWORD '"+canary+"'")
	s.exec(t, "CREATE ROLE bob LOGIN PASSWORD 'another'")
	port := fmt.Sprint(s.conn.Config().Port)
	clean := func(t *testing.T, what string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if i := strings.Index(text, canary[:6]); i >= 0 {
				t.Errorf("%s: the password appears: %q", what, text[max(0, i-60):min(len(text), i+60)])
			}
		}
	}
	for what, test := range map[string]struct {
		user, port, password string
		code                 map[string]int // of each verb
	}{
		"right":       {user: "alice", port: port, password: canary, code: map[string]int{"ls": 0, "run": 0, "prioritize": 0, "config": 0}},
		"wrong":       {user: "bob", port: port, password: canary, code: map[string]int{"ls": 1, "run": 1, "prioritize": 1, "config": 0}},
		"unreachable": {user: "alice", port: "1", password: canary, code: map[string]int{"ls": 69, "run": 69, "prioritize": 69, "config": 0}},
	} {
		for name, way := range passwordWays(t, test.user, test.password, "127.0.0.1", test.port, "postgres") {
			for verb, args := range map[string][]string{
				"ls":         {"ls", "-w"},
				"run":        {"run", "-w"},
				"prioritize": {"prioritize", "-w"},
				"config":     {"config"},
			} {
				args = append(args, way.args...)
				env := append([]string{"PGPASSWORD="}, way.env...)
				if verb == "run" || verb == "prioritize" {
					if verb == "run" {
						args = append(args, "x")
					}
					// The environment and arguments of the command, the guard and
					// pglock, except pglock's own arguments, which the caller chose.
					args = append(args, "--", "sh", "-c", "tr '\\0' ' ' </proc/$PPID/cmdline; tr '\\0' ' ' </proc/$$/cmdline; env | grep -v ^PGPASSWORD=")
				}
				stdout, stderr, code := s.once(t, env, args...)
				label := fmt.Sprintf("%s, %s, %s", verb, what, name)
				if code != test.code[verb] {
					t.Errorf("%s: exit code %d, not %d: %s", label, code, test.code[verb], stderr)
				}
				clean(t, label, stdout, stderr)
				if verb == "config" {
					stdout, stderr, _ = s.once(t, env, append(args, "-o", "json")...)
					clean(t, label+", JSON", stdout, stderr)
				}
			}
		}
	}
	// Invalid connection strings.
	for _, dsn := range []string{
		"postgres://alice:%s@127.0.0.1:port/d", "postgres://alice:%s@127.0.0.1:99999/d", "postgres://alice:a/%s@127.0.0.1/d", "postgres://alice:%s%%zz@127.0.0.1/d",
		"postgres://alice:%s@[::1/d", "postgres://alice:%s@a b/d", "Postgres://alice:%s@127.0.0.1/d?x=y", "alice:%s@127.0.0.1/d?x=y",
		"postgres://127.0.0.1/d?password=%s&sslmode=loud", "postgres://127.0.0.1/d?password=%s%%00", "postgres://127.0.0.1:1/d?PASSWORD=%s",
		"host=127.0.0.1 password=%s port=x", "host=127.0.0.1 password='x %s", "host=127.0.0.1 password=x %s", "host=127.0.0.1 password=x %s port=1",
		"host=127.0.0.1 password = 'a %s' sslmode=loud", "host=127.0.0.1 password=%s connect_timeout=soon", "host=127.0.0.1 password=%s sslcrl=x",
		"host=127.0.0.1 password=%s sslcert=/none sslkey=/none sslmode=require", "host=127.0.0.1 Password=%s",
	} {
		dsn = fmt.Sprintf(dsn, canary)
		for _, args := range [][]string{{"ls", "-d", dsn}, {"config", "-d", dsn}, {"run", "-d", dsn, "x", "--", "true"}, {"prioritize", "-d", dsn, "--", "true"}} {
			stdout, stderr, code := s.once(t, nil, args...)
			if code == 0 && args[0] != "config" {
				t.Errorf("%s: no error", dsn)
			}
			clean(t, args[0]+" "+dsn, stdout, stderr)
		}
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(fmt.Sprintf("databases: {c: %q}\n", dsn)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config"}, {"config", "-o", "json"}, {"ls", "-d", "c"}} {
			stdout, stderr, _ := s.once(t, nil, append(args, "--config-file", file)...)
			clean(t, args[0]+" of a file with "+dsn, stdout, stderr)
		}
	}
	// Invalid files and variables.
	for name, env := range map[string][]string{
		"service":          {"PGSERVICE=s", "PGSERVICEFILE=" + fileOf(t, "[s]\npassword "+canary+"\n")},
		"none":             {"PGSERVICE=s", "PGSERVICEFILE=" + fileOf(t, canary+"\x00\xff\n[s")},
		"large":            {"PGSERVICE=s", "PGSERVICEFILE=" + fileOf(t, strings.Repeat(canary+"\n", 1<<17))},
		"pgpass":           {"PGHOST=127.0.0.1", "PGUSER=bob", "PGPASSFILE=" + fileOf(t, strings.Repeat(":"+canary+"\x00\xff\\:\n", 1<<16))},
		"pgpass, one line": {"PGHOST=127.0.0.1", "PGUSER=bob", "PGPASSFILE=" + fileOf(t, "*:*:*:*:"+strings.Repeat(canary, 1<<14))},
		"pgpass, a folder": {"PGHOST=127.0.0.1", "PGUSER=bob", "PGPASSFILE=" + t.TempDir()},
		"variable":         {"PGHOST=127.0.0.1", "PGUSER=bob", "PGPASSWORD=" + canary, "PGSSLMODE=" + "loud"},
		"port":             {"PGPASSWORD=" + canary, "PGPORT=-1"},
		"timeout":          {"PGPASSWORD=" + canary, "PGCONNECT_TIMEOUT=soon"},
		"options":          {"PGPASSWORD=" + canary, "PGOPTIONS=--nonsense"},
	} {
		stdout, stderr, code := s.once(t, env, "ls", "-w")
		if code == 0 {
			t.Errorf("%s: no error", name)
		}
		clean(t, name, stdout, stderr)
		if len(stderr) > 2000 {
			t.Errorf("%s: an error of %d bytes", name, len(stderr))
		}
		if name == "pgpass, a folder" {
			_, stderr, _ = strings.Cut(stderr, "\n") // the first line reports that the file is ignored
		}
		oneLine(t, stderr)
	}
	// The server's log does not contain it either.
	clean(t, "the server's log", server.Logs())
	t.Run("typed", func(t *testing.T) {
		for user, code := range map[string]int{"alice": 0, "bob": 1} {
			term := s.inTerminal(t, "-W", "-h", "127.0.0.1", "-U", user, "run", "typed", "--", "sh", "-c", "env; read line")
			term.sees("Password for user ")
			eventually(t, "the silence of the terminal", term.silent)
			term.types(canary + "\n")
			if code == 0 {
				term.sees("PGLOCK_NAME=typed")
				s.holder(t, "typed")
				term.sees("PGLOCK_KEY=" + fmt.Sprint(pglock.Name("typed").ID()))
				term.types("\n")
			} else {
				term.sees("password authentication failed")
			}
			term.want(code)
			clean(t, "typed by "+user, term.shown())
		}
	})
}

func fileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
