package top

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
)

// A real is a model of a real database, which a test reads when it wants to.
type real struct {
	*model
	t        *testing.T
	dsn      string
	observer *pgx.Conn
	sequence int64
}

func newReal(t *testing.T) *real {
	t.Helper()
	dsn := pgtest.Database(t)
	open := func(ctx context.Context) (driver.Querier, func(), error) {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return nil, nil, err
		}
		q, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
		return q, func() { _ = conn.Close(context.Background()) }, err
	}
	m := testModel(120, 40, Database{Where: "test", Open: open})
	t.Cleanup(m.db().source.Close)
	return &real{m, t, dsn, sessiontest.Connect(t, dsn, ""), 0}
}

// look reads a picture and gives it to the model.
func (r *real) look() {
	r.t.Helper()
	p, _, err := r.db().read(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.lastKey = time.Time{}
	r.now = r.now.Add(3 * time.Second)
	r.read(0, p, r.now)
}

// do runs a command and gives its result to the model.
func (r *real) do(command tea.Cmd) {
	r.t.Helper()
	if command == nil {
		r.t.Fatalf("nothing is done:\n%s", r.text())
	}
	r.Update(command())
}

// choose selects a session.
func (r *real) choose(pid int32) {
	r.t.Helper()
	l := r.list()
	r.press("home")
	for range l.rows {
		if row := l.selected(); row != nil && row.subject() != nil && row.subject().PID == pid {
			return
		}
		r.press("down")
	}
	r.t.Fatalf("pid %d is not shown:\n%s", pid, r.text())
}

// queue lets a migration wait for an idle session, and an application queue behind it.
func (r *real) queue() (idle, migration, web *sessiontest.Session) {
	idle, migration, web = sessiontest.Open(r.t, r.dsn, "psql"), sessiontest.Open(r.t, r.dsn, "alembic"), sessiontest.Open(r.t, r.dsn, "web")
	idle.Do("CREATE TABLE orders (id int)", "BEGIN", "SELECT * FROM orders")
	migration.Background("ALTER TABLE orders ADD COLUMN region text")
	migration.AwaitWait(r.observer)
	web.Background("SELECT * FROM orders")
	web.AwaitWait(r.observer)
	return idle, migration, web
}

// Terminating the idle session frees the migration and what is behind it.
func TestFreeMigration(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	idle, migration, web := r.queue()
	r.look()
	r.wantScreen(t, "blocks 2")
	r.choose(idle.PID)
	r.press("c")
	r.do(r.press("esc", "c"))
	r.wantScreen(t, "nothing can be ended here")
	r.press("esc")
	r.do(r.press("t"))
	r.wantScreen(t, "frees 2: pid")
	r.wantScreen(t, "[ keep it ]")
	r.do(r.press("y"))
	r.wantScreen(t, "was terminated")
	for _, s := range []*sessiontest.Session{migration, web} {
		if err := s.Join(); err != nil {
			t.Error(err)
		}
	}
	if idle.Alive(r.observer) {
		t.Error("the session lives")
	}
	r.look() // other tests have waiting sessions on this server, too
	r.wantNoScreen(t, fmt.Sprint("pid ", migration.PID))
	r.press("5")
	r.wantScreen(t, fmt.Sprintf("pid %d  up to 2 waiting", idle.PID))
}

// Canceling the migration instead lets what is behind it go on, and spares the session.
func TestCancelMigration(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	idle, migration, web := r.queue()
	r.look()
	r.choose(migration.PID)
	command := r.press("c")
	r.do(command)
	b := r.box
	if b == nil || b.stage != asking {
		t.Fatal(r.text())
	}
	r.types(b.confirmation()) // it has a transaction ID
	if b.grave == "" {
		r.do(r.press("y"))
	} else {
		r.do(r.press("enter"))
	}
	r.wantScreen(t, "was canceled")
	if err := web.Join(); err != nil {
		t.Error(err)
	}
	if err := migration.Join(); err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("the migration: %v", err)
	}
	if !idle.Alive(r.observer) {
		t.Error("the idle session was ended")
	}
}

// A process that has the PID of the session that was seen, but began at another time, is
// spared, both by the dry run and by the statement that signals.
func TestReusedPIDIsSpared(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	idle, _, _ := r.queue()
	p, _, err := r.db().read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// As if the session that was seen had begun earlier, and this one got its PID.
	for i := range p.Pairs {
		if p.Pairs[i].Blocking.PID == idle.PID {
			p.Pairs[i].Blocking.BackendStart = p.Pairs[i].Blocking.BackendStart.Add(-time.Hour)
			break
		}
	}
	for i := range p.sessions {
		if p.sessions[i].PID == idle.PID {
			p.sessions[i].BackendStart = p.sessions[i].BackendStart.Add(-time.Hour)
		}
	}
	p.all = p.Forest()
	p.trees = p.all
	r.read(0, p, r.now)
	r.choose(idle.PID)
	r.do(r.press("t"))
	r.wantScreen(t, "the session has ended")
	b := r.box
	b.stage = asking // as if it had been seen in time
	r.do(r.press("y"))
	r.wantScreen(t, "was not terminated: the session has ended")
	if !idle.Alive(r.observer) {
		t.Error("the other session was terminated")
	}
}

// A session that no longer blocks anybody when the answer comes is spared.
func TestNoLongerBlocking(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	idle, migration, web := r.queue()
	r.look()
	r.choose(idle.PID)
	r.do(r.press("t"))
	idle.Do("COMMIT")
	for _, s := range []*sessiontest.Session{migration, web} {
		if err := s.Join(); err != nil {
			t.Fatal(err)
		}
	}
	r.do(r.press("y"))
	r.wantScreen(t, "it no longer blocks any of them")
	if !idle.Alive(r.observer) {
		t.Error("the session was terminated")
	}
}

// Filters select as those of the other verbs do, and a wrong one is explained.
func TestFiltersOnServer(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	idle, _, _ := r.queue()
	other := sessiontest.Open(t, r.dsn, "other")
	other.Do("CREATE TABLE items ()", "BEGIN", "LOCK TABLE items")
	waiter := sessiontest.Open(t, r.dsn, "etl")
	waiter.Background("TABLE items")
	waiter.AwaitWait(r.observer)
	r.look()
	r.wantScreen(t, `"other"`)
	r.press("o")
	r.press("ctrl+u")
	r.types("orders")
	r.press("enter")
	r.look()
	r.wantNoScreen(t, `"other"`)
	r.choose(idle.PID)
	r.press("o", "ctrl+u")
	r.types("missing")
	r.press("enter")
	r.look()
	r.wantScreen(t, "missing")
	r.press("esc")
	r.look()
	r.wantScreen(t, `"other"`)
	r.press("4")
	r.wantScreen(t, "etl")
	idle.Do("ROLLBACK")
	other.Do("ROLLBACK")
}
