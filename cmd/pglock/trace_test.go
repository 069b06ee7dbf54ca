//go:build unix

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	folder := t.TempDir()
	schema, file := filepath.Join(folder, "schema.sql"), filepath.Join(folder, "1.sql")
	for name, text := range map[string]string{
		schema: "CREATE TABLE orders (id int PRIMARY KEY, status text);",
		file:   "ALTER TABLE orders ALTER id TYPE bigint; CREATE INDEX ON orders (status);",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
