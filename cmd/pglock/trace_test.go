//go:build unix

package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/trace"
)

// The JSON of trace is what docs/trace.md documents: every name is always there, and no
// other; every rule is on the page, too.
func TestTraceContract(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/trace.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := func(name string) {
		if !strings.Contains(string(guide), "`"+name+"`") {
			t.Errorf("docs/trace.md does not describe %s", name)
		}
	}
	for _, rule := range trace.Rules() {
		documented(rule)
	}
	s := newSite(t)
	conn := connectTo(t, s.server.ConnString(s.name)+" application_name=holder")
	conn.exec(t, "CREATE TABLE orders (id int PRIMARY KEY, status text); INSERT INTO orders VALUES (1)")
	conn.exec(t, "BEGIN; SELECT FROM orders")
	schema := writeFile(t, "schema.sql", "CREATE TABLE orders (id int PRIMARY KEY, status text);")
	file := writeFile(t, "1.sql", "ALTER TABLE orders ALTER id TYPE bigint; CREATE INDEX ON orders (status);")
	objects := s.jsonObjects(t, "trace", file, "--schema", schema, "--accept", "-o", "json", "--against", s.server.ConnString(s.name), "--sample", "1s")
	if len(objects) != 2 {
		t.Fatalf("%d statements", len(objects))
	}
	relation := []string{"schema", "relation", "kind", "table"}
	lock := append([]string{"mode", "stops_reads", "stops_writes", "since"}, relation...)
	parts := map[string][]string{
		"locks": lock, "held": lock,
		"effects": append([]string{
			"mode", "rewrite", "scan", "validate", "scans", "planned", "empty", "drop", "indexes",
			"rows", "bytes", "index_bytes", "reads", "writes",
		}, relation...),
		"findings": {"rule", "text", "safer", "note", "ignored"},
		"blockers": {"pid", "gid", "user", "application", "state", "xact_duration", "relation", "mode"},
	}
	names := append(slices.Collect(maps.Keys(parts)),
		"file", "line", "number", "statement", "postgres", "transaction", "outside", "waits_for_transactions", "lock_timeout", "skipped", "error")
	same := func(what string, object map[string]any, names []string) {
		got, want := slices.Sorted(maps.Keys(object)), slices.Sorted(slices.Values(names))
		if !slices.Equal(got, want) {
			t.Errorf("%s has the names\n%v, not\n%v", what, got, want)
		}
		for _, name := range names {
			documented(name)
		}
	}
	seen := map[string]bool{}
	for _, o := range objects {
		same("a statement", o, names)
		for part, names := range parts {
			for _, element := range o[part].([]any) {
				seen[part] = true
				same(part, element.(map[string]any), names)
			}
		}
	}
	for part := range parts {
		if !seen[part] {
			t.Errorf("%s is always empty", part)
		}
	}
}

// writeFile writes a file into a new folder, and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// --here runs nothing unless the answer is yes.
func TestTraceHereAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// A sequence shows that it ran: a rollback does not set it back.
	s.exec(t, "CREATE SEQUENCE ran")
	file := writeFile(t, "1.sql", "SELECT nextval('ran'); CREATE TABLE t (a int)")
	ran := func() (yes bool) {
		t.Helper()
		if err := s.conn.QueryRow(t.Context(), "SELECT is_called FROM ran").Scan(&yes); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for _, answer := range []string{"n\n", "\n", "\x04"} {
		term := s.inTerminal(t, "trace", file, "--here")
		term.sees("2 statements of")
		term.sees("rolled back, with lock_timeout = 1s")
		term.sees("Run them there? [y/N] ")
		term.types(answer)
		term.sees("nothing was run")
		term.want(3)
		if ran() {
			t.Fatalf("after the answer %q it ran", answer)
		}
	}
	term := s.inTerminal(t, "trace", file, "--here")
	term.sees("Run them there? [y/N] ")
	term.types("y\n")
	term.sees("CREATE TABLE t (a int)")
	term.want(0)
	if !ran() {
		t.Error("it did not run")
	}
	var left bool
	if err := s.conn.QueryRow(t.Context(), "SELECT to_regclass('t') IS NOT NULL").Scan(&left); err != nil || left {
		t.Errorf("the table is left: %v, %v", left, err)
	}
}

// Traces work if search_path finds other objects before those of pg_catalog: in the database
// that is read, and in its copy.
func TestTraceInShadow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dsn := s.server.ConnString(s.name)
	s.exec(t, "CREATE TABLE public.orders (id int PRIMARY KEY, status text)")
	s.exec(t, "INSERT INTO public.orders VALUES (1)")
	pgtest.Shadow(t, dsn)
	holder := connectTo(t, dsn+" application_name=holder")
	holder.exec(t, "BEGIN; SELECT FROM public.orders")
	file := writeFile(t, "1.sql", "ALTER TABLE orders ALTER id TYPE bigint; CREATE INDEX ON orders (status); CREATE INDEX CONCURRENTLY ON orders (id, status)")
	schema := writeFile(t, "schema.sql", "CREATE TABLE public.orders (id int PRIMARY KEY, status text);")
	env := []string{"PGOPTIONS=-c search_path=" + pgtest.ShadowPath}
	calls := [][]string{{"--schema", schema, "--against", s.name}}
	if dumps(t, s.server) {
		calls = append(calls, []string{"--against", s.name})
	}
	for _, args := range append(calls, []string{"--here", "-y", "--lock-timeout", "20s"}) {
		want := []string{"AccessExclusiveLock on orders: stops reads and writes", "rewrite: all of it is written anew", "index-not-concurrent", "cannot-run-in-transaction"}
		if slices.Contains(args, "--against") {
			want = append(want, "would wait now for pid ", `("holder", `)
		} else {
			holder.exec(t, "ROLLBACK")
		}
		stdout, stderr, code := s.once(t, env, append([]string{"trace", file, "--accept"}, args...)...)
		for _, text := range want {
			if code != 0 || !strings.Contains(stdout, text) {
				t.Errorf("%q: exit code %d, no %q in\n%s%s", args, code, text, stdout, stderr)
			}
		}
	}
}

// A database can be compared through a pooler, whose sessions are left as they were.
func TestTraceThroughAPooler(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int)")
	s.exec(t, "INSERT INTO orders SELECT generate_series(1, 1000)")
	s.exec(t, "ANALYZE orders")
	holder := connectTo(t, s.server.ConnString(s.name)+" application_name=holder")
	holder.exec(t, "BEGIN; SELECT FROM orders")
	file := writeFile(t, "1.sql", "ALTER TABLE orders ADD b int")
	schema := writeFile(t, "schema.sql", "CREATE TABLE orders (id int);")
	settings := func(pooled database) (all string) {
		t.Helper()
		if err := pooled.conn.QueryRow(t.Context(), `SELECT coalesce(string_agg(name || '=' || setting, ' ' ORDER BY name), '') FROM pg_settings
			WHERE source = 'session' AND name <> 'application_name'`, pgx.QueryExecModeSimpleProtocol).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, mode := range []pgbouncer.Mode{pgbouncer.Session, pgbouncer.Transaction, pgbouncer.Statement} {
		bouncer := pgbouncer.Start(t, s.server, mode, "default_pool_size = 1")
		dsn := bouncer.ConnString(s.name)
		pooled := connectTo(t, dsn)
		before := settings(pooled)
		pooled.close()
		stdout, stderr, code := s.once(t, nil, "trace", file, "--schema", schema, "--accept", "--against", dsn, "--sample", "1s")
		if code != 0 || !strings.Contains(stdout, "would wait now for pid ") || !strings.Contains(stdout, `("holder", `) {
			t.Errorf("%s: exit code %d\n%s%s", mode, code, stdout, stderr)
		}
		pooled = connectTo(t, dsn)
		if after := settings(pooled); after != before {
			t.Errorf("%s: the settings were %q, and are %q", mode, before, after)
		}
		pooled.close()
	}
}

// Evil names and texts in a migration and its schema are escaped in all formats.
func TestTraceShowsNothingEvil(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	name := evil + "\nrm -rf | `x` <b> $(x)"
	table := pgx.Identifier{name}.Sanitize()
	schema := writeFile(t, "schema.sql", "CREATE TABLE "+table+" ("+table+" text);")
	file := writeFile(t, "1\x1b[31m.sql", "ALTER TABLE "+table+" ALTER "+table+" SET NOT NULL; CREATE INDEX "+
		pgx.Identifier{"i" + evil}.Sanitize()+" ON "+table+" ("+table+") /* "+evil+" */; ALTER TABLE "+table+" ADD CONSTRAINT "+table+" CHECK ("+table+" <> "+`E'\x1b'`+")")
	fails := writeFile(t, "2.sql", "SELECT FROM "+pgx.Identifier{"no" + evil}.Sanitize())
	for _, args := range [][]string{
		{file, "--schema", schema},
		{file, "--schema", schema, "-o", "json"},
		{file, "--schema", schema, "-o", "markdown"},
		{fails, "--schema", schema},
		{fails, "--schema", schema, "-o", "json"},
		{fails, "--schema", schema, "-o", "markdown"},
		{file, "--schema", fails},
		{schema + evil[:9], "--schema", schema},
	} {
		stdout, stderr, code := s.once(t, nil, append([]string{"trace"}, args...)...)
		if code != 1 || !strings.Contains(stdout+stderr, "evil") {
			t.Errorf("%.80q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
		for _, text := range []string{stdout, stderr} {
			if part := unsafe(text); part != "" {
				t.Errorf("%.80q: %q", args, part)
			}
		}
	}
	// In Markdown, a name cannot make HTML or leave its cell.
	stdout, _, _ := s.once(t, nil, "trace", file, "--schema", schema, "-o", "markdown")
	for line := range strings.Lines(stdout) {
		if strings.HasPrefix(line, "|") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 5 {
			t.Errorf("a cell is broken: %s", line)
		}
	}
}

// The workflow in docs/trace.md works: its steps run here, in a repository with a pull
// request, and a program in place of gh.
func TestTraceWorkflow(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"git", "bash"} {
		shell(t, program)
	}
	guide, err := os.ReadFile("../../docs/trace.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses, Run, If string
				With          map[string]any
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
		t.Fatal(err)
	}

	// The repository, with a migration on its branch that is not on main.
	bin, repository := t.TempDir(), t.TempDir()
	summary := filepath.Join(bin, "summary")
	env := append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "GORACE="+goRace, "GITHUB_BASE_REF=main",
		"GITHUB_STEP_SUMMARY="+summary, "GIT_CONFIG_GLOBAL="+os.DevNull, "PGHOST=/nowhere", "CALLS="+filepath.Join(bin, "calls"))
	if err := os.Symlink(testBinary(t), filepath.Join(bin, "pglock")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "gh"), []byte("#!/bin/sh\necho \"$@\" > \"$CALLS\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(script string) (output string, code int) {
		t.Helper()
		cmd := exec.Command("bash", "-e", "-c", script)
		cmd.Dir, cmd.Env = repository, env
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, code := run(`git init -q . && git config user.name a && git config user.email a@example.com && mkdir migrations
		echo 'CREATE TABLE orders (id int, state text);' > migrations/1_orders.sql
		git add . && git commit -q -m main && git update-ref refs/remotes/origin/main HEAD
		echo 'ALTER TABLE orders ALTER state SET NOT NULL;' > migrations/2_state.sql
		git add . && git commit -q -m branch`)
	if code != 0 {
		t.Fatal(out)
	}

	var codes []int
	for _, step := range workflow.Jobs["trace"].Steps {
		switch {
		case strings.HasPrefix(step.Uses, "actions/checkout@"):
			if step.With["fetch-depth"] != 0 {
				t.Error("without its history, git does not know what changed")
			}
		case step.Uses != "" || strings.HasPrefix(step.Run, "go install "):
		default:
			out, code := run(strings.ReplaceAll(step.Run, "${{ github.event.number }}", "7"))
			codes = append(codes, code)
			if len(codes) == 2 && step.If != "always()" {
				t.Error("the comment is not written if there are findings")
			}
			if out != "" {
				t.Errorf("%s: %s", step.Run, out)
			}
		}
	}
	if !slices.Equal(codes, []int{1, 0}) {
		t.Errorf("exit codes %v", codes)
	}
	comment, err := os.ReadFile(summary)
	if err != nil || !strings.Contains(string(comment), "not-null-scans") || strings.Contains(string(comment), "CREATE TABLE") {
		t.Errorf("%v: %s", err, comment)
	}
	if calls, err := os.ReadFile(filepath.Join(bin, "calls")); err != nil || string(calls) != "pr comment 7 --body-file trace.md\n" {
		t.Errorf("%v: %s", err, calls)
	}
}
