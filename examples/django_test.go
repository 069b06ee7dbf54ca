package examples_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/pgxannotate"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// djangoProgram is a Django program that writes and reads contexts in the form of
// django-pgactivity: a JSON object in a comment before the statement, without * and
// with a line break after it. It reads one command in JSON per line: an object is a
// context in which it locks key 7 in a new transaction; it answers with its PID. A
// string is the application_name of sessions whose contexts and queries it answers.
const djangoProgram = `
import json, sys
path, host, port, user, name = sys.argv[1:]
if path:
    sys.path.insert(0, path)
import django
from django.conf import settings
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, "USER": user, "NAME": name,
    "OPTIONS": {"application_name": "django"},
}})
django.setup()
from django.db import connection, transaction

comment = r"^/\*pga_context={[^\*]*}\*/"

def annotated(context):
    def wrapper(execute, sql, params, many, kwargs):
        return execute("/*pga_context=%s*/\n%s" % (json.dumps(context).replace("*", "-"), sql), params, many, kwargs)
    return connection.execute_wrapper(wrapper)

transaction.set_autocommit(False)
for line in sys.stdin:
    command = json.loads(line)
    transaction.rollback()
    with connection.cursor() as cursor:
        if isinstance(command, dict):
            with annotated(command):
                cursor.execute("SELECT pg_advisory_xact_lock(7)")
            answer = connection.connection.get_backend_pid()
        else:
            # All sessions are read, so that one with a broken context would be noticed.
            cursor.execute("""SELECT application_name,
                    rtrim(ltrim((regexp_match(query, %s))[1], '/*pga_context='), '*/')::jsonb,
                    regexp_replace(query, %s, '')
                FROM pg_stat_activity WHERE datname = current_database()""", [comment, comment + "\\n"])
            answer = [[json.loads(context) if isinstance(context, str) else context, query]
                for application, context, query in cursor.fetchall() if application == command]
    print(json.dumps(answer), flush=True)
`

// django starts the Django program on a database. Django and psycopg2 come from the
// machine or from Debian. Where there is neither the test is skipped, but not in CI.
func django(t *testing.T, dsn string) *dialogue {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	must(t, err)
	args := func(path string) []string {
		return []string{"-c", djangoProgram, path, config.Host, strconv.Itoa(int(config.Port)), config.User, config.Database}
	}
	works := func(python pgserver.Program, path string) bool {
		return python.Command(t.Context(), "-c", "import sys; sys.path.insert(0, sys.argv[1]); import django, psycopg2", path).Run() == nil
	}
	pythons := []pgserver.Program{find(t, "python3"), {Path: "/usr/bin/python3"}}
	for _, python := range pythons {
		if works(python, "") {
			return start(t, python, args("")...)
		}
	}
	// Not t.Context: the first call may have to download it.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	debian, err := pgserver.FindProgram(ctx, "django-admin", os.Stderr)
	if err == nil {
		usr := filepath.Dir(filepath.Dir(debian.Path))
		path := filepath.Join(usr, "lib/python3/dist-packages")
		for _, python := range []string{filepath.Join(usr, "bin/python3"), "/usr/bin/python3", pythons[0].Path} {
			program := debian // with its libraries
			program.Path = python
			if works(program, path) {
				return start(t, program, args(path)...)
			}
		}
	}
	const message = "no Python with Django and psycopg2: install Debian's python3-django and python3-psycopg2, or with pip django and psycopg2-binary (%v)"
	if os.Getenv("CI") == "true" {
		t.Fatalf(message, err)
	}
	t.Skipf(message, err)
	return nil
}

// Django reads the context of a Go program, and a Go program that of Django.
func TestContextsInDjango(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	dsn := server.ConnString(pgtest.DatabaseOn(t, server))
	python := django(t, dsn)

	hostile := "/a b/*c*/?d='e'&f=%41$1:x@y;--\x00é🔒\xff\\\""
	ctx := inspect.Annotate(inspect.Annotate(t.Context(), "job", "nightly"), "hostile", hostile)
	const query = "SELECT pg_advisory_lock($1::int)"
	for name, opts := range map[string][]inspect.CommentOption{"go": {inspect.DjangoComment()}, "sqlcommenter": nil} {
		conn := other(t, dsn+" application_name="+name)
		_, err := pgxannotate.DB(conn, opts...).Exec(ctx, query, len(name))
		must(t, err)
	}
	type session struct {
		context map[string]any
		query   string
	}
	read := func(application string) session {
		t.Helper()
		var sessions [][2]any
		must(t, json.Unmarshal([]byte(python.call(strconv.Quote(application))), &sessions))
		if len(sessions) != 1 {
			t.Fatalf("Django sees %q", sessions)
		}
		context, _ := sessions[0][0].(map[string]any)
		query, _ := sessions[0][1].(string)
		return session{context, query}
	}
	got := read("go")
	if got.query != query || len(got.context) != 2 || got.context["job"] != "nightly" || got.context["hostile"] != "/a b/*c*/?d='e'&f=%41$1:x@y;--\ufffdé🔒\ufffd\\\"" {
		t.Errorf("Django reads %q, %q", got.context, got.query)
	}
	if got := read("sqlcommenter"); got.context != nil {
		t.Errorf("Django reads %q of a comment in another form", got.context)
	}

	pid, err := strconv.Atoi(python.call(`{"url": "/checkout/", "n": 3, "price": 1.50, "deep": {"a": [1, null]}, "é": "*/"}`))
	must(t, err)
	q := pgxlock.Conn(other(t, dsn))
	for _, filter := range []string{"context.url = /checkout/", "context.n = 3", "context.deep.a.0 = 1", "context.deep.a.1 is null", "context.é = -/"} {
		f, err := inspect.ParseFilter(filter)
		must(t, err)
		locks, err := inspect.Locks(t.Context(), q, f, inspect.Where("key", "=", "7"), inspect.PIDs(int32(pid)))
		must(t, err)
		if len(locks) != 1 {
			t.Errorf("%s matches %d locks", filter, len(locks))
			continue
		}
		if l := locks[0]; l.Context != `{"url":"/checkout/","n":3,"price":1.5,"deep":{"a":[1,null]},"é":"-/"}` || l.Query != "SELECT pg_advisory_xact_lock(7)" {
			t.Errorf("the context is %s, the query %q", l.Context, l.Query)
		}
	}
}
