package trace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// A statement that cannot run in a transaction releases its locks before anybody could
// read them. So it is made to wait: each table is locked by a prepared transaction, which
// is rolled back when the statement waits for it, and a session holds a snapshot, for
// which CREATE INDEX CONCURRENTLY and its like wait. All that the statement holds, and
// waits for, is read meanwhile.

// A gate makes a statement wait.
type gate struct {
	source   driver.Source
	session  driver.Session
	prepared map[int64]string // by table: the name of a prepared transaction
	tables   string           // the tables, for LOCK
	reader   driver.Session   // holds a snapshot and weak locks on the tables; or nil
}

// polling is how long the observer waits before it asks again.
const polling = 2 * time.Millisecond

// outside runs a statement outside of a transaction and observes its locks.
func (t *tracer) outside(ctx context.Context, s *Statement) (err error) {
	if t.before, err = readState(ctx, t.session); err != nil {
		return err
	}
	// The statement must not fail because the gates make it wait.
	if err := t.exec(ctx, "SET client_min_messages = debug2; SET lock_timeout = 0; SET statement_timeout = 0"); err != nil {
		return err
	}
	g, err := t.newGate(ctx, s.Piece.SQL)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, g.close(ending))
	}()
	t.notices = t.notices[:0]
	done := make(chan error, 1)
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { done <- execute(running, t.session, s.Piece) }()
	seen := map[lockKey]bool{}
	watchErr := t.watch(ctx, g, s, seen, done)
	if watchErr != nil {
		cancel()
		<-done
		return watchErr
	}
	if s.Err != nil {
		return nil
	}
	after, err := readState(ctx, t.session)
	if err != nil {
		return err
	}
	held := map[lockKey]bool{}
	for key := range seen {
		if t.matters(key.relation) {
			held[key] = true
			s.Locks = append(s.Locks, t.lock(key, 0))
		}
	}
	t.orderLocks(s)
	t.addEffects(s, after, held)
	t.addScans(s, after)
	if err := t.addAdvice(ctx, s, after); err != nil {
		return err
	}
	return t.exec(ctx, "SET lock_timeout = "+sqltext.Literal(t.before.LockTimeout)+"; SET statement_timeout = "+sqltext.Literal(t.before.StatementTimeout))
}

// watch reads the locks of the statement until it is done, and opens the gates that it
// waits for.
func (t *tracer) watch(ctx context.Context, g *gate, s *Statement, seen map[lockKey]bool, done <-chan error) error {
	for {
		select {
		case err := <-done:
			s.Err = err
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		locks, err := readLocks(ctx, t.observer, t.session.PID())
		if err != nil {
			return err
		}
		for key := range granted(locks) {
			seen[key] = true
		}
		i := slices.IndexFunc(locks, func(l heldLock) bool { return !l.Granted })
		if i < 0 {
			pause(ctx)
			continue
		}
		wait := locks[i]
		if mode, err := pglock.ParseMode(wait.Mode); err == nil && wait.Type == "relation" {
			seen[lockKey{wait.Relation, mode}] = true
		}
		if wait.Type != "relation" {
			s.WaitsForTransactions = true
		}
		opened, err := g.open(ctx, wait)
		if err != nil {
			return err
		}
		if !opened {
			pause(ctx) // it is about to be granted
		}
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(polling):
	}
}

// newGate locks the tables.
func (t *tracer) newGate(ctx context.Context, statement string) (g *gate, err error) {
	g = &gate{source: t.source, prepared: map[int64]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close(context.WithoutCancel(ctx)))
		}
	}()
	if g.session, err = t.source.Open(ctx); err != nil {
		return g, err
	}
	text, err := g.session.QueryTextSimple(ctx, "SHOW max_prepared_transactions")
	if err != nil {
		return g, err
	}
	limit, err := strconv.Atoi(text)
	if err != nil {
		return g, err
	}
	tables := t.gated(statement)
	if len(tables) == 0 {
		return g, nil
	}
	if limit == 0 {
		return g, errors.New("trace: max_prepared_transactions is 0: the locks of " + sqltext.Literal(statement) + " cannot be seen; set it to the number of tables")
	}
	tables = tables[:min(limit, len(tables))]
	var names []string
	for _, r := range tables {
		name := sqltext.Identifier(r.Schema) + "." + sqltext.Identifier(r.Name)
		lock := "LOCK TABLE ONLY " + name + " IN SHARE UPDATE EXCLUSIVE MODE"
		if r.Kind == "m" { // which LOCK refuses; ANALYZE takes the same lock
			lock = "ANALYZE " + name
		} else {
			names = append(names, name)
		}
		id := fmt.Sprintf("pglock_trace_%d_%d", t.session.PID(), r.OID)
		if err := g.session.Exec(ctx, "BEGIN; "+lock+"; PREPARE TRANSACTION "+sqltext.Literal(id)); err != nil {
			return g, fmt.Errorf("trace: locking %s: %w", name, err)
		}
		g.prepared[r.OID] = id
	}
	if len(names) == 0 {
		return g, nil
	}
	g.tables = "ONLY " + strings.Join(names, ", ONLY ")
	g.reader, err = g.read(ctx)
	return g, err
}

// read opens a session with a snapshot, and with the weakest lock on all tables. It
// returns nil if the statement waits for a lock on one of them.
func (g *gate) read(ctx context.Context) (driver.Session, error) {
	s, err := g.source.Open(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE "+g.tables+" IN ACCESS SHARE MODE NOWAIT; SELECT 1")
	if err == nil {
		return s, nil
	}
	if err = errors.Join(err, s.Close()); sqlstate.Of(err) == sqlstate.LockNotAvailable {
		return nil, nil
	}
	return nil, fmt.Errorf("trace: reading the tables: %w", err)
}

// gated returns the tables to lock: first those whose name, or whose index's name, the
// statement may have, in case there are more than can be locked.
func (t *tracer) gated(statement string) []*relation {
	statement = strings.ToLower(statement)
	var named, others []*relation
	for _, r := range t.before.List {
		if r.Temporary || !slices.Contains([]string{"r", "p", "m"}, r.Kind) {
			continue
		}
		mentioned := strings.Contains(statement, strings.ToLower(r.Name)) || slices.ContainsFunc(t.before.List, func(i *relation) bool {
			return i.Table == r.OID && strings.Contains(statement, strings.ToLower(i.Name))
		})
		if mentioned {
			named = append(named, r)
		} else {
			others = append(others, r)
		}
	}
	return append(named, others...)
}

// open releases what a statement waits for, and reports whether there was something.
func (g *gate) open(ctx context.Context, wait heldLock) (bool, error) {
	if id, ok := g.prepared[wait.Relation]; ok && wait.Type == "relation" {
		delete(g.prepared, wait.Relation)
		return true, g.session.Exec(ctx, "ROLLBACK PREPARED "+sqltext.Literal(id))
	}
	if g.reader == nil {
		return false, nil
	}
	// A statement that waits for all older transactions may need a stronger lock next, for
	// which another reader makes it wait.
	var next driver.Session
	if wait.Type != "relation" {
		var err error
		if next, err = g.read(ctx); err != nil {
			return false, err
		}
	}
	reader := g.reader
	g.reader = next
	return true, errors.Join(reader.Exec(ctx, "ROLLBACK"), reader.Close())
}

// close releases all.
func (g *gate) close(ctx context.Context) error {
	var errs []error
	if g.session != nil {
		for _, id := range g.prepared {
			errs = append(errs, g.session.Exec(ctx, "ROLLBACK PREPARED "+sqltext.Literal(id)))
		}
		errs = append(errs, g.session.Close())
	}
	if g.reader != nil {
		errs = append(errs, g.reader.Close())
	}
	return errors.Join(errs...)
}

// addScans adds the scans that the server's notices tell of, since the counters of a
// statement outside of a transaction cannot be read: building an index reads its table,
// and CREATE INDEX CONCURRENTLY reads it a second time, to validate the index.
func (t *tracer) addScans(s *Statement, after *state) {
	second := 0
	for _, n := range t.notices {
		if n.Routine == "validate_index" {
			second++
		}
	}
	for i := range s.Effects {
		e := &s.Effects[i]
		if e.Relation.Table != "" {
			continue
		}
		r := after.relations[e.Relation.OID]
		switch {
		case r == nil:
		case e.Rewrite:
			e.Scans = 1 + e.Indexes
		case e.Indexes > 0 && second >= e.Indexes:
			e.Scans = 2 * e.Indexes
		case e.Indexes > 0:
			e.Scans = e.Indexes
		}
		e.Scan = e.Scans > 0
	}
}
