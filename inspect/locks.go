package inspect

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
)

// The columns of the line that several locks share, in snapshot.sql.
const (
	colPID = iota
	colTransaction
	colType
	colDatabase
	colMode
	colGranted
	colFastPath
	commonFields
)

// The columns of the line of a lock.
const (
	colRelation = iota
	colPage
	colTuple
	colVirtualXID
	colTransactionID
	colClassID
	colObjectID
	colObjectSubID
	colWaitStart
	lockFields
)

// parseLocks parses locks, without the names of relations.
func (r *reading) parseLocks(packed []string) ([]Lock, error) {
	count := 0
	for _, text := range packed {
		count += strings.Count(text, "\n")
	}
	locks := make([]Lock, count)
	i := 0
	for n, text := range packed {
		first, lines, ok := strings.Cut(text, "\n")
		if !ok {
			return nil, unreadableError("lock", text)
		}
		common, err := r.parseCommon(first)
		if err != nil {
			return nil, err
		}
		for line := range strings.SplitSeq(lines, "\n") {
			locks[i] = common
			if err := r.parseLock(&locks[i], line); err != nil {
				return nil, err
			}
			i++
		}
		packed[n] = "" // the locks do not refer to it
	}
	return locks, nil
}

// parseCommon parses the line that several locks share.
func (r *reading) parseCommon(line string) (Lock, error) {
	var f [commonFields]string
	if parseRecord(line, f[:]) != commonFields {
		return Lock{}, unreadableError("lock", line)
	}
	var n numberParser
	l := Lock{
		Session:     r.unowned,
		Type:        r.intern(f[colType]),
		Mode:        r.intern(f[colMode]),
		Granted:     f[colGranted] == "t",
		FastPath:    f[colFastPath] == "t",
		Transaction: r.intern(f[colTransaction]),
		DatabaseOID: n.oid(f[colDatabase]),
	}
	if l.Type == "speculative token" { // the name in older versions
		l.Type = typeSpecToken
	}
	if f[colPID] != "" {
		l.Session = r.session(int32(n.int(f[colPID])))
	}
	if n.err != nil {
		return Lock{}, unreadableError("lock", line)
	}
	return l, nil
}

// parseLock adds the columns of a single lock to l.
func (r *reading) parseLock(l *Lock, line string) error {
	var f [lockFields]string
	if parseRecord(line, f[:]) != lockFields {
		return unreadableError("lock", line)
	}
	var n numberParser
	l.VirtualXID = r.intern(f[colVirtualXID])
	l.TransactionID = n.oid(f[colTransactionID])
	l.RelationOID = n.oid(f[colRelation])
	l.ClassID = n.oid(f[colClassID])
	l.ObjectID = n.oid(f[colObjectID])
	l.ObjectSubID = int16(n.int(f[colObjectSubID]))
	if f[colPage] != "" {
		l.HasPage = true
		l.Page = uint32(n.int(f[colPage])) // unsigned, but pg_locks has it as a signed number
		l.Tuple = uint16(n.int(f[colTuple]))
	}
	if l.Type == typeAdvisory {
		l.Key, l.HasKey = pglock.PgLocksKey(l.ClassID, l.ObjectID, l.ObjectSubID)
	}
	if !l.Granted {
		r.setWait(l, n.seconds(f[colWaitStart]))
	}
	if n.err != nil {
		return unreadableError("lock", line)
	}
	return nil
}

// setWait sets when the wait of l began.
func (r *reading) setWait(l *Lock, start time.Time) {
	if start.IsZero() {
		start, l.WaitApprox = l.QueryStart, true
	}
	if start.IsZero() {
		return // hidden, or its session is gone
	}
	l.WaitStart = start
	l.WaitDuration = max(0, r.server.Time.Sub(start))
}

// namedRelation returns the relation that l is named after: its own, or the catalog of its
// object, which has the same OID in every database.
func (l *Lock) namedRelation() (database, relation uint32) {
	if l.Type == typeObject {
		return 0, l.ClassID
	}
	return l.DatabaseOID, l.RelationOID
}

// unnamedOIDs returns the OIDs of the relations and databases whose names are still
// missing.
func (r *reading) unnamedOIDs() (relations, databases string) {
	here, elsewhere := map[uint32]struct{}{}, map[uint32]struct{}{}
	for _, locks := range [][]Lock{r.locks, r.sideLocks} {
		for i := range locks {
			switch database, relation := locks[i].namedRelation(); {
			case relation == 0:
			case database == 0 || database == r.server.databaseOID:
				if _, named := r.relations[relation]; !named {
					here[relation] = struct{}{}
				}
			default:
				elsewhere[database] = struct{}{}
			}
		}
	}
	return oidArray(here), oidArray(elsewhere)
}

// nameLocks sets the names of what is locked. If a relation no longer exists or is
// not committed yet, its name is its OID.
func (r *reading) nameLocks(locks []Lock) {
	for i := range locks {
		l := &locks[i]
		database, relation := l.namedRelation()
		if relation == 0 {
			continue
		}
		number := func(oid uint32) string { return strconv.FormatUint(uint64(oid), 10) }
		if database == 0 || database == r.server.databaseOID {
			c, ok := r.relations[relation]
			if !ok {
				c.name = r.intern(number(relation))
			}
			l.Kind, l.Schema, l.Relation = c.kind, c.schema, c.name
			continue
		}
		name, ok := r.databases[database]
		if !ok {
			name = number(database)
		}
		l.Relation = r.intern(name + ":" + number(relation))
	}
}

// resolveRows finds the rows that transactions wait for. A session that waits for a
// row that another transaction has locked waits for that transaction. The first in
// the queue also holds the tuple lock meanwhile
// (src/backend/access/heap/README.tuplock). A session that waits for a transaction
// without a tuple lock waits for something else, such as a unique key that the other
// has inserted. In that case the tables that it writes to are candidates.
func (r *reading) resolveRows() {
	waiting := map[*Session]*Lock{}
	for i := range r.locks {
		if l := &r.locks[i]; !l.Granted && l.Type == typeTransactionID && l.PID != 0 {
			waiting[l.Session] = l
		}
	}
	if len(waiting) == 0 {
		return
	}
	each := func(resolve func(w, l *Lock)) {
		for _, locks := range [][]Lock{r.locks, r.sideLocks} {
			for i := range locks {
				if l := &locks[i]; l.Granted {
					if w := waiting[l.Session]; w != nil {
						resolve(w, l)
					}
				}
			}
		}
	}
	each(func(w, l *Lock) {
		if l.Type == typeTuple {
			w.Kind, w.Schema, w.Relation = l.Kind, l.Schema, l.Relation
			w.DatabaseOID, w.RelationOID = l.DatabaseOID, l.RelationOID
			w.HasPage, w.Page, w.Tuple = true, l.Page, l.Tuple
		}
	})
	each(func(w, l *Lock) {
		if w.Tuple == 0 && l.Type == typeRelation && l.Mode == pglock.RowExclusive.PgLocks() && l.isTable() {
			if name := l.qualified(); !slices.Contains(w.Candidates, name) {
				w.Candidates = append(w.Candidates, name)
			}
		}
	})
	for _, w := range waiting {
		slices.Sort(w.Candidates)
	}
}

// isTable reports whether the lock is on a user table.
func (l *Lock) isTable() bool {
	switch l.Kind {
	case "TABLE", "PARTITIONED_TABLE", "FOREIGN_TABLE":
		return l.Schema != "pg_catalog"
	}
	return false
}
