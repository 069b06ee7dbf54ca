package trace

import (
	"slices"
	"strings"
)

// constraints finds new constraints whose rows are checked, or whose index is built, while
// others wait.
func (a *advisor) constraints() {
	var checked []constraint // again, because a type changed
	for _, c := range a.after.Keys {
		old, existed := a.before.constraints[c.OID]
		table := a.after.relations[c.Table]
		if existed && old.Valid == c.Valid || !c.Valid || c.Parent != 0 || table == nil || !a.matters(c.Table) {
			continue
		}
		switch {
		case !existed && a.remade(c):
			if a.isCheckedAgain(c) {
				checked = append(checked, c)
			}
		case c.Type == "f" && !existed && (a.effect(c.Table).Scan || a.effect(c.References).Scan):
			a.explained[c.Table], a.explained[c.References] = true, true
			if a.stops(c.Table) == "" {
				continue
			}
			f := Finding{
				Rule: ruleForeignKey,
				Text: "it checks all rows of " + table.SQL + " while " + a.waiting(c.Table, c.References) + " wait",
				Note: "each in a transaction of its own; VALIDATE lets reads and writes go on",
			}
			if table.Kind == "p" && a.report.Major < 18 {
				f.Note = "before Postgres 18, a partitioned table needs the constraint on each partition first, NOT VALID and then validated"
			} else {
				f.Safer = a.notValid(table, c)
				f.Note = a.columnFirst(c) + f.Note
			}
			a.add(f)
		case c.Type == "c" && !existed && a.effect(c.Table).Scan:
			a.explained[c.Table] = true
			if a.stops(c.Table) == "" || a.effect(c.Table).Rewrite {
				continue
			}
			table = a.origin(table, func(parent *relation) bool {
				new := a.after.constraintAt(parent.OID, c.Name, c.Type)
				return new != nil && a.before.constraints[new.OID].OID == 0
			})
			f := Finding{
				Rule:  ruleCheck,
				Text:  "it reads all of " + table.SQL + " while " + a.stops(c.Table) + " wait",
				Safer: a.notValid(table, c),
				Note:  a.columnFirst(c) + "each in a transaction of its own; VALIDATE lets reads and writes go on",
			}
			a.addOnce(table, c.Name, f)
		case slices.Contains([]string{"u", "p", "x"}, c.Type) && !existed && a.before.relations[c.Index] == nil && a.buildsIndex(c):
			a.explained[c.Table] = true
			if a.stops(c.Table) == "" {
				continue
			}
			f := Finding{
				Rule: ruleUnique,
				Text: "it builds an index of all rows of " + table.SQL + " while " + a.stops(c.Table) + " wait",
			}
			words := map[string]string{"u": "UNIQUE", "p": "PRIMARY KEY"}[c.Type]
			switch {
			case words == "":
				f.Note = "an exclusion constraint cannot use an index that exists: run it while nobody needs the table"
			case table.Kind == "p":
				f.Note = "on a partitioned table, build the index of each partition with CREATE UNIQUE INDEX CONCURRENTLY, and attach them to one that was created ON ONLY the table"
			default:
				f.Safer = a.usingIndex(table, c, words)
				f.Note = a.columnFirst(c) + "the first one outside of a transaction"
				if c.Type == "p" && a.becomesNotNull(c) {
					f.Note += "; a primary key also makes its columns NOT NULL: do that before it"
				}
			}
			a.add(f)
		}
	}
	a.checkedAgain(checked)
}

// buildsIndex reports whether the index of a constraint was built. A partitioned table's has
// no file.
func (a *advisor) buildsIndex(c constraint) bool {
	i := a.after.relations[c.Index]
	return i != nil && (i.Kind == "I" || a.isBuilt(i, a.after))
}

// becomesNotNull reports whether a column of a primary key was not NOT NULL.
func (a *advisor) becomesNotNull(c constraint) bool {
	r := a.after.relations[c.Table]
	return slices.ContainsFunc(r.Columns, func(column column) bool {
		old := a.columnBefore(r, column)
		return slices.Contains(c.Columns, column.Number) && (old == nil || !old.NotNull)
	})
}

// usingIndex returns the statements that build the index of a constraint first.
func (a *advisor) usingIndex(table *relation, c constraint, words string) []string {
	create := concurrently(a.definition("pg_get_indexdef", c.Index))
	alter, index := "ALTER TABLE "+table.SQL+" ", c.SQL
	if a.replaced(c) { // the old index has the name still
		index = simple(c.Name + "_new")
		create = strings.Replace(create, " "+c.SQL+" ON ", " "+index+" ON ", 1)
		alter += "DROP CONSTRAINT " + c.SQL + ", "
	}
	return []string{create, alter + "ADD CONSTRAINT " + c.SQL + " " + words + " USING INDEX " + index + ";"}
}

// isCheckedAgain reports whether the rows of a constraint that was made anew were checked,
// and whether that can be avoided: not if the table or an index is written anew as well.
func (a *advisor) isCheckedAgain(c constraint) bool {
	effect := a.effect(c.Table)
	if effect.Rewrite || a.effect(c.References).Rewrite {
		a.explained[c.Table] = true // the rewrite is a finding
		return false
	}
	return c.Type == "c" && effect.Scan && effect.Indexes == 0
}

// checkedAgain finds CHECK constraints that were checked again because a type changed: all of
// a table in one finding, since the table is read unless all of them are NOT VALID.
func (a *advisor) checkedAgain(checked []constraint) {
	for _, c := range checked {
		if a.explained[c.Table] {
			continue
		}
		a.explained[c.Table] = true
		if a.stops(c.Table) == "" {
			continue
		}
		table := a.origin(a.after.relations[c.Table], func(parent *relation) bool { return a.after.constraintAt(parent.OID, c.Name, c.Type) != nil })
		alter := "ALTER TABLE " + table.SQL + " "
		var names, drop, change, add, validate []string
		for _, other := range checked {
			if other.Table == c.Table {
				names = append(names, other.SQL)
				drop = append(drop, "DROP CONSTRAINT "+other.SQL)
				add = append(add, "ADD CONSTRAINT "+other.SQL+" "+a.definition("pg_get_constraintdef", other.OID)+" NOT VALID")
				validate = append(validate, alter+"VALIDATE CONSTRAINT "+other.SQL+";")
			}
		}
		for _, column := range a.retyped(table) {
			change = append(change, "ALTER COLUMN "+column.SQL+" TYPE "+column.Type)
		}
		a.addOnce(table, "checked again", Finding{
			Rule:  ruleCheck,
			Text:  "it checks " + strings.Join(names, ", ") + " again, and reads all of " + table.SQL + " while " + a.stops(c.Table) + " wait",
			Safer: append([]string{alter + strings.Join(slices.Concat(drop, change, add), ", ") + ";"}, validate...),
			Note:  "each in a transaction of its own; the first one in place of the change of type: keep what else the statement does",
		})
	}
}

// remade reports whether ALTER TABLE made a constraint anew because the type of one of its
// columns changed.
func (a *advisor) remade(c constraint) bool {
	has := func(table int64, numbers []int) bool {
		r := a.after.relations[table]
		return r != nil && slices.ContainsFunc(a.retyped(r), func(c column) bool { return slices.Contains(numbers, c.Number) })
	}
	return a.before.constraintAt(c.Table, c.Name, c.Type) != nil && (has(c.Table, c.Columns) || has(c.References, c.Referenced))
}

// replaced reports whether the statement dropped a constraint with the same name.
func (a *advisor) replaced(c constraint) bool {
	return slices.ContainsFunc(a.before.Keys, func(old constraint) bool {
		return old.Table == c.Table && old.Name == c.Name && a.after.constraints[old.OID].OID == 0
	})
}

// columnFirst returns what to do before a constraint is added by itself: if a column of it is
// new, add that.
func (a *advisor) columnFirst(c constraint) string {
	for _, column := range a.after.relations[c.Table].Columns {
		if slices.Contains(c.Columns, column.Number) && a.columnBefore(a.after.relations[c.Table], column) == nil {
			return "after a statement that adds the column without the constraint, "
		}
	}
	return ""
}

// notValid returns the statements that add a constraint without checking it, and then check
// it while reads and writes go on.
func (a *advisor) notValid(table *relation, c constraint) []string {
	alter, drop := "ALTER TABLE "+table.SQL+" ", ""
	if a.replaced(c) {
		drop = "DROP CONSTRAINT " + c.SQL + ", "
	}
	return []string{
		alter + drop + "ADD CONSTRAINT " + c.SQL + " " + a.definition("pg_get_constraintdef", c.OID) + " NOT VALID;",
		alter + "VALIDATE CONSTRAINT " + c.SQL + ";",
	}
}
