package inspect

import (
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
)

// A Lock is a lock that a session holds or waits for: a row of pg_locks
// (PostgreSQL manual, 53.13 "pg_locks") and the session it belongs to. A session
// has one Lock for each thing and mode that it holds, however often it took it,
// and at most one that it waits for. Locks of one session share the Session.
type Lock struct {
	// Session is never nil in what this package returns. A lock that belongs to
	// no process has one with PID 0.
	*Session

	Type string // such as "relation" or "advisory"; other versions of Postgres know others
	Mode string // as pg_locks has it, such as "AccessExclusiveLock"

	Granted  bool // held; else waited for
	FastPath bool // held in the session's own corner of memory, where weak locks are

	WaitStart    time.Time     // when the waiting began; zero when Granted
	WaitDuration time.Duration // how long it has lasted; 0 when Granted

	// WaitApprox says that WaitStart is not when the waiting began but when the
	// query did, which is the best that Postgres tells before 14, and for a
	// moment at the beginning of a wait.
	WaitApprox bool

	// Kind is the kind of the relation, such as TABLE, INDEX or
	// PARTITIONED_TABLE; "" when there is no relation or its kind is not known.
	Kind string

	// Schema is the schema of the relation, Relation its name. Names are known
	// in the database that was asked, and for the catalogs that all databases
	// share; for a relation elsewhere, Relation is database:oid, and for one that
	// no longer exists or is not committed yet it is its oid.
	//
	// For a transaction that waits for another because of a row they are those
	// of the row's table, where Postgres tells, and Page and Tuple are the row.
	Schema, Relation string

	// Key is that of an advisory lock, if HasKey. One without a key was taken by
	// an extension in its own way.
	Key    pglock.Key
	HasKey bool

	// Candidates are the tables that the session writes to, when it waits for
	// another transaction and Postgres does not tell because of which row: it may
	// want to insert a unique key there that the other has inserted. It may also
	// wait for something else.
	Candidates []string

	HasPage bool   // Page means something
	Page    uint32 // the number of the page in the relation
	Tuple   uint16 // the number of the row in its page, from 1; 0 when it is no row

	TransactionID uint32 // the number of the transaction that is waited for or that holds, 0 when it is none
	VirtualXID    string // the virtual number of a transaction, "" when it is none

	// What pg_locks says of the thing besides: the database it is in, 0 for none
	// and for what all databases share; the relation; and for advisory locks and
	// objects of the catalogs the numbers that name them.
	DatabaseOID, RelationOID, ClassID, ObjectID uint32
	ObjectSubID                                 int16

	// Transaction is the virtual number of the transaction that holds or waits.
	Transaction string
}

// The lock types that are told apart here. There are more.
const (
	typeAdvisory      = "advisory"
	typeObject        = "object"
	typePage          = "page"
	typeRelation      = "relation"
	typeSpecToken     = "spectoken"
	typeTransactionID = "transactionid"
	typeTuple         = "tuple"
	typeVirtualXID    = "virtualxid"
)

// Target is the thing that is locked, in words for a person: such as
// "public.orders", "row (0,1) of public.orders", "advisory 42".
func (l *Lock) Target() string {
	relation := l.qualified()
	switch l.Type {
	case typeRelation:
		return relation
	case typeTuple:
		return fmt.Sprintf("row (%d,%d) of %s", l.Page, l.Tuple, relation)
	case typePage:
		return fmt.Sprintf("page %d of %s", l.Page, relation)
	case typeTransactionID:
		if l.Tuple != 0 {
			return fmt.Sprintf("row (%d,%d) of %s, by transaction %d", l.Page, l.Tuple, relation, l.TransactionID)
		}
		if len(l.Candidates) > 0 {
			return fmt.Sprintf("transaction %d, perhaps for a key of %s", l.TransactionID, strings.Join(l.Candidates, " or "))
		}
		return fmt.Sprintf("transaction %d", l.TransactionID)
	case typeVirtualXID:
		return "transaction " + l.VirtualXID
	case typeAdvisory:
		if l.HasKey {
			return "advisory " + l.Key.String()
		}
		return fmt.Sprintf("advisory %d/%d/%d", l.ClassID, l.ObjectID, l.ObjectSubID)
	case typeObject:
		return fmt.Sprintf("object %d of %s", l.ObjectID, relation)
	}
	switch {
	case relation != "":
		return l.Type + " of " + relation
	case l.TransactionID != 0:
		return fmt.Sprintf("%s of transaction %d", l.Type, l.TransactionID)
	case l.DatabaseOID != 0:
		return fmt.Sprintf("%s of database %d", l.Type, l.DatabaseOID)
	}
	return l.Type
}

// qualified is the name of the relation with its schema, if it is known.
func (l *Lock) qualified() string {
	if l.Schema != "" {
		return l.Schema + "." + l.Relation
	}
	return l.Relation
}

// object says which thing is locked; two locks are of one thing if they are equal.
type object struct {
	kind, virtualXID                                       string
	database, relation, page, transaction, class, objectID uint32
	tuple                                                  uint16
	objectSubID                                            int16
}

func (l *Lock) object() object {
	o := object{
		kind:        l.Type,
		virtualXID:  l.VirtualXID,
		database:    l.DatabaseOID,
		relation:    l.RelationOID,
		page:        l.Page,
		transaction: l.TransactionID,
		class:       l.ClassID,
		objectID:    l.ObjectID,
		tuple:       l.Tuple,
		objectSubID: l.ObjectSubID,
	}
	if l.Type == typeTransactionID { // the row was found out besides
		o.database, o.relation, o.page, o.tuple = 0, 0, 0, 0
	}
	return o
}

// conflicts reports whether holding l shuts out whoever wants mode. SIReadLock,
// which is no mode of a table lock, shuts out nobody.
func (l *Lock) conflicts(mode pglock.Mode) bool {
	held, err := pglock.ParseMode(l.Mode)
	return err == nil && held.Conflicts(mode)
}

// kind is the kind of a relation by its letter in pg_class.relkind
// (PostgreSQL manual, 52.11 "pg_class").
func kind(relkind string) string {
	switch relkind {
	case "r":
		return "TABLE"
	case "i":
		return "INDEX"
	case "S":
		return "SEQUENCE"
	case "t":
		return "TOAST"
	case "v":
		return "VIEW"
	case "m":
		return "MATERIALIZED_VIEW"
	case "c":
		return "COMPOSITE_TYPE"
	case "f":
		return "FOREIGN_TABLE"
	case "p":
		return "PARTITIONED_TABLE"
	case "I":
		return "PARTITIONED_INDEX"
	}
	return ""
}
