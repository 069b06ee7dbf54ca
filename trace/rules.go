package trace

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/lazyregexp"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// The rules. Each is found from what was measured and from what changed in the catalogs,
// not from the words of a statement.
const (
	ruleTransaction   = "cannot-run-in-transaction"
	ruleTimeout       = "no-lock-timeout"
	ruleIndex         = "index-not-concurrent"
	ruleDropIndex     = "drop-index-not-concurrent"
	ruleReindex       = "reindex-not-concurrent"
	ruleUnique        = "constraint-builds-index"
	ruleForeignKey    = "foreign-key-validates"
	ruleCheck         = "check-validates"
	ruleNotNull       = "not-null-scans"
	ruleDefault       = "default-rewrites"
	ruleRewrite       = "rewrite"
	ruleAttach        = "attach-scans"
	ruleDetach        = "detach-not-concurrent"
	ruleRefresh       = "refresh-not-concurrent"
	ruleScan          = "scan-under-lock"
	ruleAfterLock     = "work-after-lock"
	ruleSeveralTables = "locks-several-tables"
)

// Rules returns the names of all rules.
func Rules() []string {
	return []string{
		ruleTransaction, ruleTimeout, ruleIndex, ruleDropIndex, ruleReindex, ruleUnique, ruleForeignKey, ruleCheck,
		ruleNotNull, ruleDefault, ruleRewrite, ruleAttach, ruleDetach, ruleRefresh, ruleScan, ruleAfterLock, ruleSeveralTables,
	}
}

// text runs a query of ours in the traced session, and returns its only value, a text.
func (t *tracer) text(ctx context.Context, sql string) (string, error) {
	text, err := t.session.QueryTextSimple(ctx, sql)
	if err != nil {
		return "", fmt.Errorf("trace: reading a definition: %w", err)
	}
	return text, nil
}

// define returns the definition that a function of Postgres has for an object.
func (t *tracer) define(ctx context.Context, function string, oid int64) (string, error) {
	return t.text(ctx, "SELECT pg_catalog."+function+"(CAST("+sqltext.Literal(strconv.FormatInt(oid, 10))+" AS pg_catalog.oid))")
}

// An advisor finds what a statement could do in a safer way.
type advisor struct {
	*tracer
	ctx   context.Context
	s     *Statement
	after *state

	explained map[int64]bool  // tables whose scan or rewrite a finding explains
	added     map[string]bool // findings that addOnce has added
	err       error
}

// addAdvice adds the findings about a statement alone.
func (t *tracer) addAdvice(ctx context.Context, s *Statement, after *state) error {
	a := &advisor{tracer: t, ctx: ctx, s: s, after: after, explained: map[int64]bool{}, added: map[string]bool{}}
	a.constraints()
	a.indexes()
	a.columns()
	a.partitions()
	a.rest()
	return a.err
}

// mode returns the strongest lock on a table.
func (a *advisor) mode(table int64) pglock.Mode {
	for _, e := range a.s.Effects {
		if e.Relation.OID == table && e.Mode != 0 {
			return e.Mode
		}
	}
	var mode pglock.Mode
	for _, l := range append(slices.Clone(a.s.Locks), a.s.Held...) {
		if l.Relation.OID == table {
			mode = max(mode, l.Mode)
		}
	}
	return mode
}

// stops reports what a lock on a table stops, or "" for nothing.
func (a *advisor) stops(table int64) string { return stops(a.mode(table)) }

// waiting returns what waits for the locks on two tables.
func (a *advisor) waiting(tables ...int64) string {
	var all []string
	for _, table := range slices.Compact(tables) {
		if r := a.after.relations[table]; r != nil && a.stops(table) != "" {
			all = append(all, a.stops(table)+" on "+r.SQL)
		}
	}
	return strings.Join(all, ", and ")
}

// simple quotes a name that this package makes of another one, if it needs that.
func simple(name string) string {
	if plainName().MatchString(name) {
		return name
	}
	return sqltext.Identifier(name)
}

var plainName = lazyregexp.New(`^[a-z_][a-z0-9_]*$`)

// stops returns what a lock stops, or "".
func stops(m pglock.Mode) string {
	switch {
	case m.Conflicts(pglock.AccessShare):
		return "reads and writes"
	case m.Conflicts(pglock.RowExclusive):
		return "writes"
	}
	return ""
}

func (a *advisor) effect(table int64) Effect {
	if i := slices.IndexFunc(a.s.Effects, func(e Effect) bool { return e.Relation.OID == table }); i >= 0 {
		return a.s.Effects[i]
	}
	return Effect{}
}

func (a *advisor) add(f Finding) { a.s.Findings = append(a.s.Findings, f) }

// addOnce adds a finding about an object of a table. A partition inherits most of what its
// parent has, so that the same is found for each.
func (a *advisor) addOnce(table *relation, object string, f Finding) {
	key := f.Rule + " " + table.SQL + " " + object
	if !a.added[key] {
		a.added[key] = true
		a.add(f)
	}
}

// origin returns the table that a statement for r must name: r, or if r only inherits a
// change, the topmost table that has changed alike.
func (a *advisor) origin(r *relation, alike func(parent *relation) bool) *relation {
	for {
		parent := a.after.relations[r.Parent]
		if parent == nil || a.before.relations[parent.OID] == nil || !alike(parent) {
			return r
		}
		r = parent
	}
}

// columnBefore returns what a column was, or nil.
func (a *advisor) columnBefore(r *relation, c column) *column {
	return a.before.relations[r.OID].column(c.Number)
}

// retyped returns the columns of a table whose type or collation changed.
func (a *advisor) retyped(r *relation) []column {
	var columns []column
	for _, c := range r.Columns {
		if old := a.columnBefore(r, c); old != nil && old.Type != c.Type {
			columns = append(columns, c)
		}
	}
	return columns
}

// definition returns a definition, or "" after an error, which the advisor keeps.
func (a *advisor) definition(function string, oid int64) string {
	text, err := a.define(a.ctx, function, oid)
	if a.err == nil {
		a.err = err
	}
	return text
}

// concurrently returns the definition of an index as a statement that lets writes go on.
func concurrently(definition string) string {
	for _, create := range []string{"CREATE INDEX ", "CREATE UNIQUE INDEX "} {
		if rest, ok := strings.CutPrefix(definition, create); ok {
			return create + "CONCURRENTLY " + rest + ";"
		}
	}
	return definition + ";"
}

// indexes finds indexes that were built, rebuilt or dropped while others wait.
func (a *advisor) indexes() {
	for _, i := range a.after.List {
		table := a.after.relations[i.Table]
		old := a.before.relations[i.OID]
		if table == nil || i.Kind != "i" && i.Kind != "I" || !a.matters(i.Table) || a.after.isToast(i) {
			continue
		}
		ofConstraint := slices.ContainsFunc(a.after.Keys, func(c constraint) bool { return c.Index == i.OID && c.Table == i.Table })
		effect := a.effect(table.OID)
		switch {
		case a.s.Outside || a.stops(table.OID) == "":
		case old == nil && (!a.isBuilt(i, a.after) && i.Kind == "i" || sameName(a.before, i) != nil): // remade by ALTER TABLE
		case old == nil && !ofConstraint && !i.Partition:
			a.explained[table.OID] = true
			f := Finding{Rule: ruleIndex, Text: "it reads all of " + table.SQL + " while " + a.stops(table.OID) + " wait"}
			if i.Kind == "I" {
				f.Note = "a partitioned table cannot do it concurrently: CREATE INDEX ON ONLY the table, then CREATE INDEX CONCURRENTLY on each partition, and ALTER INDEX ... ATTACH PARTITION"
			} else {
				f.Safer = []string{concurrently(a.definition("pg_get_indexdef", i.OID))}
				f.Note = "outside of a transaction; if it fails, drop the invalid index and try again"
			}
			a.add(f)
		case old != nil && old.Node != i.Node && !effect.Rewrite && !effect.Empty && i.Kind == "i":
			a.explained[table.OID] = true
			a.add(Finding{
				Rule: ruleReindex, Text: "it rebuilds an index of " + table.SQL + " while " + a.stops(table.OID) + " wait",
				Safer: []string{"REINDEX INDEX CONCURRENTLY " + i.SQL + ";"}, Note: "outside of a transaction",
			})
		}
	}
	for _, i := range a.before.List {
		table := a.after.relations[i.Table]
		if a.after.relations[i.OID] != nil || table == nil || !a.matters(i.OID) || i.Kind != "i" || i.Partition || a.before.isToast(i) || a.s.Outside ||
			a.stops(table.OID) == "" || slices.ContainsFunc(a.before.Keys, func(c constraint) bool { return c.Index == i.OID }) ||
			a.columnsDropped(table) || sameName(a.after, i) != nil {
			continue
		}
		a.add(Finding{
			Rule: ruleDropIndex, Text: a.stops(table.OID) + " on " + table.SQL + " wait until its transaction ends",
			Safer: []string{"DROP INDEX CONCURRENTLY " + i.SQL + ";"}, Note: "outside of a transaction",
		})
	}
}

// sameName returns the index of the same table that has the same name in another state,
// or nil.
func sameName(in *state, index *relation) *relation {
	if i := slices.IndexFunc(in.List, func(r *relation) bool { return index.Table != 0 && r.Table == index.Table && r.Name == index.Name }); i >= 0 {
		return in.List[i]
	}
	return nil
}

// columnsDropped reports whether a table lost a column, and with it its indexes.
func (a *advisor) columnsDropped(table *relation) bool {
	return slices.ContainsFunc(a.before.relations[table.OID].Columns, func(c column) bool {
		return table.column(c.Number) == nil
	})
}

// columns finds what new, changed or NOT NULL columns cost.
func (a *advisor) columns() {
	for _, r := range a.after.List {
		old := a.before.relations[r.OID]
		if !a.matters(r.OID) {
			continue
		}
		effect := a.effect(r.OID)
		if effect.Rewrite {
			for _, c := range r.Columns {
				was := a.columnBefore(r, c)
				at := a.origin(r, func(parent *relation) bool {
					return slices.ContainsFunc(parent.Columns, func(p column) bool {
						old := a.columnBefore(parent, p)
						return p.Name == c.Name && (old == nil) == (was == nil) && (old == nil || old.Type != p.Type)
					})
				})
				alter := "ALTER TABLE " + at.SQL + " "
				switch {
				case was == nil && c.Generated:
					a.explained[r.OID] = true
					a.addOnce(at, c.Name, Finding{
						Rule: ruleRewrite, Text: "the values of the new column are computed, so it writes all of " + at.SQL + " anew while " + a.stops(r.OID) + " wait",
						Safer: []string{alter + "ADD COLUMN " + c.SQL + " " + c.Type + ";"},
						Note:  "keep a plain column up to date with a trigger, and fill the old rows in batches",
					})
				case was == nil && c.Default:
					a.explained[r.OID] = true
					expression, err := a.text(a.ctx, fmt.Sprintf("SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef AS d WHERE d.adrelid OPERATOR(pg_catalog.=) CAST('%d' AS pg_catalog.oid) AND d.adnum OPERATOR(pg_catalog.=) %d", r.OID, c.Number))
					if err != nil {
						a.err = err
						return
					}
					safer := []string{alter + "ADD COLUMN " + c.SQL + " " + c.Type + ";"}
					for _, sequence := range a.after.List {
						if sequence.Kind == "S" && a.before.relations[sequence.OID] == nil && strings.Contains(expression, sequence.Name) {
							safer = append(safer, "CREATE SEQUENCE "+sequence.SQL+" OWNED BY "+at.SQL+"."+c.SQL+";")
						}
					}
					a.addOnce(at, c.Name, Finding{
						Rule: ruleDefault, Text: "the default is not constant, so it writes all of " + at.SQL + " anew while " + a.stops(r.OID) + " wait",
						Safer: append(safer, alter+"ALTER COLUMN "+c.SQL+" SET DEFAULT "+expression+";"),
						Note:  "then fill the old rows in batches: UPDATE " + at.SQL + " SET " + c.SQL + " = DEFAULT WHERE ...",
					})
				case was != nil && was.Type != c.Type:
					a.explained[r.OID] = true
					a.addOnce(at, c.Name, Finding{
						Rule: ruleRewrite, Text: fmt.Sprintf("%s and %s differ on disk, so it writes all of %s anew while %s wait", was.Type, c.Type, at.SQL, a.stops(r.OID)),
						Safer: []string{alter + "ADD COLUMN " + simple(c.Name+"_new") + " " + c.Type + ";"},
						Note:  "keep the new column in step with a trigger, fill it in batches, then swap the names in a transaction",
					})
				}
			}
		}
		if !effect.Scan || effect.Rewrite || a.stops(r.OID) == "" {
			continue
		}
		a.newNotNullColumns(r)
		if added := newNotNull(r, old); len(added) > 0 && !a.explained[r.OID] {
			a.explained[r.OID] = true
			at := a.origin(r, func(parent *relation) bool {
				return slices.ContainsFunc(newNotNull(parent, a.before.relations[parent.OID]), func(c column) bool { return c.Name == added[0].Name })
			})
			f := Finding{
				Rule: ruleNotNull, Text: "it reads all of " + at.SQL + " while " + a.stops(r.OID) + " wait",
				Note: "each in a transaction of its own: SET NOT NULL then trusts the constraint, and reads nothing",
			}
			for _, c := range added {
				f.Safer = append(f.Safer, setNotNull(at, c)...)
			}
			a.addOnce(at, added[0].Name, f)
		}
	}
}

// setNotNull returns the statements that make a column NOT NULL without reading the table
// while others wait.
func setNotNull(table *relation, c column) []string {
	alter, name := "ALTER TABLE "+table.SQL+" ", simple(table.Name+"_"+c.Name+"_set")
	return []string{
		alter + "ADD CONSTRAINT " + name + " CHECK (" + c.SQL + " IS NOT NULL) NOT VALID;",
		alter + "VALIDATE CONSTRAINT " + name + ";",
		alter + "ALTER COLUMN " + c.SQL + " SET NOT NULL;",
		alter + "DROP CONSTRAINT " + name + ";",
	}
}

// newNotNullColumns finds new columns that are NOT NULL and have no default.
func (a *advisor) newNotNullColumns(r *relation) {
	for _, c := range r.Columns {
		ofPrimaryKey := slices.ContainsFunc(a.after.Keys, func(k constraint) bool {
			return k.Table == r.OID && k.Type == "p" && slices.Contains(k.Columns, c.Number)
		})
		if a.columnBefore(r, c) != nil || !c.NotNull || c.Default || c.Generated || ofPrimaryKey {
			continue
		}
		a.explained[r.OID] = true
		at := a.origin(r, func(parent *relation) bool {
			return slices.ContainsFunc(parent.Columns, func(p column) bool { return p.Name == c.Name && a.columnBefore(parent, p) == nil })
		})
		a.addOnce(at, c.Name, Finding{
			Rule:  ruleNotNull,
			Text:  "the new column is NOT NULL and has no default, so the statement fails if " + at.SQL + " has a row",
			Safer: append([]string{"ALTER TABLE " + at.SQL + " ADD COLUMN " + c.SQL + " " + c.Type + ";"}, setNotNull(at, c)...),
			Note:  "each in a transaction of its own; after the first one, let every program set the column, and fill it in batches: from ADD CONSTRAINT on, a row without a value can be neither inserted nor updated. Or give the column a constant default, which needs none of this",
		})
	}
}

// partitions finds tables that were attached or detached while others wait.
func (a *advisor) partitions() {
	for _, r := range a.after.List {
		old := a.before.relations[r.OID]
		if !a.matters(r.OID) || r.Kind != "r" && r.Kind != "p" || r.Partition == old.Partition {
			continue
		}
		if r.Partition {
			effect := a.effect(r.OID)
			a.explained[r.OID] = true
			if !effect.Scan {
				continue
			}
			name := simple(r.Name + "_bound")
			a.add(Finding{
				Rule: ruleAttach, Text: "it reads all of " + r.SQL + " to check its rows while " + a.stops(r.OID) + " wait",
				Safer: []string{
					"ALTER TABLE " + r.SQL + " ADD CONSTRAINT " + name + " CHECK (" + a.definition("pg_get_partition_constraintdef", r.OID) + ") NOT VALID;",
					"ALTER TABLE " + r.SQL + " VALIDATE CONSTRAINT " + name + ";",
				},
				Note: "each in a transaction of its own, and before ATTACH PARTITION, which then reads nothing; drop the constraint afterwards. If there is a default partition, it is read too, unless a CHECK constraint proves that it has no such row",
			})
			continue
		}
		parent := a.before.relations[old.Parent]
		if parent == nil || a.s.Outside || a.stops(parent.OID) == "" {
			continue
		}
		f := Finding{Rule: ruleDetach, Text: a.stops(parent.OID) + " on " + parent.SQL + " wait until its transaction ends"}
		if a.report.Major < 14 {
			f.Note = "from Postgres 14 on, DETACH PARTITION has CONCURRENTLY; until then, use a short lock_timeout"
		} else {
			f.Safer = []string{"ALTER TABLE " + parent.SQL + " DETACH PARTITION " + r.SQL + " CONCURRENTLY;"}
			f.Note = "outside of a transaction; not possible if there is a default partition"
		}
		a.add(f)
	}
}

// rest finds rewrites and scans under a lock that no other rule explains.
func (a *advisor) rest() {
	for _, e := range a.s.Effects {
		stopped := stops(e.Mode)
		switch {
		case e.Relation.Table != "" || a.explained[e.Relation.OID] || stopped == "":
		case e.Rewrite && e.Relation.Kind == "materialized view":
			a.add(Finding{
				Rule: ruleRefresh, Text: stopped + " on " + e.Relation.SQL + " wait while its query runs",
				Safer: []string{"REFRESH MATERIALIZED VIEW CONCURRENTLY " + e.Relation.SQL + ";"},
				Note:  "it needs a unique index on columns, without WHERE",
			})
		case e.Rewrite:
			a.add(Finding{
				Rule: ruleRewrite, Text: "it writes all of " + e.Relation.SQL + " anew while " + stopped + " wait",
				Note: "run it while nobody needs the table; to only remove dead rows, pg_repack and pg_squeeze need no such lock",
			})
		case e.Scan && slices.ContainsFunc(a.s.Locks, func(l Lock) bool { return l.Relation.OID == e.Relation.OID && l.StopsReads() }):
			f := Finding{
				Rule: ruleScan, Text: "it reads all of " + e.Relation.SQL + " while " + stopped + " wait",
				Note: "find out what is checked, and add it as a constraint that is NOT VALID first",
			}
			if e.Indexes > 0 && len(a.retyped(a.after.relations[e.Relation.OID])) > 0 {
				f.Text = "it builds indexes of " + e.Relation.SQL + " anew while " + stopped + " wait"
				f.Note = "keep a new column in step with a trigger, fill it in batches, then swap the names in a transaction"
			}
			a.add(f)
		}
	}
}

// judge adds the findings that depend on several statements, and marks those that a
// comment silences.
func (t *tracer) judge() {
	t.unwrapFlyway()
	warned := false // of no lock_timeout
	for i := range t.report.Statements {
		s := &t.report.Statements[i]
		if !warned { // a setting of the session covers what follows
			warned = judgeTimeout(s)
		}
		judgeHeld(s)
		for j := range s.Findings {
			f := &s.Findings[j]
			f.Ignored = slices.Contains(s.Piece.Ignored, f.Rule)
		}
	}
}

// unwrapFlyway removes what is said about the transaction if there is none: Flyway runs a
// file without one if no statement can run in one.
func (t *tracer) unwrapFlyway() {
	all := t.report.Statements
	if t.script.Format != Flyway || t.script.Wrap != WrapFile || slices.ContainsFunc(all, func(s Statement) bool { return !s.Outside }) {
		return
	}
	t.script.Wrap = WrapNone
	for i := range all {
		all[i].Findings = slices.DeleteFunc(all[i].Findings, func(f Finding) bool { return f.Rule == ruleTransaction })
	}
}

// judgeTimeout finds a lock that would wait without limit, while all others wait behind
// it, and reports whether there was one.
func judgeTimeout(s *Statement) bool {
	for _, l := range s.Strongest() {
		if s.LockTimeout || !l.StopsWrites() || l.Relation.Kind == "materialized view" && !l.StopsReads() || s.Outside && s.WaitsForTransactions {
			continue
		}
		s.Findings = append(s.Findings, Finding{
			Rule: ruleTimeout, Text: "while it waits for the lock on " + l.Relation.SQL + ", " + stops(l.Mode) + " of others wait behind it, without limit",
			Safer: []string{"SET lock_timeout = '2s';"}, Note: "before it, and try again if it fails; or run the migration with pglock prioritize",
		})
		return true
	}
	return false
}

// judgeHeld finds work that is done while locks of earlier statements are held, and
// transactions that lock several tables one after the other.
func judgeHeld(s *Statement) {
	if s.Transaction == 0 {
		return
	}
	work := ""
	for _, e := range s.Effects {
		switch {
		case e.Relation.Table != "" || e.Planned && e.Mode <= pglock.RowShare:
		case e.Rewrite:
			work = "it writes all of " + e.Relation.SQL + " anew"
		case work == "" && (e.Scan || e.Indexes > 0):
			work = "it reads all of " + e.Relation.SQL
		}
	}
	if work != "" && len(s.Held) > 0 {
		l := s.Held[0]
		s.Findings = append(s.Findings, Finding{
			Rule: ruleAfterLock, Text: fmt.Sprintf("%s while the %s of statement %d on %s is still held: %s wait there", work, l.Mode.PgLocks(), l.Since, l.Relation.SQL, stops(l.Mode)),
			Note: "run it in a transaction of its own",
		})
	}
	strong := func(l Lock) bool {
		return l.StopsReads() && l.Relation.Table == "" && l.Relation.Kind != "sequence"
	}
	for _, l := range s.Strongest() {
		i := slices.IndexFunc(s.Held, func(h Lock) bool { return strong(h) && h.Relation.OID != l.Relation.OID })
		if !strong(l) || i < 0 || slices.ContainsFunc(s.Held, func(h Lock) bool { return h.Relation.OID == l.Relation.OID && strong(h) }) {
			continue
		}
		h := s.Held[i]
		s.Findings = append(s.Findings, Finding{
			Rule: ruleSeveralTables, Text: fmt.Sprintf("reads of %s wait, since statement %d, while this waits for %s; a transaction that uses both in the other order deadlocks with it", h.Relation.SQL, h.Since, l.Relation.SQL),
			Note: "lock one table in each transaction",
		})
		return
	}
}
