package pglock

import (
	"fmt"
	"slices"
	"strings"
)

// A Mode is one of the eight modes of a table lock, from the weakest to the
// strongest (PostgreSQL manual, 13.3.1 "Table-Level Locks"). Modes are ordered
// with <, as the manual lists them, but strength is not all: what shuts out what
// is told by [Mode.Conflicts].
//
// The zero Mode is no mode: it is the one that a table lock asks for when
// nothing is said, which is [AccessExclusive], as in Postgres' own LOCK.
type Mode uint8

// The modes of a table lock.
const (
	// AccessShare is what SELECT takes.
	AccessShare Mode = iota + 1

	// RowShare is what SELECT ... FOR UPDATE and its kin take.
	RowShare

	// RowExclusive is what INSERT, UPDATE, DELETE and MERGE take.
	RowExclusive

	// ShareUpdateExclusive is what VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY
	// and some forms of ALTER TABLE take. It conflicts with itself.
	ShareUpdateExclusive

	// Share is what CREATE INDEX takes: nobody may write, any number may hold it.
	Share

	// ShareRowExclusive is what CREATE TRIGGER takes: nobody may write, and only
	// one session may hold it.
	ShareRowExclusive

	// Exclusive is what REFRESH MATERIALIZED VIEW CONCURRENTLY takes: others may
	// only read.
	Exclusive

	// AccessExclusive is what DROP TABLE, TRUNCATE, VACUUM FULL and most forms of
	// ALTER TABLE take: others may not even read.
	AccessExclusive
)

// modes is the one table of the modes, in the order of the constants: what SQL
// calls each, what pg_locks calls it, and what it conflicts with. A conflict is
// written down in both rows, as the manual has it.
var modes = [...]struct {
	sql       string
	pgLocks   string
	conflicts []Mode
}{
	AccessShare: {"ACCESS SHARE", "AccessShareLock", []Mode{
		AccessExclusive,
	}},
	RowShare: {"ROW SHARE", "RowShareLock", []Mode{
		Exclusive, AccessExclusive,
	}},
	RowExclusive: {"ROW EXCLUSIVE", "RowExclusiveLock", []Mode{
		Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
	ShareUpdateExclusive: {"SHARE UPDATE EXCLUSIVE", "ShareUpdateExclusiveLock", []Mode{
		ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
	Share: {"SHARE", "ShareLock", []Mode{
		RowExclusive, ShareUpdateExclusive, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
	ShareRowExclusive: {"SHARE ROW EXCLUSIVE", "ShareRowExclusiveLock", []Mode{
		RowExclusive, ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
	Exclusive: {"EXCLUSIVE", "ExclusiveLock", []Mode{
		RowShare, RowExclusive, ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
	AccessExclusive: {"ACCESS EXCLUSIVE", "AccessExclusiveLock", []Mode{
		AccessShare, RowShare, RowExclusive, ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}},
}

// Modes are the eight modes, from the weakest to the strongest.
func Modes() []Mode {
	return []Mode{
		AccessShare, RowShare, RowExclusive, ShareUpdateExclusive,
		Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}
}

// ParseMode reads a mode as SQL writes it ("ACCESS EXCLUSIVE") or as pg_locks
// shows it ("AccessExclusiveLock"), in any case and with any space around and
// between the words. An advisory lock shows as ExclusiveLock or ShareLock, which
// are modes here too.
func ParseMode(s string) (Mode, error) {
	words := strings.Join(strings.Fields(s), " ")
	for _, m := range Modes() {
		if strings.EqualFold(words, modes[m].sql) || strings.EqualFold(words, modes[m].pgLocks) {
			return m, nil
		}
	}
	shown, more := cut(s, shownName)
	return 0, fmt.Errorf("pglock: %q%s is no lock mode: the modes are %s", shown, more, modeList())
}

func modeList() string {
	var names []string
	for _, m := range Modes() {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}

// Valid reports whether m is one of the eight modes. The zero Mode is not.
func (m Mode) Valid() bool { return m >= AccessShare && m <= AccessExclusive }

// String is the mode as SQL writes it, such as "ACCESS EXCLUSIVE"; "" for the
// zero Mode.
func (m Mode) String() string {
	switch {
	case m == 0:
		return ""
	case !m.Valid():
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
	return modes[m].sql
}

// PgLocks is the mode as pg_locks shows it in its column mode, such as
// "AccessExclusiveLock"; "" for what is no mode.
func (m Mode) PgLocks() string {
	if !m.Valid() {
		return ""
	}
	return modes[m].pgLocks
}

// Conflicts reports whether two sessions cannot hold m and other on one table at
// the same time. It does not matter which comes first. A session never conflicts
// with itself, and no mode conflicts with the zero Mode.
func (m Mode) Conflicts(other Mode) bool {
	return m.Valid() && slices.Contains(modes[m].conflicts, other)
}
