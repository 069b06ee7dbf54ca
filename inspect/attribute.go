package inspect

import (
	"slices"
	"time"
)

// An Attribute is a column of a list of locks: a column of the command's output, a
// field of a filter, a field in JSON. The names never change.
type Attribute struct {
	Name string
	Doc  string // a short description
	Type Type   // the type of its values

	of       owner
	get      func(*Lock) any // returns nil if there is no value
	blocking bool            // of the blocking session of a pair
}

// A Type is the type of the values of an [Attribute].
type Type string

// The types of attributes.
const (
	Text     Type = "text"     // a string
	Number   Type = "number"   // an int64
	Bool     Type = "bool"     // a bool
	Time     Type = "time"     // a time.Time
	Duration Type = "duration" // a time.Duration
	Map      Type = "map"      // a map[string]string
)

// An owner is what an attribute belongs to.
type owner uint8

const (
	ofLock owner = iota
	ofSession
	ofPair
)

// attributes lists all attributes in the order in which they are shown.
var attributes = [...]Attribute{
	{
		Name: "pid", Doc: "the PID of the session; none for a prepared transaction", Type: Number, of: ofSession,
		get: func(l *Lock) any { return numberOrNil(int64(l.PID)) },
	},
	{
		Name: "type", Doc: "the type of the locked object, as in pg_locks", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Type) },
	},
	{
		Name: "mode", Doc: "the mode of the lock, as in pg_locks", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Mode) },
	},
	{
		Name: "granted", Doc: "whether the lock is held; otherwise it is waited for", Type: Bool, of: ofLock,
		get: func(l *Lock) any { return l.Granted },
	},
	{
		Name: "wait_start", Doc: "when the wait began; before Postgres 14, when the query began", Type: Time, of: ofLock,
		get: func(l *Lock) any { return timeOrNil(l.WaitStart) },
	},
	{
		Name: "wait_duration", Doc: "how long the wait has lasted", Type: Duration, of: ofLock,
		get: func(l *Lock) any {
			if l.WaitStart.IsZero() {
				return nil
			}
			return l.WaitDuration
		},
	},
	{
		Name: "kind", Doc: "the kind of the relation, such as TABLE or INDEX", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Kind) },
	},
	{
		Name: "relation", Doc: "the name of the relation; in another database, database:oid", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Relation) },
	},
	{
		Name: "schema", Doc: "the schema of the relation", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Schema) },
	},
	{
		Name: "key", Doc: "the key of an advisory lock: a number, or two in parentheses", Type: Text, of: ofLock,
		get: func(l *Lock) any {
			if !l.HasKey {
				return nil
			}
			return l.Key.String()
		},
	},
	{
		Name: "page", Doc: "the number of the page in the relation", Type: Number, of: ofLock,
		get: func(l *Lock) any {
			if !l.HasPage {
				return nil
			}
			return int64(l.Page)
		},
	},
	{
		Name: "tuple", Doc: "the number of the row in the page", Type: Number, of: ofLock,
		get: func(l *Lock) any { return numberOrNil(int64(l.Tuple)) },
	},
	{
		Name: "transactionid", Doc: "the transaction ID that is locked", Type: Number, of: ofLock,
		get: func(l *Lock) any { return numberOrNil(int64(l.TransactionID)) },
	},
	{
		Name: "virtualxid", Doc: "the virtual transaction ID that is locked", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.VirtualXID) },
	},
	{
		Name: "target", Doc: "a description of what is locked", Type: Text, of: ofLock,
		get: func(l *Lock) any { return textOrNil(l.Target()) },
	},
	{
		Name: "fastpath", Doc: "whether the lock was acquired by the fast path", Type: Bool, of: ofLock,
		get: func(l *Lock) any { return l.FastPath },
	},

	{
		Name: "user", Doc: "the role of the session", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.User) },
	},
	{
		Name: "database", Doc: "the database that the session is connected to", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.Database) },
	},
	{
		Name: "application", Doc: "the application_name of the session", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.Application) },
	},
	{
		Name: "client", Doc: "the address of the client; none on a unix socket", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.Client) },
	},
	{
		Name: "backend_type", Doc: "the type of the process, such as client backend", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.BackendType) },
	},
	{
		Name: "backend_start", Doc: "when the session began", Type: Time, of: ofSession,
		get: func(l *Lock) any { return timeOrNil(l.BackendStart) },
	},
	{
		Name: "xact_start", Doc: "when the transaction began", Type: Time, of: ofSession,
		get: func(l *Lock) any { return timeOrNil(l.XactStart) },
	},
	{
		Name: "query_start", Doc: "when the query began; for an idle session, the last query", Type: Time, of: ofSession,
		get: func(l *Lock) any { return timeOrNil(l.QueryStart) },
	},
	{
		Name: "state_change", Doc: "when the state last changed", Type: Time, of: ofSession,
		get: func(l *Lock) any { return timeOrNil(l.StateChange) },
	},
	{
		Name: "duration", Doc: "how long the query has run; for an idle session, how long it has been idle", Type: Duration, of: ofSession,
		get: func(l *Lock) any {
			if l.QueryStart.IsZero() && l.StateChange.IsZero() {
				return nil
			}
			return l.Duration
		},
	},
	{
		Name: "state", Doc: "the state, such as active or idle in transaction", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.State) },
	},
	{
		Name: "wait_event_type", Doc: "the type of event the session waits for, such as Lock", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.WaitEventType) },
	},
	{
		Name: "wait_event", Doc: "the event the session waits for", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.WaitEvent) },
	},
	{
		Name: "leader_pid", Doc: "for a parallel worker, the PID of its leader", Type: Number, of: ofSession,
		get: func(l *Lock) any { return numberOrNil(int64(l.LeaderPID)) },
	},
	{
		Name: "query_id", Doc: "the query identifier, if the server computes it", Type: Number, of: ofSession,
		get: func(l *Lock) any { return numberOrNil(l.QueryID) },
	},
	{
		Name: "context", Doc: "the annotations in the comments of the query", Type: Map, of: ofSession,
		get: func(l *Lock) any {
			if len(l.Context) == 0 {
				return nil
			}
			return l.Context
		},
	},
	{
		Name: "query", Doc: "the current or last query, without those comments", Type: Text, of: ofSession,
		get: func(l *Lock) any { return textOrNil(l.Query) },
	},
}

// Attributes returns the attributes of a lock, those of its session last.
func Attributes() []Attribute { return slices.Clone(attributes[:]) }

// PairAttributes returns the attributes of a pair: those of the awaited lock and its
// session, those of the blocking session with blocking_ before their names, and
// block.
func PairAttributes() []Attribute {
	all := Attributes()
	for _, a := range attributes {
		if a.of == ofSession {
			a.Name, a.Doc, a.blocking = blockingPrefix+a.Name, "of the blocking session: "+a.Doc, true
			all = append(all, a)
		}
	}
	return append(all, Attribute{
		Name: blockField, Type: Text, of: ofPair,
		Doc: "hard if the blocker holds the lock, soft if it is only ahead in the lock queue",
	})
}

// Value returns the attribute's value for l, of the Go type that its Type names, or
// nil if there is none. It is nil for attributes that only pairs have.
func (a Attribute) Value(l *Lock) any {
	if a.get == nil || a.blocking {
		return nil
	}
	return a.get(l)
}

// PairValue returns the attribute's value for p, as Value does for a lock.
func (a Attribute) PairValue(p *Pair) any {
	switch {
	case a.blocking:
		return a.get(&Lock{Session: p.Blocking})
	case a.of == ofPair:
		return string(p.Block)
	}
	return a.get(p.Lock)
}

func textOrNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func numberOrNil(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func timeOrNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
