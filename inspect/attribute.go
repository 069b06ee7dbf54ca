package inspect

import "time"

// An Attribute is a column of a list of locks: what a command shows, what a
// filter names, what JSON has for a field. The names never change.
type Attribute struct {
	Name string
	Doc  string // what it is, in a few words
	Type Type   // of its values

	of  owner
	get func(*Lock) any // nil for nothing
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
)

// attributes is the one table of them, in the order in which they are listed.
var attributes = [...]Attribute{
	{"pid", "the process of the session; none for a prepared transaction", Number, ofSession,
		func(l *Lock) any { return number(int64(l.PID)) }},
	{"type", "what kind of thing is locked, as pg_locks has it", Text, ofLock,
		func(l *Lock) any { return text(l.Type) }},
	{"mode", "the mode of the lock, as pg_locks has it", Text, ofLock,
		func(l *Lock) any { return text(l.Mode) }},
	{"granted", "whether it is held; else it is waited for", Bool, ofLock,
		func(l *Lock) any { return l.Granted }},
	{"wait_start", "when the waiting began; before Postgres 14 when the query did", Time, ofLock,
		func(l *Lock) any { return moment(l.WaitStart) }},
	{"wait_duration", "how long the waiting has lasted", Duration, ofLock,
		func(l *Lock) any {
			if l.WaitStart.IsZero() {
				return nil
			}
			return l.WaitDuration
		}},
	{"kind", "the kind of the relation, such as TABLE or INDEX", Text, ofLock,
		func(l *Lock) any { return text(l.Kind) }},
	{"relation", "the table or the like; in another database, database:oid", Text, ofLock,
		func(l *Lock) any { return text(l.Relation) }},
	{"schema", "the schema of the relation", Text, ofLock,
		func(l *Lock) any { return text(l.Schema) }},
	{"key", "the key of an advisory lock: a number, or two in brackets", Text, ofLock,
		func(l *Lock) any {
			if !l.HasKey {
				return nil
			}
			return l.Key.String()
		}},
	{"page", "the number of the page in the relation", Number, ofLock,
		func(l *Lock) any {
			if !l.HasPage {
				return nil
			}
			return int64(l.Page)
		}},
	{"tuple", "the number of the row in its page", Number, ofLock,
		func(l *Lock) any { return number(int64(l.Tuple)) }},
	{"transactionid", "the transaction that is locked", Number, ofLock,
		func(l *Lock) any { return number(int64(l.TransactionID)) }},
	{"virtualxid", "the transaction that is locked, by its virtual number", Text, ofLock,
		func(l *Lock) any { return text(l.VirtualXID) }},
	{"target", "what is locked, in words", Text, ofLock,
		func(l *Lock) any { return text(l.Target()) }},
	{"fastpath", "whether the lock is in its session's own corner of memory", Bool, ofLock,
		func(l *Lock) any { return l.FastPath }},

	{"user", "the role of the session", Text, ofSession,
		func(l *Lock) any { return text(l.User) }},
	{"database", "the database that the session is connected to", Text, ofSession,
		func(l *Lock) any { return text(l.Database) }},
	{"application", "the application_name of the session", Text, ofSession,
		func(l *Lock) any { return text(l.Application) }},
	{"client", "the address of the client; none on a unix socket", Text, ofSession,
		func(l *Lock) any { return text(l.Client) }},
	{"backend_type", "what the process is, such as client backend", Text, ofSession,
		func(l *Lock) any { return text(l.BackendType) }},
	{"backend_start", "when the session began", Time, ofSession,
		func(l *Lock) any { return moment(l.BackendStart) }},
	{"xact_start", "when its transaction began", Time, ofSession,
		func(l *Lock) any { return moment(l.XactStart) }},
	{"query_start", "when its query began; of an idle session, its last one", Time, ofSession,
		func(l *Lock) any { return moment(l.QueryStart) }},
	{"state_change", "when its state began", Time, ofSession,
		func(l *Lock) any { return moment(l.StateChange) }},
	{"duration", "how long its query runs; if it is idle, how long it has been so", Duration, ofSession,
		func(l *Lock) any {
			if l.QueryStart.IsZero() && l.StateChange.IsZero() {
				return nil
			}
			return l.Duration
		}},
	{"state", "such as active, or idle in transaction", Text, ofSession,
		func(l *Lock) any { return text(l.State) }},
	{"wait_event_type", "what kind of thing it waits for, such as Lock", Text, ofSession,
		func(l *Lock) any { return text(l.WaitEventType) }},
	{"wait_event", "what it waits for", Text, ofSession,
		func(l *Lock) any { return text(l.WaitEvent) }},
	{"leader_pid", "of a parallel worker, the process that it works for", Number, ofSession,
		func(l *Lock) any { return number(int64(l.LeaderPID)) }},
	{"query_id", "the number of its query, if the server computes it", Number, ofSession,
		func(l *Lock) any { return number(l.QueryID) }},
	{"context", "what the application wrote in the comments of its query", Map, ofSession,
		func(l *Lock) any {
			if len(l.Context) == 0 {
				return nil
			}
			return l.Context
		}},
	{"query", "what it runs, or ran last, without those comments", Text, ofSession,
		func(l *Lock) any { return text(l.Query) }},
}

// Attributes are the attributes of a lock, those of its session last.
func Attributes() []Attribute { return append([]Attribute(nil), attributes[:]...) }

// Value is the attribute's value for l, of the Go type that its Type tells, or
// nil when there is none.
func (a Attribute) Value(l *Lock) any { return a.get(l) }

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
