package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// An Option changes what [Run] does.
type Option func(*tracer)

// RolledBack runs all statements in one transaction, with this lock_timeout, and rolls it
// back. BEGIN and COMMIT in the script are left out, and statements that cannot run in a
// transaction are not run. The transaction holds all its locks until its end: do not use
// this on a server that serves people. A rollback does not undo what leaves the database,
// or the values of sequences.
func RolledBack(lockTimeout time.Duration) Option {
	return func(t *tracer) { t.rollback, t.timeout = true, max(lockTimeout, time.Millisecond) }
}

// A tracer runs a script and observes it.
type tracer struct {
	source   driver.Source
	script   *Script
	rollback bool
	timeout  time.Duration

	session  driver.Session
	observer driver.Session
	notices  []driver.Notice
	report   *Report

	known        map[int64]bool // the relations that existed before the script
	timeoutSet   bool           // lock_timeout is set without us
	before       *state
	baseline     map[lockKey]bool // the locks before the statement
	since        map[lockKey]int  // the statements that acquired them
	transactions int
	inside       bool // a transaction of the script, or one that wraps it, is open
}

// Run runs a script and reports what its statements lock and do. source opens the
// sessions for that: one runs the statements, one reads its locks, and others make
// statements wait that cannot run in a transaction, so that their locks can be seen.
//
// Without [RolledBack] the changes last: run it on a copy that nobody else uses, as a
// superuser, with max_prepared_transactions of at least the number of tables. What is
// found does not need rows, so a copy of the schema is enough. autovacuum must be off.
//
// A statement that fails ends the script: the report has it with its error, which Run
// does not return. Run returns errors of the sessions.
func Run(ctx context.Context, source driver.Source, script *Script, options ...Option) (*Report, error) {
	t := &tracer{source: source, script: script, since: map[lockKey]int{}, known: map[int64]bool{}}
	for _, o := range options {
		o(t)
	}
	var err error
	if t.session, err = source.Open(ctx); err != nil {
		return nil, err
	}
	defer t.session.Close()
	if t.observer, err = source.Open(ctx); err != nil {
		return nil, err
	}
	defer t.observer.Close()
	if s, ok := t.session.(driver.Scripter); ok {
		s.OnNotice(func(n driver.Notice) { t.notices = append(t.notices, n) })
		defer s.OnNotice(nil)
	}
	t.report = &Report{Script: script, RolledBack: t.rollback}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	t.judge()
	return t.report, nil
}

// Load runs the statements of a script, such as a schema, without observing them. Its
// changes last. Statements that name a role that does not exist are left out if they only
// set owners or privileges; skipped counts them.
func Load(ctx context.Context, source driver.Source, script *Script) (skipped int, err error) {
	session, err := source.Open(ctx)
	if err != nil {
		return 0, err
	}
	defer session.Close()
	for _, p := range script.Pieces {
		err := execute(ctx, session, p)
		if sqlstate.Of(err) == sqlstate.UndefinedObject && p.aboutRoles() {
			skipped++
			continue
		}
		if err != nil {
			return skipped, &StatementError{p, err}
		}
	}
	return skipped, nil
}

// aboutRoles reports whether a statement only sets owners or privileges.
func (p Piece) aboutRoles() bool {
	w := p.words
	return len(w) > 0 && (w[0] == "grant" || w[0] == "revoke" || w[0] == "alter" &&
		(len(w) > 1 && w[1] == "default" || strings.Contains(strings.ToUpper(p.SQL), " OWNER TO ")))
}

// A StatementError is an error of the server in a statement of a file.
type StatementError struct {
	Piece Piece
	Err   error
}

func (e *StatementError) Error() string {
	return fmt.Sprintf("%s:%d: %v", e.Piece.File, e.Piece.Line, e.Err)
}

func (e *StatementError) Unwrap() error { return e.Err }

// execute runs a piece.
func execute(ctx context.Context, session driver.Session, p Piece) error {
	if !p.Copy {
		return session.Exec(ctx, p.SQL)
	}
	s, ok := session.(driver.Scripter)
	if !ok {
		return fmt.Errorf("the driver cannot send the data of COPY: %w", errors.ErrUnsupported)
	}
	return s.CopyFrom(ctx, p.SQL, strings.NewReader(p.Data))
}

// exec runs a statement of ours in the traced session.
func (t *tracer) exec(ctx context.Context, sql string) error {
	if err := t.session.Exec(ctx, sql); err != nil {
		return fmt.Errorf("trace: %s: %w", sql, err)
	}
	return nil
}

func (t *tracer) run(ctx context.Context) (err error) {
	version, err := t.session.QueryTextSimple(ctx, "SHOW server_version_num")
	if err != nil {
		return fmt.Errorf("trace: reading the version: %w", err)
	}
	number, err := strconv.Atoi(version)
	if err != nil {
		return fmt.Errorf("trace: reading the version: %w", err)
	}
	t.report.Major = number / 10000
	initial, err := t.session.QueryTextSimple(ctx, "SHOW lock_timeout")
	if err != nil {
		return fmt.Errorf("trace: reading lock_timeout: %w", err)
	}
	t.timeoutSet = t.rollback && initial != "0"
	first, err := readState(ctx, t.session)
	if err != nil {
		return err
	}
	for _, r := range first.List {
		t.known[r.OID] = true
	}
	if t.rollback {
		defer func() {
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, t.exec(ending, "ROLLBACK"))
		}()
	}
	if t.rollback || t.script.Wrap == WrapFile {
		if err := t.begin(ctx); err != nil {
			return err
		}
	}
	for i, p := range t.script.Pieces {
		t.report.Statements = append(t.report.Statements, Statement{Number: i + 1, Piece: p})
		s := &t.report.Statements[i]
		if err := t.trace(ctx, s); err != nil {
			return err
		}
		if s.Err != nil {
			return nil
		}
	}
	if t.inside && !t.rollback {
		if err := t.session.Exec(ctx, "COMMIT"); err != nil {
			if n := len(t.report.Statements); n > 0 && sqlstate.Of(err) != "" {
				t.report.Statements[n-1].Err = fmt.Errorf("COMMIT: %w", err)
				return nil
			}
			return err
		}
	}
	return nil
}

// begin begins a transaction around the script, or what is left of it.
func (t *tracer) begin(ctx context.Context) error {
	t.inside = true
	t.transactions++
	return t.exec(ctx, "BEGIN")
}

// trace runs a statement.
func (t *tracer) trace(ctx context.Context, s *Statement) error {
	if s.Piece.control() != "" {
		return t.control(ctx, s)
	}
	own := !t.inside
	if own {
		t.transactions++
		if err := t.exec(ctx, "BEGIN"); err != nil {
			return err
		}
	}
	s.Transaction = t.transactions
	if err := t.prepare(ctx, own); err != nil {
		return err
	}
	// A savepoint keeps the transaction usable if the statement cannot run in one. Some
	// statements cannot run below a savepoint.
	savepoint := !own && !slices.Contains([]string{"set", "copy", "lock"}, first(s.Piece.words))
	if savepoint {
		if err := t.exec(ctx, "SAVEPOINT pglock_trace"); err != nil {
			return err
		}
	}
	s.LockTimeout = t.limited()
	t.notices = t.notices[:0]
	failed := execute(ctx, t.session, s.Piece)
	if failed != nil && sqlstate.Of(failed) == "" {
		return failed
	}
	if failed == nil {
		if err := t.observe(ctx, s); err != nil {
			return err
		}
		switch {
		case own:
			return t.exec(ctx, "COMMIT")
		case savepoint:
			return t.exec(ctx, "RELEASE SAVEPOINT pglock_trace")
		}
		return nil
	}
	switch {
	case own:
		if err := t.exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
	case savepoint:
		if err := t.exec(ctx, "ROLLBACK TO SAVEPOINT pglock_trace"); err != nil {
			return err
		}
	}
	if !needsNoTransaction(failed) || !own && !savepoint {
		s.Err = failed
		return nil
	}
	s.Outside = true
	if !own {
		s.Findings = append(s.Findings, Finding{
			Rule: ruleTransaction,
			Text: "it cannot run in a transaction, but the file is one",
			Note: "put it into a file of its own, which the runner does not wrap in a transaction",
		})
	}
	if t.rollback {
		s.Skipped = "it cannot run in a transaction, and so cannot be rolled back"
		return nil
	}
	if own {
		s.Transaction = 0
		return t.outside(ctx, s)
	}
	if err := t.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	s.Transaction = 0
	if err := t.outside(ctx, s); err != nil || s.Err != nil {
		return err
	}
	// What follows belongs to the same transaction of the file.
	return t.exec(ctx, "BEGIN")
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// needsNoTransaction reports whether the server refuses to run a statement in a
// transaction.
func needsNoTransaction(err error) bool {
	const invalidTransactionTermination = "2D000" // a procedure that commits
	return slices.Contains([]string{sqlstate.ActiveTransaction, invalidTransactionTermination}, sqlstate.Of(err))
}

// prepare reads what the statement may change, and makes the server send notices.
func (t *tracer) prepare(ctx context.Context, own bool) (err error) {
	if own {
		t.since = map[lockKey]int{}
	}
	settings := "SET client_min_messages = debug1"
	if t.rollback {
		settings += "; SET LOCAL lock_timeout = " + sqltext.Literal(strconv.FormatInt(t.timeout.Milliseconds(), 10)+"ms")
	}
	if err := t.exec(ctx, settings); err != nil {
		return err
	}
	if t.before, err = readState(ctx, t.session); err != nil {
		return err
	}
	locks, err := readLocks(ctx, t.observer, t.session.PID())
	t.baseline = granted(locks)
	return err
}

// limited reports whether the script, or the role, sets lock_timeout.
func (t *tracer) limited() bool { return t.timeoutSet || !t.rollback && t.before.LockTimeout != "0" }

// control runs a statement that begins or ends a transaction.
func (t *tracer) control(ctx context.Context, s *Statement) error {
	s.Control = true
	kind := s.Piece.control()
	if t.rollback {
		if kind == "begin" || kind == "commit" {
			s.Skipped = "all statements run in one transaction here, which is rolled back"
			return nil
		}
		s.Err = errors.New("a script with ROLLBACK, savepoints or prepared transactions is traced only on a copy")
		return nil
	}
	if err := t.session.Exec(ctx, s.Piece.SQL); err != nil {
		if sqlstate.Of(err) == "" {
			return err
		}
		s.Err = err
		return nil
	}
	switch kind {
	case "begin":
		if !t.inside {
			t.transactions++
		}
		t.inside = true
		s.Transaction = t.transactions
	case "savepoint":
		s.Transaction = t.transactions
		return t.forget(ctx)
	default:
		s.Transaction = t.transactions
		t.inside, t.since = false, map[lockKey]int{}
	}
	return nil
}

// forget removes the locks that a rollback to a savepoint released.
func (t *tracer) forget(ctx context.Context) error {
	locks, err := readLocks(ctx, t.observer, t.session.PID())
	held := granted(locks)
	for k := range t.since {
		if !held[k] {
			delete(t.since, k)
		}
	}
	return err
}

// observe reads what a statement did, while its transaction is open.
func (t *tracer) observe(ctx context.Context, s *Statement) error {
	locks, err := readLocks(ctx, t.observer, t.session.PID())
	if err != nil {
		return err
	}
	held := granted(locks)
	after, err := readState(ctx, t.session)
	if err != nil {
		return err
	}
	if t.rollback && after.LockTimeout != t.before.LockTimeout {
		t.timeoutSet = after.LockTimeout != "0"
	}
	for key := range held {
		if t.matters(key.relation) && !t.baseline[key] && t.since[key] == 0 {
			s.Locks = append(s.Locks, t.lock(key, 0))
		}
	}
	t.addHeld(s)
	t.orderLocks(s)
	t.addEffects(s, after, held)
	if err := t.addAdvice(ctx, s, after); err != nil {
		return err
	}
	for _, l := range s.Locks {
		t.since[lockKey{l.Relation.OID, l.Mode}] = s.Number
	}
	return nil
}

// matters reports whether a relation existed before the script. Nobody waits for a new
// one, and catalogs are locked by all.
func (t *tracer) matters(oid int64) bool {
	r := t.before.relations[oid]
	return r != nil && (t.known[oid] || t.known[r.Table])
}

// lock returns a lock for the report.
func (t *tracer) lock(key lockKey, since int) Lock {
	return Lock{Relation: t.before.export(t.before.relations[key.relation]), Mode: key.mode, Since: since}
}

// addHeld adds the strongest locks of earlier statements of the transaction.
func (t *tracer) addHeld(s *Statement) {
	for key, since := range t.since {
		if t.before.relations[key.relation] == nil {
			continue // dropped
		}
		if l := t.lock(key, since); (l.StopsReads() || l.StopsWrites()) && l.Relation.Table == "" {
			s.Held = append(s.Held, l)
		}
	}
	s.Held = slices.DeleteFunc(s.Held, func(l Lock) bool {
		return slices.ContainsFunc(s.Held, func(o Lock) bool { return o.Relation.OID == l.Relation.OID && o.Mode > l.Mode })
	})
}

// orderLocks orders the locks of a statement, and removes those on TOAST tables.
func (t *tracer) orderLocks(s *Statement) {
	for _, locks := range []*[]Lock{&s.Locks, &s.Held} {
		*locks = slices.DeleteFunc(*locks, func(l Lock) bool { return t.before.isToast(t.before.relations[l.Relation.OID]) })
		// slices.SortFunc would add 20 kB for each type to every program.
		sort.Slice(*locks, func(i, j int) bool {
			a, b := &(*locks)[i], &(*locks)[j]
			return cmp.Or(strings.Compare(a.Relation.Table, b.Relation.Table), cmp.Compare(b.Mode, a.Mode), strings.Compare(a.Relation.SQL, b.Relation.SQL)) < 0
		})
	}
}

// addEffects adds what the statement did to relations.
func (t *tracer) addEffects(s *Statement, after *state, held map[lockKey]bool) {
	built := map[int64]int{}
	for _, r := range after.List {
		if t.isBuilt(r, after) {
			built[r.Table]++
		}
	}
	for _, old := range t.before.List {
		if t.before.isToast(old) || !t.matters(old.OID) {
			continue
		}
		e := Effect{Relation: t.before.export(old)}
		for key := range held {
			if key.relation == old.OID {
				e.Mode = max(e.Mode, key.mode)
			}
		}
		r := after.relations[old.OID]
		switch {
		case r == nil:
			// An index of the same name is the same one, made anew.
			e.Drop = e.Mode != 0 && sameName(after, old) == nil
		default:
			e.Indexes = built[r.OID]
			if old.Table == 0 {
				e.Scans = int(r.Scans - old.Scans)
			}
			if r.Node != old.Node && slices.Contains([]string{"r", "m"}, r.Kind) {
				e.Empty = !s.Outside && r.Kind == "r" && r.Space == old.Space && e.Scans <= e.Indexes && !t.noticed("ATRewriteTable") && !t.scansIndex(r, after)
				e.Rewrite = !e.Empty
			}
			if e.Empty { // the new indexes are empty, too
				e.Scans, e.Indexes = 0, 0
			}
			e.Scan = e.Scans > 0
			e.Planned = e.Scan && e.Mode <= pglock.RowExclusive
			e.Validate = e.Scan && t.validates(r, old, after)
		}
		if e.Rewrite || e.Scan || e.Empty || e.Drop || e.Indexes > 0 {
			s.Effects = append(s.Effects, e)
		}
	}
	sort.Slice(s.Effects, func(i, j int) bool {
		a, b := &s.Effects[i].Relation, &s.Effects[j].Relation
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.SQL, b.SQL)) < 0
	})
}

// noticed reports whether a routine of the server sent a notice.
func (t *tracer) noticed(routine string) bool {
	return slices.ContainsFunc(t.notices, func(n driver.Notice) bool { return n.Routine == routine })
}

// isBuilt reports whether an index of a table that existed was built. ALTER TABLE may make
// a new one of an old file.
func (t *tracer) isBuilt(r *relation, after *state) bool {
	if r.Kind != "i" || t.before.relations[r.Table] == nil || after.isToast(r) {
		return false
	}
	return !slices.ContainsFunc(t.before.List, func(old *relation) bool { return old.Table == r.Table && old.Node == r.Node })
}

// scansIndex reports whether an index of a table was scanned, as CLUSTER does.
func (t *tracer) scansIndex(r *relation, after *state) bool {
	return slices.ContainsFunc(after.List, func(i *relation) bool {
		old := t.before.relations[i.OID]
		return i.Table == r.OID && old != nil && i.Scans > old.Scans
	})
}

// validates reports whether a constraint of a table, or one that refers to it, became
// valid, or whether a column became NOT NULL, or the table a partition.
func (t *tracer) validates(r, old *relation, after *state) bool {
	for oid, c := range after.constraints {
		was, existed := t.before.constraints[oid]
		if c.Valid && (!existed || !was.Valid) && slices.Contains([]string{"c", "f"}, c.Type) && (c.Table == r.OID || c.References == r.OID) {
			return true
		}
	}
	return len(newNotNull(r, old)) > 0 || r.Partition && !old.Partition
}

// newNotNull returns the columns that existed and became NOT NULL.
func newNotNull(r, old *relation) []column {
	var columns []column
	for _, c := range r.Columns {
		if was := old.column(c.Number); was != nil && c.NotNull && !was.NotNull {
			columns = append(columns, c)
		}
	}
	return columns
}
