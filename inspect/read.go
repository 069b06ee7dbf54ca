package inspect

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/driver"
)

var (
	//go:embed snapshot.sql
	snapshotSQL string

	//go:embed sessions.sql
	sessionsSQL string

	//go:embed names.sql
	namesSQL string
)

// readTimeout limits a read whose ctx has no deadline.
const readTimeout = 30 * time.Second

// A reading is the result of a read.
type reading struct {
	server    Server
	sessions  map[int32]*Session
	unowned   *Session // the session of locks without a process
	relations map[uint32]relation
	databases map[uint32]string
	blocking  map[int32]bool    // the blockers that match the filters, or nil for all
	waits     map[int32][]int32 // the blockers of each waiter, sorted, including duplicates and 0
	prepared  []prepared
	locks     []Lock
	sideLocks []Lock             // other locks needed to explain locks, if locks is not complete
	held      map[object][]*Lock // see holders

	packed   struct{ locks, sideLocks []string } // each is the line that some locks share, and a line for each
	interned map[string]string
}

// relation is a row of pg_class.
type relation struct{ schema, kind, name string }

// withDeadline adds a deadline to a ctx that has none. When ctx ends, the driver asks the
// server to cancel the statement, so this limits the server too. statement_timeout
// would not do: set within the statement it takes effect only for the next one, and
// set before, it would have to be reset, which cannot be guaranteed in a pool.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, readTimeout)
}

// read runs a statement with the result format of snapshot.sql, and then sessions.sql
// and names.sql if anything is missing.
func read(ctx context.Context, q driver.Querier, sql string, values map[string]string) (*reading, error) {
	r := &reading{
		sessions:  map[int32]*Session{},
		unowned:   &Session{},
		relations: map[uint32]relation{},
		databases: map[uint32]string{},
		blocking:  map[int32]bool{},
		waits:     map[int32][]int32{},
		interned:  map[string]string{},
	}
	var err error
	if direct, ok := q.(*directConn); ok {
		err = direct.read(ctx, sql, values, r.addRow)
	} else {
		err = query(ctx, q, sql, values, r.addRow)
	}
	if err != nil {
		return nil, err
	}
	if pids := r.unknownBlockers(); pids != "{}" {
		if err := query(ctx, q, sessionsSQL, map[string]string{"pids": pids}, r.addRow); err != nil {
			return nil, err
		}
	}
	for _, s := range r.sessions {
		s.age(r.server.Time)
	}
	if r.locks, err = r.parseLocks(r.packed.locks); err != nil {
		return nil, err
	}
	if r.sideLocks, err = r.parseLocks(r.packed.sideLocks); err != nil {
		return nil, err
	}
	if relations, databases := r.unnamedOIDs(); relations != "{}" || databases != "{}" {
		if err := query(ctx, q, namesSQL, map[string]string{"relations": relations, "databases": databases}, r.addRow); err != nil {
			return nil, err
		}
	}
	r.nameLocks(r.locks)
	r.nameLocks(r.sideLocks)
	r.resolvePrepared()
	r.resolveRows()
	return r, nil
}

// unknownBlockers returns the blockers of which nothing else is known yet, as an array in SQL:
// they came after the locks were read, or have ended.
func (r *reading) unknownBlockers() string {
	pids := map[uint32]struct{}{}
	for _, blockers := range r.waits {
		last := int32(0) // 0 is a prepared transaction
		for _, pid := range blockers {
			if pid != last && r.sessions[pid] == nil {
				pids[uint32(pid)] = struct{}{}
			}
			last = pid
		}
	}
	return oidArray(pids)
}

// query runs sql, whose rows are (kind, payload) pairs, and calls f for each.
func query(ctx context.Context, q driver.Querier, sql string, values map[string]string, f func(kind, payload string) error) error {
	bound, args, err := bind(sql, values)
	if err != nil {
		return err
	}
	return queryBound(ctx, q, bound, args, f)
}

// queryBound is query for a statement that bind returned.
func queryBound(ctx context.Context, q driver.Querier, sql string, args []any, f func(kind, payload string) error) error {
	if lent, ok := q.(lentConn); ok {
		pairs, err := lent.queryPairs(ctx, sql, args)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			if err := f(pair[0], pair[1]); err != nil {
				return err
			}
		}
		return nil
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, payload string
		if err := rows.Scan(&kind, &payload); err != nil {
			return err
		}
		if err := f(kind, payload); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}

// addRow stores one row.
func (r *reading) addRow(kind, payload string) error {
	var n numberParser
	switch kind {
	case "locks":
		r.packed.locks = append(r.packed.locks, payload)
		return nil
	case "side_locks":
		r.packed.sideLocks = append(r.packed.sideLocks, payload)
		return nil
	case "prepared":
		p, err := parsePrepared(payload)
		r.prepared = append(r.prepared, p)
		return err
	case "server":
		server, err := parseServer(payload)
		r.server = server
		return err
	case "session":
		s, err := parseSession(payload)
		r.sessions[s.PID] = &s
		return err
	case "edge":
		pids, ok := parsePIDs(payload)
		if !ok {
			return unreadableError(kind, payload)
		}
		slices.Sort(pids[1:])
		r.waits[pids[0]] = pids[1:]
		return nil
	case "blocking":
		r.blocking[int32(n.int(payload))] = true
		return n.err
	case "relation":
		var f [4]string
		if parseRecord(payload, f[:]) == len(f) {
			r.relations[n.oid(f[0])] = relation{schema: f[1], kind: relationKind(f[2]), name: f[3]}
			return n.err
		}
	case "database":
		var f [2]string
		if parseRecord(payload, f[:]) == len(f) {
			r.databases[n.oid(f[0])] = f[1]
			return n.err
		}
	}
	return unreadableError(kind, payload)
}

func unreadableError(kind, text string) error {
	return fmt.Errorf("unexpected %s in the server's answer: %q", kind, text)
}

// session returns the session with that PID. A session that only pg_locks has gets
// its PID and nothing else.
func (r *reading) session(pid int32) *Session {
	s := r.sessions[pid]
	if s == nil {
		s = &Session{PID: pid, Hidden: true}
		r.sessions[pid] = s
	}
	return s
}

// intern returns a copy of s that is shared by all equal strings.
func (r *reading) intern(s string) string {
	if s == "" {
		return ""
	}
	w, ok := r.interned[s]
	if !ok {
		w = strings.Clone(s)
		r.interned[w] = w
	}
	return w
}

// numberParser parses numbers and records the first error. "" is 0.
type numberParser struct{ err error }

func (n *numberParser) int(s string) int64 {
	if s == "" {
		return 0
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil && n.err == nil {
		n.err = err
	}
	return v
}

func (n *numberParser) oid(s string) uint32 { return uint32(n.int(s)) }

// parsePIDs parses a list of at least one PID, separated by spaces. It is written by
// hand because a long lock queue has many.
func parsePIDs(text string) (pids []int32, ok bool) {
	pids = make([]int32, 0, strings.Count(text, " ")+1)
	pid, digits := int64(0), 0
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9':
			pid, digits = pid*10+int64(c-'0'), digits+1
			if pid > math.MaxInt32 {
				return nil, false
			}
		case c == ' ' && digits > 0:
			pids = append(pids, int32(pid))
			pid, digits = 0, 0
		default:
			return nil, false
		}
	}
	if digits > 0 {
		pids = append(pids, int32(pid))
	}
	return pids, len(pids) > 0
}

// microseconds reads microseconds since 1970.
func (n *numberParser) microseconds(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	return time.UnixMicro(n.int(s)).UTC()
}

// seconds reads seconds since 1970, to the microsecond.
func (n *numberParser) seconds(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	fraction = (fraction + "000000")[:6]
	return time.Unix(n.int(whole), n.int(fraction)*1000).UTC()
}
