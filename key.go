package pglock

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/pglock-go/pglock/internal/termtext"
)

// A Key identifies an advisory lock. Postgres knows advisory locks only by number, in two
// separate spaces: 64-bit numbers and pairs of 32-bit numbers (PostgreSQL manual, 9.28.10
// "Advisory Lock Functions"). A lock belongs to one database: the same key in another
// database is another lock.
//
// Make a Key with [Name], [Int] or [Pair]. The zero Key is Int(0), an ordinary key. Keys
// are comparable with ==, but a Name and the Int that it maps to are not ==, although
// they are the same lock. Compare what [Key.PgLocks] returns if that matters.
type Key struct {
	id    int64
	name  string
	named bool
	pair  bool
}

// Name returns the key for a name: the first 8 bytes of the SHA-256 of its bytes, read as
// a little-endian signed number. django-pglock maps names in the same way, so a Go and a
// Django service can share a lock by name. The mapping never changes. Any string is a
// valid name, including the empty one.
func Name(name string) Key {
	sum := sha256.Sum256([]byte(name))
	return Key{id: int64(binary.LittleEndian.Uint64(sum[:8])), name: name, named: true}
}

// Int returns the key with the number n, the argument of pg_advisory_lock(bigint).
func Int(n int64) Key { return Key{id: n} }

// Pair returns the key of two numbers, the arguments of pg_advisory_lock(int, int). A
// pair is never the same lock as an Int or a Name.
func Pair(class, object int32) Key {
	return Key{id: int64(class)<<32 | int64(uint32(object)), pair: true}
}

// PgLocksKey returns the key of the advisory lock in a row of pg_locks, from the columns
// classid, objid and objsubid. It returns false if objsubid is neither 1 (a 64-bit
// number) nor 2 (a pair): an extension took such a lock for its own use. The key has no
// name, since a number cannot be mapped back to one.
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

// ID returns the key's number. For a pair it combines both, class in the upper 32 bits,
// as classid and objid of pg_locks do.
func (k Key) ID() int64 { return k.id }

// Pair returns the two numbers of a pair, and false for any other key.
func (k Key) Pair() (class, object int32, ok bool) {
	if !k.pair {
		return 0, 0, false
	}
	class, object = k.halves()
	return class, object, true
}

// halves returns the upper and the lower half of the key's number. Those of a pair are its
// two numbers.
func (k Key) halves() (class, object int32) { return int32(k.id >> 32), int32(k.id) }

// Name returns the name that the key was made from, if it was made by [Name].
func (k Key) Name() (name string, ok bool) { return k.name, k.named }

// PgLocks returns the key as shown in the view pg_locks. classid and objid are unsigned
// there, whatever the sign of the number; objsubid is 1 for a number and 2 for a pair
// (PostgreSQL manual, 53.13 "pg_locks").
func (k Key) PgLocks() (classid, objid uint32, objsubid int16) {
	objsubid = 1
	if k.pair {
		objsubid = 2
	}
	return uint32(uint64(k.id) >> 32), uint32(k.id), objsubid
}

// String returns the key for display: "name" (number), number, or (class, object).
// Unprintable characters in a name are escaped as in Go, and a longer name is cut to
// 100 characters.
func (k Key) String() string {
	switch {
	case k.named:
		return fmt.Sprintf("%q (%d)", termtext.Short(k.name), k.id)
	case k.pair:
		class, object := k.halves()
		return fmt.Sprintf("(%d, %d)", class, object)
	}
	return strconv.FormatInt(k.id, 10)
}
