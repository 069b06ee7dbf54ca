package top

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/inspect"
)

// noon is the time of the first picture of a test.
var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// A scene makes pictures of a server that does not exist.
type scene struct {
	now      time.Time
	sessions []*inspect.Session
	locks    []inspect.Lock
	pairs    []inspect.Pair
	recovery bool
	sees     bool
}

func newScene() *scene { return &scene{now: noon, sees: true} }

// session adds a session that began a day ago.
func (s *scene) session(pid int32, application, state string, age time.Duration, query string) *inspect.Session {
	session := &inspect.Session{
		PID: pid, User: "alice", Database: "shop", Application: application, Client: "10.0.0.7",
		BackendType: "client backend", BackendStart: s.now.Add(-24 * time.Hour),
		State: state, StateChange: s.now.Add(-age), QueryStart: s.now.Add(-age), Duration: age,
		Query: query,
	}
	if state != "idle" {
		session.XactStart, session.XactDuration = s.now.Add(-age), age
	}
	s.sessions = append(s.sessions, session)
	return session
}

// waits lets a session wait for another one that holds a lock on a table, or that is only
// ahead in the queue.
func (s *scene) waits(waiter, blocker *inspect.Session, hard bool, mode, table string, d time.Duration) {
	held := inspect.Lock{Session: blocker, Type: "relation", Mode: "RowExclusiveLock", Granted: true, Kind: "TABLE", Schema: "public", Relation: table, RelationOID: 16384}
	wait := held
	wait.Session, wait.Mode, wait.Granted, wait.WaitDuration, wait.WaitStart = waiter, mode, false, d, s.now.Add(-d)
	waiter.WaitEventType, waiter.WaitEvent = "Lock", "relation"
	p := inspect.Pair{Lock: &wait, Blocking: blocker, Hard: hard}
	s.locks = append(s.locks, wait)
	if hard {
		p.Held = &held
		s.locks = append(s.locks, held)
	}
	s.pairs = append(s.pairs, p)
}

// picture returns what is read now.
func (s *scene) picture() *picture {
	p := &picture{Snapshot: &inspect.Snapshot{
		Server: inspect.Server{Version: 170004, Database: "shop", User: "alice", Time: s.now, InRecovery: s.recovery, SeesAll: s.sees, SignalsAll: s.sees},
		Locks:  s.locks, Pairs: s.pairs,
	}}
	for _, session := range s.sessions {
		p.sessions = append(p.sessions, *session)
	}
	p.all = p.Forest()
	p.trees = p.all
	return p
}

// migration adds what top is for: a session that is idle in its transaction, a migration
// that waits for it, and as many applications that are queued behind the migration.
func (s *scene) migration(queued int) (idle, migration *inspect.Session) {
	idle = s.session(4711, "psql", "idle in transaction", 6*time.Minute+2*time.Second, "SELECT * FROM orders WHERE id = 7")
	migration = s.session(5120, "alembic", "active", 131*time.Second, "ALTER TABLE orders ADD COLUMN region text")
	s.waits(migration, idle, true, "AccessExclusiveLock", "orders", 131*time.Second)
	for i := range queued {
		web := s.session(5200+int32(i), "web", "active", 129*time.Second, fmt.Sprintf("UPDATE orders SET note = 'n%d' WHERE id = %d", i, i))
		s.waits(web, migration, false, "RowExclusiveLock", "orders", 129*time.Second)
	}
	return idle, migration
}

// testModel returns a model of databases that are never read.
func testModel(width, height int, databases ...Database) *model {
	if len(databases) == 0 {
		databases = []Database{{Where: "alice@db1:5432/shop"}}
	}
	for i := range databases {
		if databases[i].Open == nil {
			databases[i].Open = func(context.Context) (driver.Querier, func(), error) { return nil, nil, errors.New("no server") }
		}
	}
	m := newModel(context.Background(), databases, Options{Every: time.Second, Describe: func(err error) string { return err.Error() }})
	m.now = noon
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return m
}

// read gives the model a picture of a database.
func (m *model) read(database int, p *picture, at time.Time) {
	f := feed.Frame[*picture]{Sequence: m.databases[database].frame.Sequence + 1, Value: p, At: at, Cost: 6 * time.Millisecond, Pause: time.Second}
	m.Update(frameMsg{database, f})
}

// fail gives the model a reading that failed.
func (m *model) fail(database int, err error, at time.Time) {
	f := feed.Frame[*picture]{Sequence: m.databases[database].frame.Sequence + 1, Err: err, At: at, Pause: 4 * time.Second}
	m.Update(frameMsg{database, f})
}

// press presses keys, which are named as in key.String, and returns the last command.
func (m *model) press(keys ...string) (command tea.Cmd) {
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
		"right": tea.KeyRight, "space": tea.KeySpace, "backspace": tea.KeyBackspace, "end": tea.KeyEnd, "home": tea.KeyHome,
		"pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown,
	}
	for _, name := range keys {
		key := tea.KeyPressMsg{Text: name}
		if code, ok := special[name]; ok {
			key = tea.KeyPressMsg{Code: code}
			if name == "space" {
				key.Text = " "
			}
		} else if rest, ok := strings.CutPrefix(name, "ctrl+"); ok {
			key = tea.KeyPressMsg{Code: rune(rest[0]), Mod: tea.ModCtrl}
		} else {
			key.Code = []rune(name)[0]
		}
		_, command = m.Update(key)
	}
	return command
}

// types presses a key for each character.
func (m *model) types(text string) (command tea.Cmd) {
	for _, r := range text {
		name := string(r)
		if r == ' ' {
			name = "space"
		}
		command = m.press(name)
	}
	return command
}

// text returns the screen.
func (m *model) text() string { return strings.Join(m.screen(), "\n") }

func (m *model) wantScreen(t *testing.T, want string) {
	t.Helper()
	if !strings.Contains(m.text(), want) {
		t.Errorf("%q is not on the screen:\n%s", want, m.text())
	}
}

func (m *model) wantNoScreen(t *testing.T, avoid string) {
	t.Helper()
	if strings.Contains(m.text(), avoid) {
		t.Errorf("%q is on the screen:\n%s", avoid, m.text())
	}
}

// check gives the open box the result of a dry run.
func (m *model) check(outcomes ...inspect.Outcome) {
	m.Update(checkedMsg{box: m.box, outcomes: outcomes})
}

// signaled returns the outcome of a session that was, or would be, signaled.
func signaled(v inspect.Victim) inspect.Outcome {
	return inspect.Outcome{Victim: v, Signaled: true, Ended: true}
}
