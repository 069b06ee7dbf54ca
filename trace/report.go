package trace

import (
	"slices"

	"github.com/pglock-go/pglock"
)

// A Report is what the statements of a script did on the server that they ran on.
type Report struct {
	Script     *Script
	Major      int // the server's major version
	RolledBack bool
	Statements []Statement

	// Traffic is what [Compare] read, or nil.
	Traffic *Traffic
}

// A Relation is a table, an index, or another relation.
type Relation struct {
	OID    int64
	Schema string
	Name   string
	SQL    string // the name as the traced session writes it in SQL
	Kind   string // such as "table" or "index"
	Table  string // the table of an index, as SQL
}

// A Lock is a lock that a statement acquired on a relation that existed before.
type Lock struct {
	Relation Relation
	Mode     pglock.Mode
	Since    int // of Statement.Held: the number of the statement that acquired it
}

// StopsReads reports whether SELECT waits for the lock.
func (l Lock) StopsReads() bool { return l.Mode.Conflicts(pglock.AccessShare) }

// StopsWrites reports whether INSERT, UPDATE and DELETE wait for the lock.
func (l Lock) StopsWrites() bool { return l.Mode.Conflicts(pglock.RowExclusive) }

// An Effect is what was measured of a relation that existed before.
type Effect struct {
	Relation Relation
	Mode     pglock.Mode // the strongest lock that is held on it meanwhile, or 0

	Rewrite  bool // it is written anew, from its data: a new file node
	Scan     bool // it is read from its beginning to its end
	Validate bool // the scan validates a constraint, or NOT NULL
	Empty    bool // it gets an empty file
	Drop     bool // it is removed
	Scans    int  // how many scans; 0 without Scan
	Indexes  int  // how many indexes on it are built

	// Planned is true if a scan is what the planner chose for an empty table: the plan
	// for a large one may differ.
	Planned bool
}

// A Statement is a statement of the script, and what it did.
type Statement struct {
	Number int // from 1
	Piece  Piece

	Locks   []Lock   // that it acquired, and that were not held before
	Held    []Lock   // that earlier statements of its transaction acquired, and that stop reads or writes
	Effects []Effect // on relations

	// Transaction is the number of the transaction in which it ran, from 1, or 0 if it ran
	// outside of one.
	Transaction int

	// Outside is true if it cannot run in a transaction, and so was run outside of one.
	// Its locks were then seen while it waited for other sessions, and may be released
	// before its end.
	Outside bool

	// WaitsForTransactions is true if it waited for a transaction that was older, whatever
	// that did.
	WaitsForTransactions bool

	LockTimeout bool   // lock_timeout was set
	Control     bool   // it begins or ends a transaction, or is a savepoint
	Skipped     string // why it was not run, or ""
	Findings    []Finding

	// Err is the server's error, or nil. The statements after it were not run.
	Err error
}

// A Finding is something that a safer migration would do in another way.
type Finding struct {
	Rule    string
	Text    string   // what happens
	Safer   []string // the statements to use, each of which ends in a semicolon
	Note    string   // what to do, or how to run Safer
	Ignored bool     // a comment silences the rule
}

// Findings returns how many findings no comment silences.
func (r *Report) Findings() int {
	n := 0
	for _, s := range r.Statements {
		for _, f := range s.Findings {
			if !f.Ignored {
				n++
			}
		}
	}
	return n
}

// Err returns the error of the statement that failed, or nil.
func (r *Report) Err() error {
	for _, s := range r.Statements {
		if s.Err != nil {
			return s.Err
		}
	}
	return nil
}

// Strongest returns the strongest lock that the statement acquired on each relation,
// without the locks on indexes of tables that are locked, too.
func (s Statement) Strongest() []Lock {
	var strongest []Lock
	for _, l := range s.Locks {
		isTable := func(o Lock) bool { return o.Relation.SQL == l.Relation.Table }
		if l.Relation.Table != "" && (slices.ContainsFunc(s.Locks, isTable) || slices.ContainsFunc(s.Held, isTable)) {
			continue
		}
		i := slices.IndexFunc(strongest, func(o Lock) bool { return o.Relation.OID == l.Relation.OID })
		switch {
		case i < 0:
			strongest = append(strongest, l)
		case l.Mode > strongest[i].Mode:
			strongest[i] = l
		}
	}
	return strongest
}
