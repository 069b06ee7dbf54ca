package inspect

import (
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
)

// A Lock is a lock that a session holds or waits for: a row of pg_locks (PostgreSQL
// manual, 53.13 "pg_locks") and its session. A session has one Lock for each object
// and mode that it holds, however often it acquired it, and at most one that it waits
// for. Locks of one session share the Session.
type Lock struct {
	// Session is never nil in what this package returns. A lock without a process has
	// one with PID 0.
	*Session

	Type string // such as "relation" or "advisory"; depends on the version of Postgres
	Mode string // as in pg_locks, such as "AccessExclusiveLock"

	Granted  bool // held; otherwise waited for
	FastPath bool // acquired by the fast path, which is for weak locks

	WaitStart    time.Time     // when the wait began; zero if Granted
	WaitDuration time.Duration // how long it has lasted; 0 if Granted

	// WaitApprox is true if WaitStart is when the query began, not the wait. Before
	// Postgres 14 that is the best available, and later for a moment at the beginning
	// of a wait.
	WaitApprox bool

	// Kind is the kind of the relation, such as TABLE, INDEX or PARTITIONED_TABLE; ""
	// if there is no relation or its kind is unknown.
	Kind string

	// Schema is the schema of the relation, and Relation its name. Names are known
	// only in the connected database, and for the catalogs that all databases share.
	// In another database Relation is database:oid. If the relation no longer exists
	// or is not committed yet, Relation is its OID.
	//
	// If a transaction waits for another because of a row, these are those of the
	// row's table, if Postgres reports it, and Page and Tuple are the row.
	Schema, Relation string

	// Key is the key of an advisory lock, if HasKey is set. A lock without a key was
	// acquired by an extension in another way.
	Key    pglock.Key
	HasKey bool

	// Candidates lists the tables that the session writes to, if it waits for another
	// transaction and Postgres does not report because of which row. It may want to
	// insert a unique key that the other transaction has inserted. It may also wait
	// for something else.
	Candidates []string

	HasPage bool   // Page is valid
	Page    uint32 // the number of the page in the relation
	Tuple   uint16 // the number of the row in its page, from 1; 0 if it is not a row

	TransactionID uint32 // the locked transaction ID, or 0
	VirtualXID    string // the locked virtual transaction ID, or ""

	// Other columns of pg_locks: the OID of the database, 0 for none and for shared
	// objects; the OID of the relation; and for advisory locks and catalog objects
	// the numbers that identify them.
	DatabaseOID, RelationOID, ClassID, ObjectID uint32
	ObjectSubID                                 int16

	// Transaction is the virtual transaction ID that holds the lock or waits for it.
	Transaction string
}

// The lock types that this package distinguishes. There are more.
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

// Target describes what is locked for a person, such as "public.orders", "row (0,1)
// of public.orders" or "advisory 42".
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

// qualified returns the name of the relation with its schema, if known.
func (l *Lock) qualified() string {
	if l.Schema != "" {
		return l.Schema + "." + l.Relation
	}
	return l.Relation
}

// An object identifies what is locked. Two locks with equal objects lock the same
// thing.
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
	if l.Type == typeTransactionID { // the row is additional information
		o.database, o.relation, o.page, o.tuple = 0, 0, 0, 0
	}
	return o
}

// conflicts reports whether holding l conflicts with mode. SIReadLock, which is not a
// mode of table locks, conflicts with none.
func (l *Lock) conflicts(mode pglock.Mode) bool {
	held, err := pglock.ParseMode(l.Mode)
	return err == nil && held.Conflicts(mode)
}

// relationKinds has a letter of pg_class.relkind for each kind of relation.
const relationKinds = "riStvmcfpI"

// relationKindSQL returns relationKind as an expression of SQL, for c.relkind.
func relationKindSQL() string {
	var b strings.Builder
	b.WriteString("CASE")
	for _, relkind := range relationKinds {
		fmt.Fprintf(&b, ` WHEN c.relkind OPERATOR(pg_catalog.=) '%c' THEN '%s'`, relkind, relationKind(string(relkind)))
	}
	return b.String() + " END"
}

// relationKind returns the kind of a relation for pg_class.relkind (PostgreSQL manual, 52.11
// "pg_class").
func relationKind(relkind string) string {
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
