package inspect

import (
	"slices"
	"time"
)

// An Attribute is a column of a list of locks: what a command shows, what a
// filter names, what JSON has for a field. The names never change.
type Attribute struct {
	Name string
	Doc  string // what it is, in a few words
	Type Type   // of its values

	of       owner
	get      func(*Lock) any // nil for nothing
	blocking bool            // of the session that blocks, in a pair
}

// Type is the type of the values of an [Attribute].
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

// owner is what an attribute belongs to.
type owner uint8

const (
	ofLock owner = iota
	ofSession
	ofPair
)

// attributes is the one table of them, in the order in which they are listed.
var attributes = [...]Attribute{
	{
		Name: "pid", Doc: "the process of the session; none for a prepared transaction", Type: Number, of: ofSession,
		get: func(l *Lock) any { return number(int64(l.PID)) },
	},
	{
		Name: "type", Doc: "what kind of thing is locked, as pg_locks has it", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Type) },
	},
	{
		Name: "mode", Doc: "the mode of the lock, as pg_locks has it", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Mode) },
	},
	{
		Name: "granted", Doc: "whether it is held; else it is waited for", Type: Bool, of: ofLock,
		get: func(l *Lock) any { return l.Granted },
	},
	{
		Name: "wait_start", Doc: "when the waiting began; before Postgres 14 when the query did", Type: Time, of: ofLock,
		get: func(l *Lock) any { return moment(l.WaitStart) },
	},
	{
		Name: "wait_duration", Doc: "how long the waiting has lasted", Type: Duration, of: ofLock,
		get: func(l *Lock) any {
			if l.WaitStart.IsZero() {
				return nil
			}
			return l.WaitDuration
		},
	},
	{
		Name: "kind", Doc: "the kind of the relation, such as TABLE or INDEX", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Kind) },
	},
	{
		Name: "relation", Doc: "the table or the like; in another database, database:oid", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Relation) },
	},
	{
		Name: "schema", Doc: "the schema of the relation", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Schema) },
	},
	{
		Name: "key", Doc: "the key of an advisory lock: a number, or two in brackets", Type: Text, of: ofLock,
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
		Name: "tuple", Doc: "the number of the row in its page", Type: Number, of: ofLock,
		get: func(l *Lock) any { return number(int64(l.Tuple)) },
	},
	{
		Name: "transactionid", Doc: "the transaction that is locked", Type: Number, of: ofLock,
		get: func(l *Lock) any { return number(int64(l.TransactionID)) },
	},
	{
		Name: "virtualxid", Doc: "the transaction that is locked, by its virtual number", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.VirtualXID) },
	},
	{
		Name: "target", Doc: "what is locked, in words", Type: Text, of: ofLock,
		get: func(l *Lock) any { return text(l.Target()) },
	},
	{
		Name: "fastpath", Doc: "whether the lock is in its session's own corner of memory", Type: Bool, of: ofLock,
		get: func(l *Lock) any { return l.FastPath },
	},

	{
		Name: "user", Doc: "the role of the session", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.User) },
	},
	{
		Name: "database", Doc: "the database that the session is connected to", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.Database) },
	},
	{
		Name: "application", Doc: "the application_name of the session", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.Application) },
	},
	{
		Name: "client", Doc: "the address of the client; none on a unix socket", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.Client) },
	},
	{
		Name: "backend_type", Doc: "what the process is, such as client backend", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.BackendType) },
	},
	{
		Name: "backend_start", Doc: "when the session began", Type: Time, of: ofSession,
		get: func(l *Lock) any { return moment(l.BackendStart) },
	},
	{
		Name: "xact_start", Doc: "when its transaction began", Type: Time, of: ofSession,
		get: func(l *Lock) any { return moment(l.XactStart) },
	},
	{
		Name: "query_start", Doc: "when its query began; of an idle session, its last one", Type: Time, of: ofSession,
		get: func(l *Lock) any { return moment(l.QueryStart) },
	},
	{
		Name: "state_change", Doc: "when its state began", Type: Time, of: ofSession,
		get: func(l *Lock) any { return moment(l.StateChange) },
	},
	{
		Name: "duration", Doc: "how long its query runs; if it is idle, how long it has been so", Type: Duration, of: ofSession,
		get: func(l *Lock) any {
			if l.QueryStart.IsZero() && l.StateChange.IsZero() {
				return nil
			}
			return l.Duration
		},
	},
	{
		Name: "state", Doc: "such as active, or idle in transaction", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.State) },
	},
	{
		Name: "wait_event_type", Doc: "what kind of thing it waits for, such as Lock", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.WaitEventType) },
	},
	{
		Name: "wait_event", Doc: "what it waits for", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.WaitEvent) },
	},
	{
		Name: "leader_pid", Doc: "of a parallel worker, the process that it works for", Type: Number, of: ofSession,
		get: func(l *Lock) any { return number(int64(l.LeaderPID)) },
	},
	{
		Name: "query_id", Doc: "the number of its query, if the server computes it", Type: Number, of: ofSession,
		get: func(l *Lock) any { return number(l.QueryID) },
	},
	{
		Name: "context", Doc: "what the application wrote in the comments of its query", Type: Map, of: ofSession,
		get: func(l *Lock) any {
			if len(l.Context) == 0 {
				return nil
			}
			return l.Context
		},
	},
	{
		Name: "query", Doc: "what it runs, or ran last, without those comments", Type: Text, of: ofSession,
		get: func(l *Lock) any { return text(l.Query) },
	},
}

// Attributes are the attributes of a lock, those of its session last.
func Attributes() []Attribute { return slices.Clone(attributes[:]) }

// PairAttributes are the attributes of a pair: those of the lock that is waited
// for and of the session that waits, those of the session that blocks, with
// blocking_ before their names, and block.
func PairAttributes() []Attribute {
	all := Attributes()
	for _, a := range attributes {
		if a.of == ofSession {
			a.Name, a.Doc, a.blocking = blockingPrefix+a.Name, "of the session that blocks: "+a.Doc, true
			all = append(all, a)
		}
	}
	return append(all, Attribute{
		Name: blockField, Type: Text, of: ofPair,
		Doc: "hard, if who blocks holds the lock; soft, if it only waits ahead",
	})
}

// Value is the attribute's value for l, of the Go type that its Type tells, or
// nil when there is none; nil for an attribute of a pair alone.
func (a Attribute) Value(l *Lock) any {
	if a.get == nil || a.blocking {
		return nil
	}
	return a.get(l)
}

// PairValue is the attribute's value for p, as Value is for a lock.
func (a Attribute) PairValue(p *Pair) any {
	switch {
	case a.blocking:
		return a.get(&Lock{Session: p.Blocking})
	case a.of == ofPair:
		return string(p.Block)
	}
	return a.get(p.Lock)
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func number(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
