//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// findings runs pglock doctor -o json and returns its findings by ID, and its exit code.
func (s site) findings(t *testing.T, args ...string) (map[string]map[string]any, int) {
	t.Helper()
	cmd := exec.Command(testBinary(t), append([]string{"doctor", "-o", "json"}, args...)...)
	cmd.Args[0] = "pglock"
	cmd.Env = s.env()
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	var all []map[string]any
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	byID := map[string]map[string]any{}
	for _, f := range all {
		byID[f["id"].(string)] = f
	}
	return byID, cmd.ProcessState.ExitCode()
}

// The JSON of doctor is what docs/doctor.md documents: every name is always there, with
// its type, and every ID is on the page.
func TestDoctorContract(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := func(name string) {
		if !strings.Contains(string(guide), "`"+name+"`") {
			t.Errorf("docs/doctor.md does not describe %s", name)
		}
	}
	s := newSite(t)
	findings, _ := s.findings(t)
	unreachable, code := s.findings(t, "-h", "/nowhere")
	if code != 1 {
		t.Errorf("without a server the exit code is %d", code)
	}
	if len(findings) < 15 || len(unreachable) < 3 {
		t.Fatalf("only the findings %v and %v", findings, unreachable)
	}
	for _, f := range append([]map[string]any{unreachable["reachable"]}, values(findings)...) {
		documented(f["id"].(string))
		documented(f["check"].(string))
		for _, name := range []string{"check", "id", "level", "text", "advice", "note"} {
			value, ok := f[name]
			if !ok {
				t.Errorf("%v has no %s", f, name)
			}
			switch v := value.(type) {
			case string:
				ok = v != "" && name != "advice" && (name != "level" || v == "ok" || v == "warning" || v == "problem")
			case []any:
				ok = name == "advice"
			case nil:
				ok = name == "note"
			}
			if !ok {
				t.Errorf("%s is %#v in %v", name, value, f)
			}
			documented(name)
		}
		if len(f) != 6 {
			t.Errorf("more than is documented: %v", f)
		}
	}
	for _, level := range []string{"ok", "warning", "problem"} {
		documented(level)
	}
}

func values(m map[string]map[string]any) []map[string]any {
	var all []map[string]any
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// Through a pooler doctor works in any mode, and finds out which; its advice leads around
// the pooler.
func TestDoctorThroughAPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Session, pgbouncer.Transaction, pgbouncer.Statement} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			bouncer := pgbouncer.Start(t, s.server, mode)
			t.Cleanup(func() { bouncer.Stop(t) })
			dsn := bouncer.ConnString(s.name)
			findings, code := s.findings(t, "-d", dsn)
			pooler := findings["pooler"]
			if text := fmt.Sprint(pooler["text"]); code != 0 || pooler["level"] != "warning" || !strings.Contains(text, "a pooler in "+string(mode)+" mode") {
				t.Fatalf("exit code %d, %v", code, pooler)
			}
			for id, f := range findings {
				if strings.Contains(fmt.Sprint(f["text"]), "could not be checked") {
					t.Errorf("%s: %v", id, f)
				}
			}
			advice := pooler["advice"].([]any)
			direct, _ := s.findings(t, "-d", dsn+" "+fmt.Sprint(advice[0]), "--only", "pooler")
			if direct["pooler"]["level"] != "ok" {
				t.Errorf("with %v: %v", advice, direct)
			}
		})
	}
}

// On a standby everything is checked, and the advice leads to the primary.
func TestDoctorOnAStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, pgserver.Options{})
	standby := pgtest.Standby(t, primary)
	s := site{server: standby, name: "postgres"}
	findings, code := s.findings(t)
	standbyFinding := findings["standby"]
	if code != 0 || standbyFinding["level"] != "warning" {
		t.Fatalf("exit code %d, %v", code, standbyFinding)
	}
	hosts := fmt.Sprintf("dbname=postgres host=%s,%s port=%d,%d %s", standby.Host(), primary.Host(), standby.Port(), primary.Port(),
		standbyFinding["advice"].([]any)[0])
	if findings, _ := s.findings(t, "-d", hosts, "--only", "standby"); findings["standby"]["level"] != "ok" {
		t.Errorf("with the advice: %v", findings)
	}
}

// On a terminal, doctor reports what it can show, and its advice helps.
func TestDoctorOfATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.needs = append(s.needs, "TERM=xterm", "NO_COLOR=", "LC_ALL=C")
	term := s.inTerminal(t, "doctor", "--only", "terminal")
	term.sees("120 columns, color: the locale is not UTF-8")
	term.sees("export LC_ALL=C.UTF-8")
	term.sees("1 warning")
	term.want(0)
	s.needs = append(s.needs, "LC_ALL=C.UTF-8")
	term = s.inTerminal(t, "doctor", "--strict", "--only", "terminal,sees")
	term.sees("[\x1b[32m✓\x1b[0m] sees")
	term.sees("120 columns, color, UTF-8")
	term.want(0)
}
