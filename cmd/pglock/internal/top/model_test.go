package top

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/inspect"
)

// quits reports whether a command ends the program.
func quits(command tea.Cmd) bool {
	if command == nil {
		return false
	}
	_, ok := command().(tea.QuitMsg)
	return ok
}

// The selection is a session: it follows it when the rows are ordered anew, and is on the
// same line of the screen.
func TestSelectionFollows(t *testing.T) {
	m := testModel(80, 40)
	s := newScene()
	s.migration(2)
	m.read(0, s.picture(), noon)
	m.press("down") // the migration
	line := m.list().cursor - m.list().offset

	// A root with more waiters comes first.
	other := s.session(6000, "etl", "active", time.Minute, "TRUNCATE items")
	for i := range int32(5) {
		s.waits(s.session(6001+i, "web", "active", time.Second, "TABLE items"), other, true, "AccessShareLock", "items", time.Second)
	}
	m.read(0, s.picture(), noon.Add(time.Second))
	if r := m.list().selected(); r.subject().PID != 5120 || !strings.Contains(m.text(), "> └─ ") && !strings.Contains(m.text(), ">   ") && m.list().cursor != 1 {
		t.Errorf("the row has moved within a second of a key:\n%s", m.text())
	}
	m.wantScreen(t, "rows stay where they are")
	m.wantNoScreen(t, "pid 6000")

	m.Update(tickMsg(noon.Add(3 * time.Second)))
	if r := m.list().selected(); r.subject().PID != 5120 || m.list().cursor == 1 {
		t.Errorf("pid %d is selected, in row %d", r.subject().PID, m.list().cursor)
	}
	if got := m.list().cursor - m.list().offset; got != line && m.list().offset != 0 {
		t.Errorf("on line %d of the screen, not %d", got, line)
	}
	m.wantScreen(t, "pid 6000")
}

// A session with the PID of the selected one, which began later, is another one: the
// selected row stays and is gone, and nothing can be ended from it.
func TestReusedPID(t *testing.T) {
	m := testModel(80, 30)
	s := newScene()
	idle, migration := s.migration(0)
	m.read(0, s.picture(), noon)
	if got := m.list().selected().subject(); got.PID != idle.PID {
		t.Fatal(got.PID)
	}
	s = newScene()
	reborn := s.session(idle.PID, "payments", "idle in transaction", time.Second, "UPDATE accounts")
	reborn.BackendStart = noon.Add(time.Second)
	migration = s.session(migration.PID, "alembic", "active", 133*time.Second, migration.Query)
	s.waits(migration, reborn, true, "AccessExclusiveLock", "orders", 133*time.Second)
	for _, later := range []time.Duration{time.Second, 10 * time.Second} {
		m.Update(tickMsg(noon.Add(later)))
		m.read(0, s.picture(), noon.Add(later))
		m.wantScreen(t, `pid 4711 ("psql", user alice) is gone`)
		m.press("t")
		if m.box != nil {
			t.Fatalf("the other session can be ended:\n%s", m.text())
		}
		m.lastKey = time.Time{}
	}
	// It can be selected, and shows which one it is.
	m.press("down")
	m.press("t")
	if m.box == nil {
		t.Fatal("it cannot be ended either")
	}
	m.wantScreen(t, "payments")
}

// A box keeps the sessions as they were, whatever is read while it is open.
func TestBoxIsFrozen(t *testing.T) {
	m := testModel(80, 30)
	s := newScene()
	idle, _ := s.migration(3)
	m.read(0, s.picture(), noon)
	m.press("t")
	b := m.box
	s = newScene()
	other := s.session(idle.PID, "payments", "active", time.Second, "UPDATE accounts")
	other.BackendStart = noon
	m.Update(tickMsg(noon.Add(time.Minute)))
	m.read(0, s.picture(), noon.Add(time.Minute))
	if m.box != b || !b.victims[0].BackendStart.Equal(idle.BackendStart) {
		t.Error("the box has changed")
	}
	m.wantScreen(t, `pid 4711 ("psql"`)
}

// What each key does while the box asks.
func TestBoxKeys(t *testing.T) {
	const (
		closed = iota
		open
		ends
	)
	for _, test := range []struct {
		name string
		xid  uint32
		age  time.Duration
		keys []string
		want int
	}{
		{"enter keeps", 0, time.Minute, []string{"enter"}, closed},
		{"esc keeps", 0, time.Minute, []string{"esc"}, closed},
		{"n keeps", 0, time.Minute, []string{"n"}, closed},
		{"y ends", 0, time.Minute, []string{"y"}, ends},
		{"the other answer ends", 0, time.Minute, []string{"right", "enter"}, ends},
		{"there and back", 0, time.Minute, []string{"right", "left", "enter"}, closed},
		{"t does nothing", 0, time.Minute, []string{"t", "t", "space"}, open},
		{"y is not enough after writing", 991, time.Minute, []string{"y"}, open},
		{"y is not enough for an old transaction", 0, 10 * time.Minute, []string{"y"}, open},
		{"enter keeps there too", 991, time.Minute, []string{"enter"}, closed},
		{"the PID ends", 991, time.Minute, []string{"4", "7", "1", "1", "enter"}, ends},
		{"a wrong PID does not", 991, time.Minute, []string{"4", "7", "1", "2", "enter"}, open},
		{"the beginning of the PID does not", 991, time.Minute, []string{"4", "7", "enter"}, open},
		{"backspace", 991, time.Minute, []string{"4", "7", "2", "backspace", "1", "1", "enter"}, ends},
		{"esc after the PID", 991, time.Minute, []string{"4", "7", "1", "1", "esc"}, closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := testModel(80, 30)
			s := newScene()
			idle := s.session(4711, "psql", "idle in transaction", test.age, "SELECT 1")
			idle.BackendXID = test.xid
			s.waits(s.session(5120, "alembic", "active", time.Second, "ALTER TABLE orders"), idle, true, "AccessExclusiveLock", "orders", time.Second)
			m.read(0, s.picture(), noon)
			if m.press("t") == nil || m.box == nil {
				t.Fatal("no box")
			}
			m.press("y", "right") // nothing happens before the dry run has an outcome
			if m.box == nil || m.box.stage != checking {
				t.Fatal("the box does not wait for the dry run")
			}
			m.check(signaled(m.box.victims[0]))
			m.press(test.keys...)
			got := open
			switch {
			case m.box == nil:
				got = closed
			case m.box.stage == working:
				got = ends
			}
			if got != test.want {
				t.Errorf("%d, want %d:\n%s", got, test.want, m.text())
			}
		})
	}
}

// Nothing can be ended on a database that is read only, while the connection is lost, and
// without a selection. The keys are not offered.
func TestCannotEnd(t *testing.T) {
	blocked := newScene()
	blocked.migration(2)
	for name, m := range map[string]*model{
		"read only":  testModel(120, 30, Database{ReadOnly: "PGLOCK_READ_ONLY is set"}),
		"lost":       testModel(120, 30),
		"unread":     testModel(120, 30),
		"no session": testModel(120, 30),
	} {
		switch name {
		case "read only":
			m.read(0, blocked.picture(), noon)
		case "lost":
			m.read(0, blocked.picture(), noon)
			m.fail(0, errors.New("gone"), noon)
		case "no session":
			m.read(0, newScene().picture(), noon)
		}
		if name == "read only" || name == "lost" {
			m.wantNoScreen(t, "terminate")
		}
		for _, key := range []string{"t", "c", "space"} {
			if m.press(key); m.box != nil || len(m.db().marked) > 0 {
				t.Errorf("%s: %s does something", name, key)
			}
		}
	}
	// It refuses inside, too.
	d := newDatabase(Database{ReadOnly: "--read-only is given"}, time.Second)
	if _, err := d.end(t.Context(), terminateAction, nil, false); err == nil || !strings.Contains(err.Error(), "--read-only is given") {
		t.Error(err)
	}
}

// If the connection is lost while the box is open, the answer ends nothing.
func TestLostWhileAsking(t *testing.T) {
	m := testModel(80, 30)
	s := newScene()
	s.migration(0)
	m.read(0, s.picture(), noon)
	m.press("t")
	m.check(signaled(m.box.victims[0]))
	m.fail(0, errors.New("gone"), noon)
	if command := m.press("y"); command != nil || m.box.stage != refused {
		t.Errorf("it is ended:\n%s", m.text())
	}
}

// Marked sessions are ended together, which is grave. A mark is a session's, and goes with it.
func TestMarks(t *testing.T) {
	m := testModel(120, 30)
	s := newScene()
	s.migration(2)
	m.read(0, s.picture(), noon)
	m.press("space", "space")
	if len(m.db().marked) != 2 || m.list().cursor != 2 {
		t.Fatalf("%d are marked, row %d is selected", len(m.db().marked), m.list().cursor)
	}
	m.press("t")
	if got := len(m.box.victims); got != 2 || m.box.grave == "" {
		t.Errorf("%d sessions, grave: %q", got, m.box.grave)
	}
	m.wantScreen(t, "Terminate 2 sessions?")
	m.press("esc")
	later := newScene()
	later.session(4711, "psql", "idle", time.Second, "").BackendStart = noon
	m.read(0, later.picture(), noon.Add(time.Minute))
	if len(m.db().marked) != 0 {
		t.Errorf("%d are marked", len(m.db().marked))
	}
}

// The outcome is shown for ten seconds and kept in the log.
func TestOutcome(t *testing.T) {
	m := testModel(120, 30)
	s := newScene()
	s.migration(0)
	m.read(0, s.picture(), noon)
	m.press("t")
	b := m.box
	m.check(signaled(b.victims[0]))
	m.press("y")
	m.Update(endedMsg{box: b, outcomes: []inspect.Outcome{{Victim: b.victims[0], Reason: inspect.Gone, Detail: "the session has ended"}}})
	const text = "pid 4711 was not terminated: the session has ended"
	m.wantScreen(t, text)
	m.Update(tickMsg(noon.Add(9 * time.Second)))
	m.wantScreen(t, text)
	m.Update(tickMsg(noon.Add(11 * time.Second)))
	m.wantNoScreen(t, text)
	m.press("L")
	m.wantScreen(t, text)
	m.press("esc")
	m.Update(endedMsg{box: b, err: errors.New("broken")})
	m.wantScreen(t, "terminate: broken; it is not known whether the signal was sent")
}

// What ending a session frees: those that wait for nobody else, and all behind them.
func TestFrees(t *testing.T) {
	s := newScene()
	idle, migration := s.migration(12)
	other := s.session(6000, "etl", "active", time.Minute, "")
	both := s.session(6001, "web", "active", time.Minute, "")
	s.waits(both, idle, true, "ShareLock", "items", time.Second)
	s.waits(both, other, true, "ShareLock", "items", time.Second)
	p := s.picture()
	for _, test := range []struct {
		sessions []*inspect.Session
		want     string
	}{
		{[]*inspect.Session{idle}, "frees 13: pid 5120, then 12 behind it; 1 session waits for it and for others too"},
		{[]*inspect.Session{migration}, "frees 12: pid 5200, then 11 behind it"},
		{[]*inspect.Session{other}, "frees none: 1 session waits for it and for others too"},
		{[]*inspect.Session{other, idle}, "frees 14: pid 5120, then 13 behind it"},
		{[]*inspect.Session{both}, "nobody waits for it"},
	} {
		if got := p.frees(p.victims(test.sessions)); got != test.want {
			t.Errorf("%s\nwant %s", got, test.want)
		}
	}
	if got := p.otherWay(p.victims([]*inspect.Session{idle})); !strings.HasPrefix(got, `or cancel pid 5120 "alembic": the 12 behind it go on at once`) {
		t.Error(got)
	}
}

// Sessions that wait alike are folded, and opened with enter. A selected one stays.
func TestFolds(t *testing.T) {
	m := testModel(120, 60)
	s := newScene()
	s.migration(30)
	odd := s.session(7000, "report", "active", time.Second, "SELECT count(*) FROM orders")
	s.waits(odd, s.sessions[1], false, "AccessShareLock", "orders", time.Second)
	m.read(0, s.picture(), noon)
	m.wantScreen(t, "27 more like these")
	m.wantScreen(t, "pid 7000")
	m.press("end", "enter")
	m.wantNoScreen(t, "more like these")
	m.wantScreen(t, "pid 5229")
	m.press("home", "left")
	m.wantScreen(t, "> ! [+32] pid 4711")
	m.press("right")
	m.wantScreen(t, "pid 5229")
}

// Filters are in the syntax of -f, add up, and are removed with esc.
func TestFilters(t *testing.T) {
	m := testModel(160, 30)
	s := newScene()
	s.migration(0)
	m.read(0, s.picture(), noon)
	m.press("/")
	m.types("wait_duration > ")
	m.press("enter")
	if m.prompt == nil || m.prompt.err == "" || m.currentFilters() != nil {
		t.Fatal("a wrong filter is taken")
	}
	m.types("5s")
	m.press("enter", "o")
	if m.prompt == nil || m.prompt.text != "public.orders" {
		t.Fatalf("%+v", m.prompt)
	}
	m.press("enter")
	m.wantScreen(t, "only wait_duration > 5s and on public.orders")
	m.press("esc")
	if len(m.currentFilters()) != 0 {
		t.Error("the filters are still on")
	}
}

// Each database has its own rows, selection and filters. A lost one takes nothing from the
// others.
func TestDatabases(t *testing.T) {
	m := testModel(120, 30, Database{Name: "shop"}, Database{Name: "billing"})
	first, second := newScene(), newScene()
	first.migration(0)
	other := second.session(99, "etl", "idle in transaction", time.Second, "")
	second.waits(second.session(100, "web", "active", time.Second, ""), other, true, "ShareLock", "bills", time.Second)
	m.read(0, first.picture(), noon)
	m.read(1, second.picture(), noon)
	m.wantScreen(t, "pid 4711")
	m.press("down", "d", "down", "enter")
	m.wantScreen(t, "> ! pid 99")
	m.fail(0, errors.New("gone"), noon)
	m.wantScreen(t, "live")
	m.press("d", "up", "enter")
	m.wantScreen(t, "lost")
	if r := m.list().selected(); r.subject().PID != 5120 {
		t.Errorf("pid %d is selected", r.subject().PID)
	}
}

// q and Ctrl-C quit, also while something covers the lists; Ctrl-Z suspends.
func TestQuit(t *testing.T) {
	s := newScene()
	s.migration(0)
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"t", "ctrl+c"}, {"/", "ctrl+c"}, {"?", "ctrl+c"}, {"?", "q", "q"}} {
		m := testModel(80, 30)
		m.read(0, s.picture(), noon)
		if !quits(m.press(keys...)) {
			t.Errorf("%v does not quit", keys)
		}
	}
	m := testModel(80, 30)
	if _, ok := m.press("ctrl+z")().(tea.SuspendMsg); !ok {
		t.Error("ctrl+z does not suspend")
	}
}

// The interval changes within limits, and p pauses.
func TestInterval(t *testing.T) {
	m := testModel(80, 30)
	for range 20 {
		m.press("+")
	}
	if got := m.db().feed.Interval(); got != shortest {
		t.Error(got)
	}
	for range 20 {
		m.press("-")
	}
	if got := m.db().feed.Interval(); got != longest {
		t.Error(got)
	}
	m.press("p")
	if got := m.db().feed.Interval(); got != 0 {
		t.Error(got)
	}
	m.press("p")
	if got := m.db().feed.Interval(); got != longest {
		t.Error(got)
	}
}

// What blocked whom is remembered for 15 minutes, with all the time that was waited.
func TestHistory(t *testing.T) {
	var h history
	picture := func(after time.Duration, waits ...time.Duration) {
		s := newScene()
		s.now = noon.Add(after)
		idle := s.session(4711, "psql", "idle in transaction", after, "")
		idle.BackendStart = noon
		for i, d := range waits {
			web := s.session(5200+int32(i), "web", "active", d, "")
			web.BackendStart = noon
			s.waits(web, idle, true, "RowExclusiveLock", "orders", d)
		}
		h.add(s.now, s.picture().all)
	}
	want := func(n int, open bool, peak int, longest, waited time.Duration) {
		t.Helper()
		if len(h.incidents) != n {
			t.Fatalf("%d incidents, want %d", len(h.incidents), n)
		}
		i := h.latest()[0]
		if i.open != open || i.peak != peak || i.longest != longest || i.waited() != waited || i.target != "public.orders" {
			t.Errorf("open %v, peak %d, longest %v, waited %v, on %s", i.open, i.peak, i.longest, i.waited(), i.target)
		}
	}
	s := time.Second
	picture(10*s, 2*s)
	picture(11*s, 3*s, 1*s)
	want(1, true, 2, 3*s, 4*s)
	picture(12*s, 4*s) // the second one goes on after a second
	want(1, true, 2, 4*s, 5*s)
	picture(14*s, 1*s) // the first one waits anew
	want(1, true, 2, 4*s, 6*s)
	picture(15 * s)
	want(1, false, 2, 4*s, 6*s)
	picture(40*s, 1*s) // within half a minute: the same incident
	want(1, true, 2, 4*s, 7*s)
	picture(100*s, 5*s)
	want(2, true, 1, 5*s, 5*s)
	picture(40*s + historySpan + s)
	want(1, false, 1, 5*s, 5*s)
	picture(200*s + historySpan)
	if len(h.incidents) != 0 {
		t.Errorf("%d incidents are remembered", len(h.incidents))
	}
}
