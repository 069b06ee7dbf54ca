package top

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
)

var update = flag.Bool("update", false, "write the views in testdata instead of comparing them")

// states returns a model in each state, for a size.
func states(width, height int) map[string]func() *model {
	blocked := func(databases ...Database) *model {
		m := testModel(width, height, databases...)
		s := newScene()
		idle, _ := s.migration(13)
		idle.BackendXID = 991
		m.read(0, s.picture(), noon)
		return m
	}
	quiet := func() *scene {
		s := newScene()
		s.session(4711, "psql", "idle in transaction", 6*time.Minute, "SELECT 1").XminAge = 812
		s.session(4712, "report", "active", time.Minute, "SELECT sum(total) FROM orders").XminAge = 40
		s.session(4713, "web", "idle", time.Second, "COMMIT")
		return s
	}
	return map[string]func() *model{
		"connecting": func() *model { return testModel(width, height) },
		"refused": func() *model {
			m := testModel(width, height)
			m.fail(0, errors.New("db1:5432: connection refused"), noon)
			return m
		},
		"blocked": func() *model { return blocked() },
		"read only": func() *model {
			return blocked(Database{Where: "alice@db1:5432/shop", ReadOnly: "--read-only is given"})
		},
		"quiet": func() *model {
			m := testModel(width, height)
			m.read(0, quiet().picture(), noon)
			return m
		},
		"quiet again": func() *model {
			m := blocked()
			m.lastKey = time.Time{}
			m.read(0, quiet().picture(), noon.Add(3*time.Second))
			return m
		},
		"lost": func() *model {
			m := blocked()
			m.fail(0, errors.New("the connection was closed"), noon.Add(2*time.Second))
			m.Update(tickMsg(noon.Add(12 * time.Second)))
			return m
		},
		"hidden": func() *model {
			m := testModel(width, height)
			s := newScene()
			s.sees = false
			root := s.session(4711, "", "", 0, "")
			*root = inspect.Session{PID: 4711, User: "bob", Database: "shop", Hidden: true}
			s.waits(s.session(5120, "alembic", "active", time.Minute, "ALTER TABLE orders ADD x int"), root, true, "AccessExclusiveLock", "orders", time.Minute)
			m.read(0, s.picture(), noon)
			return m
		},
		"standby": func() *model {
			m := testModel(width, height)
			s := quiet()
			s.recovery = true
			m.read(0, s.picture(), noon)
			return m
		},
		"prepared": func() *model {
			m := testModel(width, height)
			s := newScene()
			root := s.session(0, "", "", 0, "")
			*root = inspect.Session{User: "alice", Database: "shop", Prepared: &inspect.Prepared{GID: "tx-9", Owner: "alice", Database: "shop", PreparedAt: noon.Add(-72 * time.Hour)}}
			s.waits(s.session(5120, "alembic", "active", time.Minute, "ALTER TABLE orders ADD x int"), root, true, "AccessExclusiveLock", "orders", time.Minute)
			m.read(0, s.picture(), noon)
			return m
		},
		"crowd": func() *model {
			m := testModel(width, height)
			s := newScene()
			s.migration(1000)
			m.read(0, s.picture(), noon)
			return m
		},
		"pairs":    func() *model { m := blocked(); m.press("2"); return m },
		"locks":    func() *model { m := blocked(); m.press("3"); return m },
		"sessions": func() *model { m := blocked(); m.press("4"); return m },
		"history":  func() *model { m := blocked(); m.press("5"); return m },
		"details":  func() *model { m := blocked(); m.press("enter"); return m },
		"help":     func() *model { m := blocked(); m.press("?"); return m },
		"filter":   func() *model { m := blocked(); m.press("/"); m.types("wait_duration > 5"); return m },
		"wrong":    func() *model { m := blocked(); m.press("/"); m.types("wait == 5"); m.press("enter"); return m },
		"paused":   func() *model { m := blocked(); m.press("p"); return m },
		"still": func() *model {
			m := blocked()
			m.press("down")
			m.read(0, quiet().picture(), noon.Add(time.Second))
			return m
		},
		"checking": func() *model { m := blocked(); m.press("t"); return m },
		"asking": func() *model {
			m := blocked()
			m.press("down", "down", "c")
			m.check(signaled(m.box.victims[0]))
			return m
		},
		"asking hard": func() *model {
			m := blocked()
			m.press("t")
			m.check(signaled(m.box.victims[0]))
			m.types("47")
			return m
		},
		"no use": func() *model {
			m := blocked()
			m.press("c")
			m.check(inspect.Outcome{Victim: m.box.victims[0], Reason: inspect.Idle, Detail: "it is idle in transaction: there is nothing to cancel"})
			return m
		},
		"ended": func() *model {
			m := blocked()
			m.press("t")
			b := m.box
			m.check(signaled(b.victims[0]))
			m.types("4711")
			m.press("enter")
			m.Update(endedMsg{box: b, outcomes: []inspect.Outcome{signaled(b.victims[0])}})
			return m
		},
		"log": func() *model {
			m := blocked()
			m.record("pid 4711 (\"psql\", user alice) was terminated")
			m.notice = ""
			m.press("L")
			return m
		},
		"databases": func() *model {
			m := blocked(Database{Name: "shop", Where: "alice@db1:5432/shop"}, Database{Name: "billing", Where: "alice@db2:5432/billing"}, Database{Name: "old", Where: "alice@db3:5432/old"})
			m.read(1, quiet().picture(), noon)
			m.fail(2, errors.New("db3:5432: no answer within 10s"), noon)
			m.press("d", "down")
			return m
		},
	}
}

// The views of each state, as text, at three widths.
func TestViews(t *testing.T) {
	for _, width := range []int{40, 80, 120} {
		var b strings.Builder
		all := states(width, 20)
		for _, name := range sorted(all) {
			m := all[name]()
			fmt.Fprintf(&b, "== %s\n", name)
			for _, line := range m.screen() {
				b.WriteString(strings.TrimRight(line, " ") + "\n")
			}
		}
		path := filepath.Join("testdata", fmt.Sprintf("views-%d.txt", width))
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != string(want) {
			line := 0
			gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for line < min(len(gotLines), len(wantLines))-1 && gotLines[line] == wantLines[line] {
				line++
			}
			t.Errorf("%s:%d: got\n%s\nwant\n%s\nIf that is meant, run go test ./internal/top -update.", path, line+1, gotLines[line], wantLines[line])
		}
	}
}

// hostile are texts that try to leave their place on the screen.
var hostile = []string{
	"\x1b[2J\x1b[31mred", "\x1b]52;c;eA==\a", "\u009b1A", "a\r\nb\nc\td", "\u202eright\u2066to\u2069 left", "日本語のテーブル日本語のテーブル",
	"e\u0301\u0301\u0301 zalgo\u0336\u0336", "👩\u200d🚀 ❤\ufe0f 🇩🇪", "\u2028\u2029\v\f", "\xff\xfe", "\x00\b\b\b", strings.Repeat("x", 500), "",
}

// In every state and at every size, with any text, a line takes no more than the width, the
// screen no more than the height, and a terminal is asked for nothing but colors.
func TestHostileText(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for width := 1; width <= 200; width += 1 + width/25 {
		for _, height := range []int{5, 8, 14, 15, 24, 60} {
			for _, style := range []Style{{}, {Color: true}, {ASCII: true}} {
				all := states(width, height)
				delete(all, "crowd") // would take long, and is like blocked
				names := sorted(all)
				for range 2 {
					name := names[random.IntN(len(names))]
					m := all[name]()
					m.Style = style
					infect(m, random)
					m.reorder()
					m.Update(tickMsg(m.now))
					checkScreen(t, fmt.Sprintf("%s, %d x %d, %+v", name, width, height, style), m)
				}
			}
		}
	}
}

// infect puts hostile text wherever text comes from elsewhere.
func infect(m *model, random *rand.Rand) {
	evil := func() string { return hostile[random.IntN(len(hostile))] + hostile[random.IntN(len(hostile))] }
	m.databases[0].Where = evil()
	if m.box != nil {
		m.box.facts = append(m.box.facts, evil())
		m.box.err = evil()
	}
	if m.prompt != nil {
		m.prompt.text, m.prompt.err = evil(), evil()
	}
	if random.IntN(3) == 0 {
		m.notice, m.until = evil(), m.now.Add(time.Hour)
	}
	for i := range m.log {
		m.log[i].text = evil()
	}
	d := m.databases[0]
	if d.frame.Err != nil {
		d.frame.Err = errors.New(evil())
	}
	if d.picture == nil {
		return
	}
	spoil := func(s *inspect.Session) {
		s.Application, s.Query, s.User, s.Database, s.Client = evil(), evil(), evil(), evil(), evil()
		if s.Prepared != nil {
			s.Prepared.GID = evil()
		}
	}
	for i := range d.picture.sessions {
		spoil(&d.picture.sessions[i])
	}
	for i := range d.picture.Pairs {
		p := &d.picture.Pairs[i]
		spoil(p.Session)
		spoil(p.Blocking)
		p.Relation, p.Schema = evil(), evil()
	}
	for i := range d.picture.Locks {
		d.picture.Locks[i].Relation = evil()
	}
	d.picture.all = d.picture.Forest()
	d.picture.trees = d.picture.all
}

// checkScreen checks what holds of every screen.
func checkScreen(t *testing.T, name string, m *model) {
	t.Helper()
	lines := m.screen()
	if len(lines) > m.height {
		t.Errorf("%s: %d lines", name, len(lines))
	}
	for i, text := range lines {
		if n := cells(text); n > m.width {
			t.Errorf("%s: line %d takes %d columns: %q", name, i, n, text)
		}
		if !utf8.ValidString(text) {
			t.Errorf("%s: line %d is not UTF-8: %q", name, i, text)
		}
		plain := colors.Replace(text)
		if !m.Color && plain != text {
			t.Errorf("%s: line %d has colors: %q", name, i, text)
		}
		for _, r := range plain {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || m.ASCII && r > '~' {
				t.Errorf("%s: line %d has %U: %q", name, i, r, text)
				break
			}
		}
	}
}

var colors = strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[7m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "")

// Only the lines that fit the screen are drawn: a thousand waiters cost no more than ten.
func TestDrawsWhatIsVisible(t *testing.T) {
	allocations := func(waiters int, v string) float64 {
		m := testModel(120, 30)
		s := newScene()
		idle, _ := s.migration(0)
		for i := range waiters {
			s.waits(s.session(6000+int32(i), "web", "active", time.Second, fmt.Sprint("SELECT ", strings.Repeat("x", i%50))), idle, true, "AccessShareLock", "orders", time.Second)
		}
		m.read(0, s.picture(), noon)
		m.press(v, "down", "down")
		return testing.AllocsPerRun(5, func() { m.View() })
	}
	for _, v := range []string{"1", "2", "3", "4"} {
		few, many := allocations(40, v), allocations(2000, v)
		// The details of a session look at every pair.
		if many > 2*few+1000 {
			t.Errorf("view %s: %.0f allocations for 40 waiters, and %.0f for 2000", v, few, many)
		}
	}
}

// BenchmarkFrame measures what a reading and a key cost until the screen is drawn.
func BenchmarkFrame(b *testing.B) {
	scenes := map[string]*scene{"1000 waiters": newScene(), "10000 locks": newScene()}
	scenes["1000 waiters"].migration(1000)
	s := scenes["10000 locks"]
	s.migration(100)
	for i := range 10000 {
		s.locks = append(s.locks, inspect.Lock{Session: s.sessions[i%100], Type: "relation", Mode: "AccessShareLock", Granted: true, Schema: "public", Relation: fmt.Sprint("t", i), RelationOID: uint32(20000 + i)})
	}
	for _, name := range sorted(scenes) {
		p := scenes[name].picture()
		for v := range viewCount {
			for _, what := range []string{"reading", "key"} {
				b.Run(fmt.Sprintf("%s/%s/%s", name, v.title(), what), func(b *testing.B) {
					m := testModel(160, 50)
					m.Color = true
					m.read(0, p, noon)
					m.show(0, v)
					m.lastKey = time.Time{}
					for i := 0; b.Loop(); i++ {
						if what == "reading" {
							m.read(0, p, noon.Add(time.Duration(i)*time.Second))
						} else {
							m.press([]string{"down", "up"}[i%2])
						}
						m.View()
					}
				})
			}
		}
	}
}

func sorted[T any](m map[string]T) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
