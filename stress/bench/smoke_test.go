package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// The test binary starts itself as a worker, as the program does.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := work(ctx, os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestSmoke runs every scenario with a few operations on real servers, and writes the
// whole report. Its figures mean nothing.
func TestSmoke(t *testing.T) {
	var out, log bytes.Buffer
	s := smoke()
	all := scenarios(s)
	r, err := measure(t.Context(), s, all, []string{os.Args[0]}, "a test", &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	t.Log(log.String())
	for server, why := range r.LeftOut {
		if os.Getenv("CI") == "true" {
			t.Errorf("CI needs %s: %s", server, why)
		}
		t.Logf("SKIPPED: peers that need %s: %s", server, why)
	}
	for _, failed := range r.Failed {
		t.Error(failed)
	}
	if len(r.Scenarios) != len(all) {
		t.Fatalf("%d scenarios of %d", len(r.Scenarios), len(all))
	}
	for i := range r.Scenarios {
		checkScenario(t, r, &r.Scenarios[i])
	}
	for _, g := range goals(s) {
		if g.scenario != all[0].name && r.find(g.scenario) == nil {
			t.Errorf("the goal %q names the scenario %s, which does not exist", g.work, g.scenario)
		}
		if v := g.verdict(r); v.unknown && len(r.LeftOut) == 0 {
			t.Errorf("the goal %q was not measured: %+v", g.work, v)
		}
	}
	if r.Versions["Postgres"] == "" || r.Took <= 0 || r.Machine.Cores == 0 {
		t.Errorf("%+v", r)
	}

	// Use the real document, with its markers.
	document := filepath.Join(t.TempDir(), "performance.md")
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(document, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(document, r); err != nil {
		t.Fatal(err)
	}
	if err := writeResults(resultsFile(document), r); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups() {
		for _, p := range charts(r, g) {
			for _, suffix := range []string{"-light.svg", "-dark.svg"} {
				if !bytes.Contains(first, []byte("performance/"+p.name+suffix)) {
					t.Errorf("no picture %s%s", p.name, suffix)
				}
				if _, err := os.Stat(filepath.Join(filepath.Dir(document), "performance", p.name+suffix)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for _, m := range r.Scenarios {
		if !bytes.Contains(first, []byte("**"+m.Title+"**")) {
			t.Errorf("no table of %s", m.Name)
		}
	}

	// Rendering the stored results again gives the same document.
	if err := command(t.Context(), []string{"-render", "-document", document}, strings.NewReader(""), &out, &log); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(document); err != nil || !bytes.Equal(first, second) {
		t.Errorf("-render writes a different document: %v", err)
	}
}

func checkScenario(t *testing.T, r *Results, m *Measured) {
	t.Helper()
	if m.row(m.Ours) == nil {
		t.Errorf("%s: %s was not measured", m.Name, m.Ours)
	}
	if !slices.Contains(groups(), m.Group) {
		t.Errorf("%s: the report has no section %s", m.Name, m.Group)
	}
	names := map[string]bool{}
	for _, row := range m.Rows {
		if names[row.Name] {
			t.Errorf("%s: two rows are called %s", m.Name, row.Name)
		}
		names[row.Name] = true
		if (row.Missing == "") != (len(row.Rounds) == r.Settings.Rounds) {
			t.Errorf("%s: %s: %d rounds, missing %q", m.Name, row.Name, len(row.Rounds), row.Missing)
		}
		for _, values := range row.Rounds {
			for j, v := range values {
				if v != v || v > 1e12 {
					t.Errorf("%s: %s: %s is %v", m.Name, row.Name, m.Metrics[j].Name, v)
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	all := scenarios(full())
	for only, want := range map[string]int{"": len(all), "own-64": 1, "own": 4, "own-64,lone": 2, "slow-5": 4, "slow-1": 2, "crowd": 2, "blocked": 3, "more": 3} {
		if got, err := choose(all, only); err != nil || len(got) != want {
			t.Errorf("%q: %d scenarios, %v", only, len(got), err)
		}
	}
	if _, err := choose(all, "own-6"); err == nil || !strings.Contains(err.Error(), "own-64") {
		t.Errorf("an unknown scenario: %v", err)
	}
}

func TestEveryPeerIsDescribed(t *testing.T) {
	for _, k := range peer.Kinds() {
		if k.Label == "" || k.How == "" || k.Open == nil {
			t.Errorf("%+v", k)
		}
	}
}
