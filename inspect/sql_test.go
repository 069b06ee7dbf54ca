package inspect

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Nothing in the SQL depends on search_path: every operator and function is
// Postgres' own. TestHostileSearchPath tries that; this looks everywhere.
func TestSQLIsQualified(t *testing.T) {
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sql := string(text)
		for _, cut := range []string{`--[^\n]*`, `:?E?'[^']*'`, `OPERATOR\(pg_catalog\.[^)]*\)`, `\w\.\*`} {
			sql = regexp.MustCompile(cut).ReplaceAllString(sql, " ")
		}
		if bare := regexp.MustCompile(`[^\n]*[-+*/<>=~!@#%^&|?][^\n]*`).FindString(sql); bare != "" {
			t.Errorf("%s: an operator that search_path decides: %s", name, strings.TrimSpace(bare))
		}
		if bare := regexp.MustCompile(`(?i)[^\n]*\b(IN|LIKE|BETWEEN|NULLIF|GREATEST|LEAST|IS (NOT )?DISTINCT|CASE \S+ WHEN|JOIN [^\n]* USING)\b[^\n]*`).FindString(sql); bare != "" {
			t.Errorf("%s: syntax that hides an operator: %s", name, strings.TrimSpace(bare))
		}
		syntax := []string{
			"CAST", "COALESCE", "ROW", "EXTRACT", "EXISTS", "ANY", "ALL", "ARRAY", "AS", "AND", "OR", "NOT", "FROM", "LATERAL", "JOIN", "MATERIALIZED", "ON", "BY", "THEN", "WHEN",
			"family", "b", "u", "w", "t", "v", "x",
		} // aliases with columns
		for _, call := range regexp.MustCompile(`([\w.]+)\s*\(`).FindAllStringSubmatch(sql, -1) {
			if f := call[1]; !strings.HasPrefix(f, "pg_catalog.") && !slices.Contains(syntax, f) {
				t.Errorf("%s: the function %s that search_path decides", name, f)
			}
		}
		for _, cast := range regexp.MustCompile(`\bAS ([\w.]+)(\[\])?\)`).FindAllStringSubmatch(sql, -1) {
			if len(cast[1]) > 1 && !strings.HasPrefix(cast[1], "pg_catalog.") { // one letter is an alias
				t.Errorf("%s: the type %s that search_path decides", name, cast[1])
			}
		}
	}
}

// Workers that wait are their leader, however many of them wait.
func TestWorkersThatWait(t *testing.T) {
	session := func(pid, leader int32) *Session { return &Session{PID: pid, LeaderPID: leader} }
	leader, worker1, worker2, holder, ahead := session(1, 0), session(2, 1), session(3, 1), session(4, 0), session(5, 4)
	lock := func(s *Session, mode string, granted bool) Lock {
		return Lock{Session: s, Type: typeRelation, RelationOID: 9, Mode: mode, Granted: granted}
	}
	r := &reading{
		sessions: map[int32]*Session{1: leader, 2: worker1, 3: worker2, 4: holder, 5: ahead},
		waits:    map[int32][]int32{2: {4, 4, 1}, 3: {4}},
		locks: []Lock{
			lock(worker1, "AccessShareLock", false),
			lock(worker2, "AccessShareLock", false),
			lock(ahead, "AccessExclusiveLock", true), // a worker of holder
			lock(leader, "AccessShareLock", true),
		},
	}
	pairs := r.pairs()
	if len(pairs) != 1 {
		t.Fatalf("%d pairs, want 1: %+v", len(pairs), pairs)
	}
	if p := pairs[0]; p.Session != leader || p.Blocking != holder || p.Block != Hard || p.Held.Session != ahead || p.waiter != 2 {
		t.Errorf("%+v", p)
	}
	if r.locks[0].Session != worker1 {
		t.Error("the lock itself was changed")
	}
}
