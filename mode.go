package pglock

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/internal/termtext"
)

// A Mode is one of the eight modes of a table lock, from the weakest to the strongest
// (PostgreSQL manual, 13.3.1 "Table-Level Locks"). Modes are ordered with <, as listed in
// the manual, but the order does not determine which modes conflict: see
// [Mode.Conflicts].
//
// The zero Mode is not a mode. A table lock without a mode is [AccessExclusive], as in
// Postgres' own LOCK.
type Mode uint8

// The modes of a table lock.
const (
	// AccessShare is taken by SELECT.
	AccessShare Mode = iota + 1

	// RowShare is taken by SELECT ... FOR UPDATE and the other row-locking clauses.
	RowShare

	// RowExclusive is taken by INSERT, UPDATE, DELETE and MERGE.
	RowExclusive

	// ShareUpdateExclusive is taken by VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY and
	// some forms of ALTER TABLE. It conflicts with itself.
	ShareUpdateExclusive

	// Share is taken by CREATE INDEX. Any number of sessions may hold it, and none may
	// write.
	Share

	// ShareRowExclusive is taken by CREATE TRIGGER. Only one session may hold it, and no
	// other may write.
	ShareRowExclusive

	// Exclusive is taken by REFRESH MATERIALIZED VIEW CONCURRENTLY. Other sessions may
	// only read.
	Exclusive

	// AccessExclusive is taken by DROP TABLE, TRUNCATE, VACUUM FULL and most forms of
	// ALTER TABLE. Other sessions may not even read.
	AccessExclusive
)

// modes describes the modes, indexed by Mode: the name in SQL, the name in pg_locks, and
// the conflicting modes. Each conflict is listed for both modes, as in the manual.
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

// Modes returns the eight modes, from the weakest to the strongest.
func Modes() []Mode {
	return []Mode{
		AccessShare, RowShare, RowExclusive, ShareUpdateExclusive,
		Share, ShareRowExclusive, Exclusive, AccessExclusive,
	}
}

// ParseMode parses a mode as written in SQL ("ACCESS EXCLUSIVE") or shown in pg_locks
// ("AccessExclusiveLock"). It ignores case, and extra space around and between the words.
// pg_locks shows advisory locks as ExclusiveLock or ShareLock, which parse as well.
func ParseMode(s string) (Mode, error) {
	words := strings.Join(strings.Fields(s), " ")
	for _, m := range Modes() {
		if strings.EqualFold(words, modes[m].sql) || strings.EqualFold(words, modes[m].pgLocks) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("pglock: %q is not a lock mode: the modes are %s", termtext.Short(s), modeList())
}

func modeList() string {
	var names []string
	for _, m := range Modes() {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}

// valid reports whether m is one of the eight modes.
func (m Mode) valid() bool { return m >= AccessShare && m <= AccessExclusive }

// String returns the mode as written in SQL, such as "ACCESS EXCLUSIVE", or "" for the
// zero Mode.
func (m Mode) String() string {
	switch {
	case m == 0:
		return ""
	case !m.valid():
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
	return modes[m].sql
}

// PgLocks returns the mode as shown in the column mode of pg_locks, such as
// "AccessExclusiveLock", or "" if m is not a mode.
func (m Mode) PgLocks() string {
	if !m.valid() {
		return ""
	}
	return modes[m].pgLocks
}

// Conflicts reports whether two sessions cannot hold m and other on the same table at the
// same time. It is symmetric. A session never conflicts with itself, and no mode
// conflicts with the zero Mode.
func (m Mode) Conflicts(other Mode) bool {
	return m.valid() && slices.Contains(modes[m].conflicts, other)
}
