package main

import (
	"math"
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	for _, test := range []struct {
		v    float64
		unit string
		want string
	}{
		{135_432, "/s", "135,000"},
		{1_234_567, "/s", "1,230,000"},
		{999.6, "/s", "1,000"},
		{12.34, "/s", "12.3"},
		{0, "/s", "0"},
		{0.0000123, "s", "12.3 µs"},
		{0.001, "s", "1 ms"},
		{0.0999, "s", "99.9 ms"},
		{61, "s", "61 s"},
		{2e-9, "s", "2 ns"},
		{-0.0015, "s", "−1.50 ms"},
		{999.96e-6, "s", "1.00 ms"},
		{0.8, "ratio", "0.80"},
		{620, "B", "620 B"},
		{3_170_000, "B", "3,170 kB"},
		{unknown, "B", "unknown"},
		{10_000, "count", "10,000"},
		{7.25, "%", "7.25 %"},
		{math.NaN(), "/s", "unknown"},
	} {
		if got := formatValue(test.v, test.unit); got != test.want {
			t.Errorf("%v %s: %q, not %q", test.v, test.unit, got, test.want)
		}
	}
	for v, want := range map[float64]string{0.123: "0.12×", 1.5: "1.50×", 4.82: "4.8×", 41.7: "42×", 1234: "1,230×", math.Inf(1): ""} {
		if got := formatTimes(v); got != want {
			t.Errorf("%v times: %q, not %q", v, got, want)
		}
	}
}

func result(ours, bare [][]float64) *Results {
	return &Results{Settings: full(), Scenarios: []Measured{{
		Name: "lone", Group: "own", Title: "One goroutine", Ours: "pglock", Behind: "It cannot be.",
		Metrics: []Metric{{"pairs per second", "/s", "more"}, {"median", "s", "less"}},
		Rows: []Row{
			{Name: "pglock", Label: "pglock", Rounds: ours},
			{Name: "bare", Label: "bare", Rounds: bare},
			{Name: "etcd", Label: "etcd", Missing: "no etcd here"},
		},
	}}}
}

func TestGoals(t *testing.T) {
	bare := [][]float64{{100, 1}, {10, 1}, {1000, 1}}
	for _, test := range []struct {
		ours [][]float64
		met  bool
	}{
		{[][]float64{{90, 1}, {9, 1}, {900, 1}}, true},
		{[][]float64{{89, 1}, {8.9, 1}, {890, 1}}, false},
	} {
		r := result(test.ours, bare)
		for _, g := range goals(r.Settings) {
			v := g.verdict(r)
			if g.scenario != "lone" {
				if !v.unknown || v.met {
					t.Errorf("%s was not measured, but is %+v", g.work, v)
				}
				continue
			}
			if v.unknown || v.met != test.met {
				t.Errorf("%v: %+v", test.ours, v)
			}
		}
		want := "| **not met** |"
		if test.met {
			want = "| met |"
		}
		if block := goalsBlock(r); strings.Count(block, want) != 1 {
			t.Errorf("want %q exactly once:\n%s", want, block)
		}
	}
}

func TestFairnessGoal(t *testing.T) {
	m := &Measured{Ours: "pglock", Metrics: fairMetrics(), Rows: []Row{
		{Name: "pglock", Label: "pglock", Rounds: [][]float64{{200, 0.7, 0, 0, 0}}},
		{Name: "pgx", Label: "pgx", Rounds: [][]float64{{10, 0.9, 0, 0, 0}}},
	}}
	if v := fair(20, 0.8)(m); v.met || !strings.Contains(v.measured, "0.70") {
		t.Errorf("as fast, but unfair: %+v", v)
	}
	if v := fair(20, 0.7)(m); !v.met {
		t.Errorf("%+v", v)
	}
	if v := fair(21, 0.7)(m); v.met {
		t.Errorf("not as fast: %+v", v)
	}
}

func TestCrowdGoal(t *testing.T) {
	for _, test := range []struct {
		longest, client, server float64
		met, unknown            bool
	}{
		{0.1, 10, 10, true, false},
		{0.11, 10, 10, false, false},
		{0.1, 11, 10, false, false},
		{0.1, 10, 11, false, false},
		{0.1, unknown, 10, false, true},
	} {
		m := &Measured{Ours: "pglock", Rows: []Row{{Name: "pglock", Rounds: [][]float64{{0.05, test.longest, test.client, test.server}}}}}
		if v := idle("pglock", 0.1, 10)(m); v.met != test.met || v.unknown != test.unknown {
			t.Errorf("%+v: %+v", test, v)
		}
	}
}

func TestFirstLockGoal(t *testing.T) {
	for _, test := range []struct {
		took, trips float64
		met         bool
	}{{1.2, 3, true}, {1.3, 3, false}, {1, 4, false}} {
		m := &Measured{Ours: "pgx", Rows: []Row{
			{Name: "pgx", Rounds: [][]float64{{test.took, 2, test.trips}}},
			{Name: "bare", Rounds: [][]float64{{1, 2, 3}}},
		}}
		if v := sameTrips("pgx", "bare", 1.2)(m); v.met != test.met || v.unknown {
			t.Errorf("%+v: %+v", test, v)
		}
	}
}

// Growth has a line for each contender, in order of size, without what was not measured.
func TestGrowth(t *testing.T) {
	r := &Results{}
	for _, n := range []int{10, 100} {
		r.Scenarios = append(r.Scenarios, Measured{
			Name: "rows-" + thousands(n), Size: n, Ours: "a", Metrics: []Metric{{"time", "s", "less"}, {"memory", "B", "less"}},
			Rows: []Row{
				{Name: "a", Label: "A", Rounds: [][]float64{{float64(n), 5}}},
				{Name: "b", Label: "B", Variant: true, Rounds: [][]float64{{2, unknown}}},
				{Name: "c", Label: "C", Missing: "no"},
			},
		})
	}
	panels := growth(r, "rows-", 0, "title", "rows")
	if len(panels) != 1 || len(panels[0].Lines) != 2 || len(panels[0].Lines[0].Points) != 2 || panels[0].Lines[0].Points[1].X != 100 ||
		!panels[0].Lines[0].Ours || !panels[0].Lines[1].Variant {
		t.Errorf("%+v", panels)
	}
	if panels := growth(r, "rows-", 1, "title", "rows"); len(panels[0].Lines) != 1 {
		t.Errorf("%+v", panels)
	}
	if panels := growth(r, "row-", 0, "title", "rows"); panels != nil {
		t.Errorf("%+v", panels)
	}
}

func TestBestPeer(t *testing.T) {
	m := &Measured{Ours: "pglock", Metrics: []Metric{{"rate", "/s", "more"}}, Rows: []Row{
		{Name: "pglock", Rounds: [][]float64{{100}}},
		{Name: "pglock-2", Variant: true, Rounds: [][]float64{{300}}},
		{Name: "a", Rounds: [][]float64{{20}}},
		{Name: "b", Rounds: [][]float64{{30}}},
		{Name: "c", Missing: "no"},
	}}
	if best := bestPeer(m); best.Name != "b" {
		t.Errorf("%+v", best)
	}
	m.Metrics[0].Better = "less"
	if best := bestPeer(m); best.Name != "a" {
		t.Errorf("%+v", best)
	}
	if v := atLeastBest(4)(&Measured{Ours: "pglock", Rows: m.Rows[:1]}); !v.unknown {
		t.Errorf("without peers: %+v", v)
	}
}

func TestBehind(t *testing.T) {
	r := result([][]float64{{90, 2}}, [][]float64{{100, 1}})
	if got := behindBlock(r); !strings.Contains(got, "pairs per second: bare 100, pglock 90; median: bare 1 s, pglock 2 s. It cannot be.") {
		t.Error(got)
	}
	r = result([][]float64{{99, 1}}, [][]float64{{100, 1}})
	if got := behindBlock(r); !strings.Contains(got, "Nowhere") {
		t.Error(got)
	}
}

func TestTable(t *testing.T) {
	r := result([][]float64{{200, 1}, {100, 1}, {300, 1}}, [][]float64{{100, 1}, {50, 1}, {100, 1}})
	want := `**One goroutine**

| | pairs per second | median | pglock is |
|---|---:|---:|---:|
| **pglock** | 200 (100–300) | 1 s |  |
| bare | 100 (50–100) | 1 s | 2.0× as fast |
| etcd | *no etcd here* | | |

`
	if got := table(&r.Scenarios[0], false); got != want {
		t.Errorf("%s", got)
	}
}

func TestReplaceBlocks(t *testing.T) {
	text := "before\n<!-- bench a -->\nold\n<!-- /bench a -->\nafter\n"
	got, err := replaceBlocks(text, map[string]string{"a": "new\n"})
	if err != nil || got != "before\n<!-- bench a -->\nnew\n<!-- /bench a -->\nafter\n" {
		t.Error(got, err)
	}
	for _, text := range []string{"", "<!-- bench a -->", "<!-- /bench a --> <!-- bench a -->", text + text} {
		if _, err := replaceBlocks(text, map[string]string{"a": ""}); err == nil {
			t.Errorf("%q was accepted as a document", text)
		}
	}
}

func TestRegress(t *testing.T) {
	const header = "goos: linux\n,old.txt,,new.txt,,,\n,sec/op,CI,sec/op,CI,vs base,P\n"
	for _, test := range []struct {
		csv  string
		fail string // part of the error; "" means no error
		said string
	}{
		{header + "Pair-2,1e-05,2%,1.2e-05,3%,+20.00%,p=0.001 n=10\n", "Pair-2 sec/op +20.00%", "worse: Pair-2"},
		{header + "Pair-2,1e-05,2%,1.2e-05,3%,~,p=0.4 n=10\ngeomean,1,,2,,+100.00%\n", "", "1 comparisons"},
		{header + "Pair-2,1e-05,2%,1.05e-05,3%,+5.00%,p=0.001 n=10\n", "", "worse: Pair-2"},
		{header + "Pair-2,1e-05,2%,0.5e-05,3%,-50.00%,p=0.001 n=10\n", "", "better: Pair-2"},
		{strings.ReplaceAll(header, "sec/op", "pairs/s") + "Pair-2,100,2%,50,3%,-50.00%,p=0.001 n=10\n", "Pair-2 pairs/s -50.00%", "worse: Pair-2"},
		{header + "Pair-2,1e-05,2%,,,,\n", "nothing was compared", ""},
		{"", "nothing was compared", ""},
	} {
		var out strings.Builder
		err := checkRegress(strings.NewReader(test.csv), &out, 10)
		if (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s: %v", test.csv, err)
		}
		if !strings.Contains(out.String(), test.said) {
			t.Errorf("%s: output is %s", test.csv, &out)
		}
	}
}
