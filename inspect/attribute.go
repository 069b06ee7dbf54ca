package inspect

import (
	"reflect"
	"slices"
	"time"
)

// An Attribute is a column of a list of locks: a column of the command's output, a
// field of a filter, a field in JSON. The names never change.
type Attribute struct {
	Name string
	Doc  string       // a short description
	Type reflect.Type // of its values: string, int64, bool, time.Time, time.Duration or Context

	of       owner
	sql      string          // its value in matching.sql, or "" if only Go knows it
	get      func(*Lock) any // returns nil if there is no value
	blocking bool            // of the blocking session of a pair
}

// An owner is what an attribute belongs to.
type owner uint8

const (
	ofLock owner = iota
	ofSession
	ofPair
)

// attribute returns an attribute whose value is missing if it is the zero value. sql is
// of the same type, with times and durations in microseconds: see matching.sql for the
// tables that it may use.
func attribute[T comparable](of owner, name, doc, sql string, get func(*Lock) T) Attribute {
	return optional(of, name, doc, sql, func(l *Lock) (T, bool) {
		var zero T
		v := get(l)
		return v, v != zero
	})
}

// optional returns an attribute whose value is missing if get returns false.
func optional[T any](of owner, name, doc, sql string, get func(*Lock) (T, bool)) Attribute {
	return Attribute{Name: name, Doc: doc, Type: reflect.TypeFor[T](), of: of, sql: sql, get: func(l *Lock) any {
		if v, ok := get(l); ok {
			return v
		}
		return nil
	}}
}

// is reports whether the attribute's values are of type T.
func is[T any](a Attribute) bool { return a.Type == reflect.TypeFor[T]() }

// microseconds returns the expression of SQL for a time in microseconds since 1970.
func microseconds(time string) string {
	return `CAST(EXTRACT(epoch FROM ` + time + `) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)`
}

// attributes lists all attributes in the order in which they are shown.
var attributes = [...]Attribute{
	attribute(ofSession, "pid", "the PID of the session; none for a prepared transaction",
		`a.pid`,
		func(l *Lock) int64 { return int64(l.PID) }),
	attribute(ofLock, "type", "the type of the locked object, as in pg_locks",
		`pg_catalog.replace(l.locktype, 'speculative token', 'spectoken')`,
		func(l *Lock) string { return l.Type }),
	attribute(ofLock, "mode", "the mode of the lock, as in pg_locks",
		`l.mode`,
		func(l *Lock) string { return l.Mode }),
	optional(ofLock, "granted", "whether the lock is held; otherwise it is waited for",
		`l.granted`,
		func(l *Lock) (bool, bool) { return l.Granted, true }),
	attribute(ofLock, "wait_start", "when the wait began; before Postgres 14, when the query began",
		`o.wait_start`,
		func(l *Lock) time.Time { return l.WaitStart }),
	optional(ofLock, "wait_duration", "how long the wait has lasted",
		`v.now OPERATOR(pg_catalog.-) o.wait_start`,
		func(l *Lock) (time.Duration, bool) { return l.WaitDuration, !l.WaitStart.IsZero() }),
	attribute(ofLock, "kind", "the kind of the relation, such as TABLE or INDEX",
		relationKindSQL(),
		func(l *Lock) string { return l.Kind }),
	attribute(ofLock, "relation", "the name of the relation; in another database, database:oid",
		`CASE WHEN c.oid IS NOT NULL THEN CAST(c.relname AS pg_catalog.text)
			WHEN o.relation IS NULL THEN NULL
			WHEN o.database OPERATOR(pg_catalog.=) 0 OR o.database OPERATOR(pg_catalog.=) v.database_oid
				THEN CAST(o.relation AS pg_catalog.text)
			ELSE pg_catalog.concat(COALESCE(CAST(b.datname AS pg_catalog.text), CAST(o.database AS pg_catalog.text)), ':', o.relation)
		END`,
		func(l *Lock) string { return l.Relation }),
	attribute(ofLock, "schema", "the schema of the relation",
		`CAST(n.nspname AS pg_catalog.text)`,
		func(l *Lock) string { return l.Schema }),
	optional(ofLock, "key", "the key of an advisory lock: a number, or two in parentheses",
		`CASE WHEN l.locktype OPERATOR(pg_catalog.=) 'advisory' THEN
			CASE
				WHEN l.objsubid OPERATOR(pg_catalog.=) 1 THEN pg_catalog.concat((CAST(l.classid AS pg_catalog.int8) OPERATOR(pg_catalog.<<) 32)
					OPERATOR(pg_catalog.|) CAST(l.objid AS pg_catalog.int8))
				WHEN l.objsubid OPERATOR(pg_catalog.=) 2 THEN pg_catalog.concat('(', CAST(l.classid AS pg_catalog.int4), ', ', CAST(l.objid AS pg_catalog.int4), ')')
			END
		END`,
		func(l *Lock) (string, bool) { return l.Key.String(), l.HasKey }),
	optional(ofLock, "page", "the number of the page in the relation",
		`CAST(COALESCE(l.page, r.page) AS pg_catalog.int8)`,
		func(l *Lock) (int64, bool) { return int64(l.Page), l.HasPage }),
	attribute(ofLock, "tuple", "the number of the row in the page",
		`COALESCE(l.tuple, r.tuple)`,
		func(l *Lock) int64 { return int64(l.Tuple) }),
	attribute(ofLock, "transactionid", "the transaction ID that is locked",
		`CAST(CAST(l.transactionid AS pg_catalog.text) AS pg_catalog.int8)`,
		func(l *Lock) int64 { return int64(l.TransactionID) }),
	attribute(ofLock, "virtualxid", "the virtual transaction ID that is locked",
		`l.virtualxid`,
		func(l *Lock) string { return l.VirtualXID }),
	attribute(ofLock, "target", "a description of what is locked",
		"",
		func(l *Lock) string { return l.Target() }),
	optional(ofLock, "fastpath", "whether the lock was acquired by the fast path",
		`l.fastpath`,
		func(l *Lock) (bool, bool) { return l.FastPath, true }),

	attribute(ofSession, "user", "the role of the session",
		`CAST(a.usename AS pg_catalog.text)`,
		func(l *Lock) string { return l.User }),
	attribute(ofSession, "database", "the database that the session is connected to",
		`CAST(a.datname AS pg_catalog.text)`,
		func(l *Lock) string { return l.Database }),
	attribute(ofSession, "application", "the application_name of the session",
		`a.application_name`,
		func(l *Lock) string { return l.Application }),
	attribute(ofSession, "client", "the address of the client; none on a unix socket",
		`pg_catalog.host(a.client_addr)`,
		func(l *Lock) string { return l.Client }),
	attribute(ofSession, "client_hostname", "the host name of the client, if log_hostname is on",
		`a.client_hostname`,
		func(l *Lock) string { return l.ClientHostname }),
	attribute(ofSession, "client_port", "the TCP port of the client; none on a unix socket",
		`CASE WHEN a.client_port OPERATOR(pg_catalog.>) 0 THEN a.client_port END`,
		func(l *Lock) int64 { return int64(l.ClientPort) }),
	attribute(ofSession, "backend_type", "the type of the process, such as client backend",
		`a.backend_type`,
		func(l *Lock) string { return l.BackendType }),
	attribute(ofSession, "backend_start", "when the session began",
		microseconds(`a.backend_start`),
		func(l *Lock) time.Time { return l.BackendStart }),
	attribute(ofSession, "xact_start", "when the transaction began",
		microseconds(`a.xact_start`),
		func(l *Lock) time.Time { return l.XactStart }),
	attribute(ofSession, "query_start", "when the query began; for an idle session, the last query",
		microseconds(`a.query_start`),
		func(l *Lock) time.Time { return l.QueryStart }),
	attribute(ofSession, "state_change", "when the state last changed",
		microseconds(`a.state_change`),
		func(l *Lock) time.Time { return l.StateChange }),
	optional(ofSession, "duration", "how long the query has run; for an idle session, how long it has been idle",
		`v.now OPERATOR(pg_catalog.-) `+microseconds(`CASE WHEN a.state OPERATOR(pg_catalog.=) 'active' THEN a.query_start ELSE a.state_change END`),
		func(l *Lock) (time.Duration, bool) {
			return l.Duration, !l.QueryStart.IsZero() || !l.StateChange.IsZero()
		}),
	optional(ofSession, "xact_duration", "how long the transaction has been open",
		`v.now OPERATOR(pg_catalog.-) `+microseconds(`a.xact_start`),
		func(l *Lock) (time.Duration, bool) { return l.XactDuration, !l.XactStart.IsZero() }),
	attribute(ofSession, "backend_xid", "the transaction ID of the session, once it has one",
		`CAST(CAST(a.backend_xid AS pg_catalog.text) AS pg_catalog.int8)`,
		func(l *Lock) int64 { return int64(l.BackendXID) }),
	attribute(ofSession, "backend_xmin", "the oldest transaction ID that the session's snapshot may need",
		`CAST(CAST(a.backend_xmin AS pg_catalog.text) AS pg_catalog.int8)`,
		func(l *Lock) int64 { return int64(l.BackendXmin) }),
	optional(ofSession, "xmin_age", "the age in transactions of the older of backend_xid and backend_xmin; the largest holds VACUUM back",
		`CASE WHEN pg_catalog.age(a.backend_xid) OPERATOR(pg_catalog.>) pg_catalog.age(a.backend_xmin) THEN pg_catalog.age(a.backend_xid)
			ELSE COALESCE(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid)) END`,
		func(l *Lock) (int64, bool) { return l.XminAge, l.BackendXmin != 0 || l.BackendXID != 0 }),
	attribute(ofSession, "state", "the state, such as active or idle in transaction",
		`a.state`,
		func(l *Lock) string { return l.State }),
	attribute(ofSession, "wait_event_type", "the type of event the session waits for, such as Lock",
		`a.wait_event_type`,
		func(l *Lock) string { return l.WaitEventType }),
	attribute(ofSession, "wait_event", "the event the session waits for",
		`a.wait_event`,
		func(l *Lock) string { return l.WaitEvent }),
	attribute(ofSession, "leader_pid", "for a parallel worker, the PID of its leader",
		`leader_pid`,
		func(l *Lock) int64 { return int64(l.LeaderPID) }),
	attribute(ofSession, "query_id", "the query identifier, if the server computes it",
		`query_id`,
		func(l *Lock) int64 { return l.QueryID }),
	attribute(ofSession, "context", "the annotations in the comments of the query",
		"",
		func(l *Lock) Context { return l.Context }),
	attribute(ofSession, "query", "the current or last query, without those comments",
		"",
		func(l *Lock) string { return l.Query }),
}

// Attributes returns the attributes of a lock, including those of its session.
func Attributes() []Attribute { return slices.Clone(attributes[:]) }

// SessionAttributes returns the attributes of a session.
func SessionAttributes() []Attribute {
	return slices.DeleteFunc(Attributes(), func(a Attribute) bool { return a.of != ofSession })
}

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
	return append(all, blockAttribute())
}

// blockAttribute returns the attribute for how a pair is blocked. See PairValue.
func blockAttribute() Attribute {
	return Attribute{
		Name: blockField, Doc: "hard if the blocker holds the lock, soft if it is only ahead in the lock queue",
		Type: reflect.TypeFor[string](), of: ofPair,
	}
}

// Value returns the attribute's value for l, of the attribute's Type, or nil if there
// is none. It is nil for attributes that only pairs have.
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
		if p.Hard {
			return hard
		}
		return soft
	}
	return a.get(p.Lock)
}
