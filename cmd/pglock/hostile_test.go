//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// evil is text that must not reach a terminal: it changes colors, writes to the clipboard,
// makes links, rings the bell, moves the cursor, and reverses the text direction. It has
// no line break, which names of roles and databases cannot have from Postgres 19 on.
const evil = "evil\x1b[31m\x1b]52;c;eA==\a\x1b]8;;http://x\x1b\\\u009b2J\b\u202e\u2066\u200b\x7f"

// unsafe returns the characters of text that a terminal would interpret, or "".
func unsafe(text string) string {
	i := strings.IndexFunc(text, func(r rune) bool {
		return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r))
	})
	if i < 0 {
		return ""
	}
	return text[max(0, i-40):min(len(text), i+40)]
}

// once runs pglock and returns its output and exit code.
func (s site) once(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary(t), args...)
	cmd.Args[0] = "pglock"
	cmd.Env = append(s.env(), env...)
	cmd.Dir = t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("pglock %q did not end", args)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The verbs work even if search_path finds other objects before those of pg_catalog.
func TestVerbsInShadow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dsn := s.server.ConnString(s.name)
	pgtest.Shadow(t, dsn)
	s.exec(t, "CREATE TABLE public.t ()")
	shadow := []string{"PGOPTIONS=-c search_path=" + pgtest.ShadowPath}
	holder := connectTo(t, dsn+" application_name=holder")
	holder.exec(t, "BEGIN")
	holder.exec(t, "LOCK TABLE t")
	waiter := connectTo(t, dsn+" application_name=waiter")
	waits := make(chan error, 1)
	go func() { _, err := waiter.conn.Exec(context.Background(), "SELECT FROM public.t"); waits <- err }()
	eventually(t, "somebody waits", func() (yes bool) {
		_ = s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", waiter.conn.PgConn().PID()).Scan(&yes)
		return yes
	})
	if err := holder.conn.PgConn().Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"ls -f database=" + s.name: "AccessExclusiveLock",
		"ls --on t -a application": "waiter",
		"ls --blocking --on public.t -f query~t -f application~wait -f wait_duration>0s -a blocking_application": "holder",
		"ps --on t -f query~t -f xact_duration>0s -a application":                                                "waiter",
		"tree --on t":                          "waiter",
		"cancel --dry-run --blocking --on t":   "holder",
		"doctor --only room,now,settings":      "log_lock_waits",
		"config":                               "dbname",
		"run --no-wait shadow -- echo it runs": "it runs",
	} {
		stdout, stderr, code := s.once(t, shadow, strings.Fields(args)...)
		if code > 1 || code == 1 && !strings.HasPrefix(args, "cancel") || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d\n%s\n%s", args, code, stdout, stderr)
		}
	}
	s.exec(t, "SELECT pg_advisory_lock($1)", pglock.Name("shadow").ID())
	if _, stderr, code := s.once(t, shadow, "run", "--no-wait", "shadow", "--", "true"); code != 75 || !strings.Contains(stderr, "is held by pid") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if stdout, stderr, code := s.once(t, shadow, "terminate", "-y", "--blocking", "--roots", "--on", "t", "--wait", "20s"); code != 0 || !strings.Contains(stdout, "terminated") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
	waiter.exec(t, "BEGIN")
	waiter.exec(t, "LOCK TABLE t")
	path := migratorIn(t)
	_, stderr, code := s.once(t, shadow, "prioritize", "--terminate", "--after", "50ms", "--allow", "superusers",
		"-f", "blocking_application = waiter", "--", path, "ALTER TABLE public.t ADD COLUMN c bigint")
	if code != 0 || !strings.Contains(stderr, "terminated") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// hostileSite returns a server on which every name is evil, with a session that waits for
// another.
func hostileSite(t *testing.T) (s site, waiter database) {
	t.Helper()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "4"}})
	s = site{server: server, name: evil, database: connectTo(t, server.ConnString("postgres"))}
	quoted := pgx.Identifier{evil}.Sanitize()
	s.exec(t, "CREATE ROLE "+quoted+" LOGIN SUPERUSER")
	s.exec(t, "CREATE DATABASE "+quoted)
	config, err := pgx.ParseConfig(server.ConnString(evil))
	if err != nil {
		t.Fatal(err)
	}
	config.User = evil
	config.RuntimeParams["application_name"] = evil
	connect := func() database {
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		d := database{conn}
		t.Cleanup(d.close)
		return d
	}
	holder, waiter := connect(), connect()
	holder.exec(t, "CREATE SCHEMA "+quoted)
	holder.exec(t, "CREATE TABLE "+quoted+"."+quoted+" ()")
	holder.exec(t, "BEGIN")
	holder.exec(t, "SELECT pg_advisory_xact_lock(77)")
	holder.exec(t, "PREPARE TRANSACTION '"+evil+"'")
	holder.exec(t, "SELECT pg_advisory_lock($1)", pglock.Name(evil).ID())
	holder.exec(t, "BEGIN")
	holder.exec(t, "LOCK TABLE "+quoted+"."+quoted+" /* "+evil+" */")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.conn.Exec(context.Background(), `/*pga_context={"a": "\u001b[31m\u202e"}*/ SELECT FROM `+quoted+"."+quoted+" /* "+evil+" */")
	}()
	t.Cleanup(func() { holder.close(); <-done })
	eventually(t, "somebody waits", func() (yes bool) {
		_ = s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", waiter.conn.PgConn().PID()).Scan(&yes)
		return yes
	})
	return s, waiter
}

// Evil names on the server, on the command line and in the environment are escaped in all
// output, prompts and errors.
func TestNothingEvilIsShown(t *testing.T) {
	t.Parallel()
	s, waiter := hostileSite(t)
	s.place.binary = build(t, ".")
	dir := t.TempDir()
	file := filepath.Join(dir, "evil.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("views: {v: {description: " + fmt.Sprintf("%q", "\x1b[31m") + ", filters: [" + fmt.Sprintf("%q", "user = "+evil) + "]}}\n" +
		"databases: {d: " + fmt.Sprintf("%q", "host=x dbname='"+evil+"'") + "}\n")
	wrong := filepath.Join(dir, evil[:4]+"\x1b[31m.yaml")
	if err := os.WriteFile(wrong, []byte("\"\\e[31m\\u202e\": 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := pgx.Identifier{evil, evil}.Sanitize()
	path := migratorIn(t)
	pid := fmt.Sprint(waiter.conn.PgConn().PID())
	tests := []struct {
		args []string
		env  []string
		code int
		want string // in the output
	}{
		{args: []string{"ls"}, want: `evil\x1b[31m`},
		{args: []string{"ls", "-o", "table"}, want: `evil\x1b[31m`},
		{args: []string{"ls", "-o", "csv"}, want: `evil\x1b[31m`},
		{args: []string{"ls", "-o", "json"}, want: `\u001b[31m`},
		{args: []string{"ls", "-e"}, want: `evil\x1b[31m`},
		{args: []string{"ls", "--blocking", "-o", "table", "-a", "user,database,application,relation,schema,query,context,blocking_user,blocking_application"}, want: `\u202e`},
		{args: []string{"ps"}, want: `evil\x1b[31m`},
		{args: []string{"ps", "-o", "table", "-a", "user,database,application,query,context"}, want: `\u202e`},
		{args: []string{"ps", "-o", "json"}, want: `\u001b[31m`},
		{args: []string{"ls", "--on", table}, want: `evil\x1b[31m`},
		{args: []string{"ls", "-f", "user = " + evil}, want: `evil\x1b[31m`},
		{args: []string{"tree"}, want: `evil\x1b[31m`},
		{args: []string{"tree", "-o", "json"}, want: `\u001b[31m`},
		{args: []string{"tree", "-a", "client,query,context,wait_event"}, want: `evil\x1b[31m`},
		{args: []string{"cancel", "--dry-run", "--blocking", "--all"}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"terminate", "--dry-run", "-f", "key=77", "-e"}, code: 1, want: "ROLLBACK PREPARED E'evil\\u001b[31m"},
		{args: []string{"terminate", "--dry-run", "-o", "csv", "--blocking", "--all"}, want: `evil\x1b[31m`},
		{args: []string{"doctor", "--older-than", "0s"}, want: `evil\x1b[31m`},
		{args: []string{"doctor", "--older-than", "0s", "-o", "json"}, want: `\u001b[31m`},
		{args: []string{"doctor", "--only", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"doctor", "-U", "no " + evil}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"config"}, want: `evil\x1b[31m`},
		{args: []string{"config", "-o", "json"}, want: `evil\\x1b[31m`},
		{args: []string{"config", "--config-file", file, "-c", "v"}, want: `\x1b[31m`},
		{args: []string{"config", "--config-file", file, "-o", "json", "-d", "d"}, want: `\x1b[31m`},
		{args: []string{"ls", "--config-file", wrong}, code: 2, want: `\x1b[31m`},
		{args: []string{"ls", "--config-file", wrong + "\x1b"}, code: 2, want: `\x1b`},
		{args: []string{"ls", "-c", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"key", evil}, want: `evil\x1b[31m`},
		{args: []string{"key", "-o", "json", evil}, want: `\u001b[31m`},
		{args: []string{evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"--" + evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"-" + evil}, code: 2},
		{args: []string{"ls", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-a", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-o", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-l", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-f", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-f", evil + "=1"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-f", "pid=" + evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-f", "query ~ (" + evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "--on", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "--on", "a.b." + table}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls", "-p", evil}, code: 2},
		{args: []string{"ls", "-h", "/nowhere/" + evil}, code: 69, want: `evil\x1b[31m`},
		{args: []string{"ls", "-h", "nowhere.invalid\x1b[31m"}, code: 69},
		{args: []string{"ls", "-U", "no " + evil}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"ls", "-d", "no evil\x1b[31m"}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"ls", "-h", "127.0.0.1", "-d", "sslmode=evil\x1b[31m"}, code: 2},
		{args: []string{"ls", "-d", "postgres://127.0.0.1:1/" + evil}, code: 69},
		{args: []string{"ls", "-d", "postgres://\x1b[31m:1/x"}, code: 69, want: `\x1b[31m`},
		{args: []string{"ls", "-d", "no=evil\x1b[31m"}, code: 2},
		{args: []string{"ls", "-d", "evil\x1b[31m=no"}, code: 2},
		{args: []string{"ls", "-d", "service=evil\x1b[31m"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"ls"}, env: []string{"PGDATESTYLE=evil\x1b[31m"}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"ls"}, env: []string{"PGUSER=no " + evil}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"ls"}, env: []string{"PGPORT=\x1b[31m"}, code: 2},
		{args: []string{"ls"}, env: []string{"PGSERVICE=" + evil}, code: 2},
		{args: []string{"ls"}, env: []string{"PGHOST=127.0.0.1", "PGSSLMODE=" + evil}, code: 2},
		{args: []string{"ls"}, env: []string{"PGOPTIONS=-c " + evil + "=1"}, code: 1},
		{args: []string{"run", "--no-wait", evil, "--", "true"}, code: 75, want: `evil\x1b[31m`},
		{args: []string{"run", "--wait", "5s", evil, "--", "true"}, code: 75, want: `evil\x1b[31m`},
		{args: []string{"run", evil + "2", "--", "/nowhere/" + evil}, code: 127, want: `evil\x1b[31m`},
		{args: []string{"run", evil, evil, "--", "true"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"run", "--key", evil, "--", "true"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"prioritize", evil, "--", "true"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"prioritize", "--allow", evil, "--", "true"}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"prioritize", "--application-name", evil, "--user", evil, "--dry-run", "--", "true"}, want: `evil\x1b[31m`},
		{args: []string{"prioritize", "--after", "10ms", "--", path, "SET lock_timeout = '2s'; SELECT FROM " + table}, code: 1, want: `evil\x1b[31m`},
		{args: []string{"help", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"completion", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"modes", evil}, code: 2, want: `evil\x1b[31m`},
		{args: []string{"demo", evil}, code: 2, want: `evil\x1b[31m`},
	}
	for _, test := range tests {
		stdout, stderr, code := s.once(t, test.env, test.args...)
		name := fmt.Sprintf("%.60q %.60q", test.args, test.env)
		if code != test.code {
			t.Errorf("%s: exit code %d, not %d: %s", name, code, test.code, stderr)
		}
		for _, text := range []string{stdout, stderr} {
			if part := unsafe(text); part != "" {
				t.Errorf("%s: %q", name, part)
			}
		}
		if !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%s: no %s in\n%s%s", name, test.want, stdout, stderr)
		}
		if code == 2 || code == 69 || code == 75 {
			oneLine(t, stderr)
		}
	}
	// On a terminal, pglock's own colors and cursor moves are the only escape sequences.
	ours := strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[33m", "", "\x1b[0m", "", "\x1b[1;31m", "", "\x1b[2J", "", "\x1b[H", "", "\x1b[2K", "", "\x1b[J", "", "\r\r\n", "\n", "\r\n", "\n")
	for args, ends := range map[string]string{
		"ls": "", "ls -e": "", "tree": "", "ls --blocking": "", "ls --watch 100ms": "Ctrl-C to stop", "tree --watch 100ms": "Ctrl-C to stop",
		"terminate --blocking --all": "[y/N] ", "terminate " + pid: "[y/N] ", "cancel " + pid: "[y/N] ",
	} {
		term := s.inTerminal(t, strings.Fields(args)...)
		switch ends {
		case "[y/N] ":
			term.sees("evil")
			term.sees(ends)
			term.types("n\n")
		case "":
			term.sees("evil")
		default:
			term.sees(ends)
			term.sees("evil")
			term.types("\x03")
		}
		select {
		case <-term.exited:
		case <-time.After(bound):
			t.Fatalf("%s does not end", args)
		}
		if text := term.shown(); !strings.Contains(text, "evil") {
			t.Errorf("%s: %q", args, text)
		} else if part := unsafe(strings.ReplaceAll(ours.Replace(text), "^C", "")); part != "" {
			t.Errorf("%s: %q", args, part)
		}
	}
}

// Names cannot break a table: each format reproduces them, or their documented
// replacement.
func TestHostileNamesInFormats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	names := []string{`a"b`, "a,b", "a\tb", "a\nb", "a\r\nb", "=cmd()", "+1", "@x", "-1", "a|b", `a\b`, `\n`, "'", "日本", "", "x\u0301", "null", "<b>&amp;"}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	s.exec(t, "BEGIN")
	for _, name := range names {
		id := pgx.Identifier{name}.Sanitize()
		s.exec(t, "CREATE TABLE "+id+" ()")
	}
	s.exec(t, "COMMIT")
	s.exec(t, "BEGIN")
	for _, name := range names {
		s.exec(t, "LOCK TABLE "+pgx.Identifier{name}.Sanitize()+" IN SHARE MODE")
	}
	slices.Sort(names)
	get := func(format string) string {
		stdout, stderr, code := s.once(t, nil, "ls", "-l", "0", "-f", "mode=ShareLock", "-f", "database="+s.name, "-a", "pid,relation,mode", "-o", format)
		if code != 0 || stderr != "" {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		return stdout
	}
	var objects []map[string]any
	if err := json.Unmarshal([]byte(get("json")), &objects); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o["relation"].(string))
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("json: %q", got)
	}
	records, err := csv.NewReader(strings.NewReader(get("csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, r := range records[1:] {
		got = append(got, r[1])
	}
	slices.Sort(got)
	// CSV normalizes line breaks.
	want := slices.Clone(names)
	for i, name := range want {
		want[i] = strings.ReplaceAll(name, "\r\n", "\n")
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("csv: %q", got)
	}
	rows := lines(get("tsv"))
	if len(rows) != len(names)+1 {
		t.Errorf("tsv has %d lines", len(rows))
	}
	for _, line := range rows {
		if strings.Count(line, "\t") != 2 {
			t.Errorf("tsv: %q", line)
		}
	}
	if rows := lines(get("table")); len(rows) != len(names)+1 {
		t.Errorf("the table has %d lines", len(rows))
	}
}

// The command gets its arguments byte by byte, even if they are not UTF-8.
func TestArgumentsAreBytes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const bytes = "\xff\xe9 \x1b\u202e'\"\\\n"
	for _, verb := range [][]string{{"run", "x"}, {"prioritize"}} {
		stdout, stderr, code := s.once(t, nil, append(verb, "--", "printf", "%s", bytes)...)
		if stdout != bytes || code != 0 {
			t.Errorf("%s: %q, exit code %d: %s", verb[0], stdout, code, stderr)
		}
	}
	if stdout, stderr, code := s.once(t, nil, "run", "x\u202e", "--", "sh", "-c", `printf %s "$PGLOCK_NAME"`); stdout != "x\u202e" || code != 0 {
		t.Errorf("%q, exit code %d: %s", stdout, code, stderr)
	}
}

// An invalid lock name on the command line is a usage error.
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, want := range map[string]string{
		"":                         "the name is empty",
		"\xff":                     `the name "\xff" is not valid UTF-8`,
		strings.Repeat("x", 1025):  "the name is too long: 1025 bytes, at most 1024",
		strings.Repeat("é", 50000): "the name is too long",
	} {
		for _, args := range [][]string{{"key", name}, {"run", name, "--", "true"}} {
			stdout, stderr, code := s.once(t, nil, args...)
			if code != 2 || stdout != "" || !strings.Contains(stderr, want) {
				t.Errorf("%.20q: exit code %d: %s", name, code, stderr)
			}
			oneLine(t, stderr)
		}
	}
}

// A database with encoding SQL_ASCII may contain any bytes, and all verbs work with it.
func TestDatabaseWithoutEncoding(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	name := s.name + "_ascii"
	s.exec(t, "CREATE DATABASE "+name+" ENCODING SQL_ASCII TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	holder := connectTo(t, s.server.ConnString(name)+" client_encoding=SQL_ASCII application_name=holder")
	t.Cleanup(func() { // last in, first out
		holder.close()
		_, _ = s.conn.Exec(context.Background(), "DROP DATABASE "+name)
	})
	holder.exec(t, "CREATE TABLE \"t\xe9\" ()")
	holder.exec(t, "BEGIN")
	holder.exec(t, "LOCK TABLE \"t\xe9\" /* \xff */")
	for _, database := range []string{name, s.name} {
		for _, args := range []string{"ls", "ls -o json", "ls -o csv", "tree", "terminate --dry-run"} {
			stdout, stderr, code := s.once(t, nil, append(strings.Fields(args), "-d", database, "-f", "application = holder")...)
			if code != 0 || strings.HasPrefix(args, "ls") && !strings.Contains(stdout, "AccessExclusiveLock") {
				t.Errorf("%s: exit code %d: %s%s", args, code, stdout, stderr)
			}
			if strings.HasSuffix(args, "json") && !json.Valid([]byte(stdout)) {
				t.Errorf("not JSON: %s", stdout)
			}
		}
	}
}
