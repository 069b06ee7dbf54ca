package pglock

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A Key says which advisory lock is meant. Postgres knows advisory locks by
// number alone, in two spaces that never meet: one of 64-bit numbers and one of
// pairs of 32-bit numbers (PostgreSQL manual, 9.28.10 "Advisory Lock
// Functions"). A lock belongs to one database: the same key in another database
// is another lock.
//
// Make a Key with [Name], [Int] or [Pair]. The zero Key is Int(0), a lock like
// any other. Keys are comparable with ==, but a Name and the Int that it maps
// to are the same lock and yet not ==; compare [Key.ID] and [Key.IsPair] where
// that matters.
type Key struct {
	id    int64
	name  string
	named bool
	pair  bool
}

// Name is the key of a name: the first 8 bytes of the SHA-256 of its bytes,
// read as a little-endian signed number. django-pglock maps names in the same
// way, so a Go and a Django service share a lock by its name. The mapping never
// changes. Any string is a name, the empty one too.
func Name(name string) Key {
	sum := sha256.Sum256([]byte(name))
	return Key{id: int64(binary.LittleEndian.Uint64(sum[:8])), name: name, named: true}
}

// Int is the key with the number n, as pg_advisory_lock(bigint) takes it.
func Int(n int64) Key { return Key{id: n} }

// Pair is the key of two numbers, as pg_advisory_lock(int, int) takes it. Pairs
// are locks of their own: no pair is the same lock as any Int or Name.
func Pair(class, object int32) Key {
	return Key{id: int64(class)<<32 | int64(uint32(object)), pair: true}
}

// PgLocksKey is the key of the advisory lock that a row of pg_locks shows in its
// columns classid, objid and objsubid. It reports false when objsubid is neither
// 1 (a 64-bit number) nor 2 (a pair): such rows are locks that an extension took
// for itself. The key has no name: a name cannot be had back from its number.
func PgLocksKey(classid, objid uint32, objsubid int16) (Key, bool) {
	id := int64(uint64(classid)<<32 | uint64(objid))
	switch objsubid {
	case 1:
		return Key{id: id}, true
	case 2:
		return Key{id: id, pair: true}, true
	}
	return Key{}, false
}

// ID is the key's number. For a pair it is the 64 bits of both, class first:
// the number that pg_locks' classid and objid make together.
func (k Key) ID() int64 { return k.id }

// IsPair reports whether the key is a pair of two 32-bit numbers.
func (k Key) IsPair() bool { return k.pair }

// Pair is the two numbers of a pair. For a key that is not a pair they are the
// two halves of its number.
func (k Key) Pair() (class, object int32) { return int32(k.id >> 32), int32(k.id) }

// Name is the name that the key was made from, if it was made by [Name].
func (k Key) Name() (name string, ok bool) { return k.name, k.named }

// PgLocks is the key as the view pg_locks shows it. classid and objid are
// unsigned there, whatever the sign of the number; objsubid is 1 for a number
// and 2 for a pair (PostgreSQL manual, 53.13 "pg_locks").
func (k Key) PgLocks() (classid, objid uint32, objsubid int16) {
	objsubid = 1
	if k.pair {
		objsubid = 2
	}
	return uint32(uint64(k.id) >> 32), uint32(k.id), objsubid
}

// shownName is how many characters of a name are shown: enough to know it by.
const shownName = 100

// cut is s, or its first characters and an ellipsis.
func cut(s string, most int) (start, more string) {
	for i, n := 0, 0; i < len(s); n++ {
		if n == most {
			return s[:i], "…"
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		i += size
	}
	return s, ""
}

// String is the key for a person to read: "name" (number), number, or (class,
// object). What is not printable in a name is escaped as in Go, and a long one is
// cut off after 100 characters.
func (k Key) String() string {
	switch {
	case k.named:
		name, more := cut(k.name, shownName)
		return fmt.Sprintf("%q%s (%d)", name, more, k.id)
	case k.pair:
		class, object := k.Pair()
		return fmt.Sprintf("(%d, %d)", class, object)
	}
	return strconv.FormatInt(k.id, 10)
}
