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

	"github.com/pglock-go/pglock"
)

var (
	//go:embed snapshot.sql
	snapshotSQL string

	//go:embed sessions.sql
	sessionsSQL string

	//go:embed names.sql
	namesSQL string
)

// readTimeout bounds a read whose ctx has no deadline.
const readTimeout = 30 * time.Second

// reading is what a read gives.
type reading struct {
	server    Server
	sessions  map[int32]*Session
	nobody    *Session // of the locks that belong to no process
	relations map[uint32]relation
	databases map[uint32]string
	blocking  map[int32]bool    // those that answer the filters, or nil for all
	waits     map[int32][]int32 // from a session that waits to those that block it, sorted, repeats and 0 included
	prepared  []prepared
	locks     []Lock
	aside     []Lock // needed to understand locks, if locks are not all

	packed struct{ locks, aside []string } // each what some locks have in common, and a line for each of them
	words  map[string]string
}

// relation is a row of pg_class.
type relation struct{ schema, kind, name string }

// bound gives a read whose ctx has no deadline one of its own. A driver asks the
// server to end the statement when its ctx ends, so this bounds the server too.
// A statement_timeout could not: set in a statement it comes too late for that
// statement, and set before, it would have to be set back, which nobody could
// promise in a pool.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, readTimeout)
}

// read runs one of the statements that answer as snapshot.sql does, and then
// sessions.sql and names.sql, where there is something to ask.
func read(ctx context.Context, q pglock.Querier, sql string, values map[string]string) (*reading, error) {
	r := &reading{
		sessions:  map[int32]*Session{},
		nobody:    &Session{},
		relations: map[uint32]relation{},
		databases: map[uint32]string{},
		blocking:  map[int32]bool{},
		waits:     map[int32][]int32{},
		words:     map[string]string{},
	}
	if err := query(ctx, q, sql, values, r.add); err != nil {
		return nil, err
	}
	if pids := r.unmet(); pids != "{}" {
		if err := query(ctx, q, sessionsSQL, map[string]string{"pids": pids}, r.add); err != nil {
			return nil, err
		}
	}
	for _, s := range r.sessions {
		s.age(r.server.Time)
	}
	var err error
	if r.locks, err = r.parseLocks(r.packed.locks); err != nil {
		return nil, err
	}
	if r.aside, err = r.parseLocks(r.packed.aside); err != nil {
		return nil, err
	}
	if relations, databases := r.unnamed(); relations != "{}" || databases != "{}" {
		if err := query(ctx, q, namesSQL, map[string]string{"relations": relations, "databases": databases}, r.add); err != nil {
			return nil, err
		}
	}
	r.nameLocks(r.locks)
	r.nameLocks(r.aside)
	r.resolvePrepared()
	r.resolveRows()
	return r, nil
}

// unmet are those who block and of whom nothing else is known yet, as Postgres
// reads an array: they came after the locks were read, or are gone.
func (r *reading) unmet() string {
	pids := map[uint32]struct{}{}
	for _, blockers := range r.waits {
		last := int32(0) // which is a prepared transaction
		for _, pid := range blockers {
			if pid != last && r.sessions[pid] == nil {
				pids[uint32(pid)] = struct{}{}
			}
			last = pid
		}
	}
	return oids(pids)
}

// query runs a statement that answers with rows of what and that, and hands them
// to take.
func query(ctx context.Context, q pglock.Querier, sql string, values map[string]string, take func(what, that string) error) error {
	sql, args, err := bind(sql, values)
	if err != nil {
		return err
	}
	if g, ok := q.(asker); ok {
		pairs, asked, err := g.askPairs(ctx, sql, args)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			if err := take(pair[0], pair[1]); err != nil {
				return err
			}
		}
		if asked {
			return nil
		}
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var what, that string
		if err := rows.Scan(&what, &that); err != nil {
			return err
		}
		if err := take(what, that); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}

// add takes one row.
func (r *reading) add(what, that string) error {
	var n numbers
	switch what {
	case "locks":
		r.packed.locks = append(r.packed.locks, that)
		return nil
	case "aside":
		r.packed.aside = append(r.packed.aside, that)
		return nil
	case "prepared":
		p, err := parsePrepared(that)
		r.prepared = append(r.prepared, p)
		return err
	case "server":
		server, err := parseServer(that)
		r.server = server
		return err
	case "session":
		s, err := parseSession(that)
		r.sessions[s.PID] = &s
		return err
	case "edge":
		pids, ok := numbersIn(that)
		if !ok {
			return unreadable(what, that)
		}
		slices.Sort(pids[1:])
		r.waits[pids[0]] = pids[1:]
		return nil
	case "blocking":
		r.blocking[int32(n.int(that))] = true
		return n.err
	case "relation":
		var f [4]string
		if record(that, f[:]) == len(f) {
			r.relations[n.oid(f[0])] = relation{schema: f[1], kind: kind(f[2]), name: f[3]}
			return n.err
		}
	case "database":
		var f [2]string
		if record(that, f[:]) == len(f) {
			r.databases[n.oid(f[0])] = f[1]
			return n.err
		}
	}
	return unreadable(what, that)
}

func unreadable(what, text string) error {
	return fmt.Errorf("the server's answer has a %s that cannot be read: %q", what, text)
}

// session is the session with that number; one that only pg_locks knows has its
// number and nothing else.
func (r *reading) session(pid int32) *Session {
	s := r.sessions[pid]
	if s == nil {
		s = &Session{PID: pid, Hidden: true}
		r.sessions[pid] = s
	}
	return s
}

// word is a copy of s that is shared with all that equal it.
func (r *reading) word(s string) string {
	if s == "" {
		return ""
	}
	w, ok := r.words[s]
	if !ok {
		w = strings.Clone(s)
		r.words[w] = w
	}
	return w
}

// numbers reads numbers and remembers the first failure. "" is 0.
type numbers struct{ err error }

func (n *numbers) int(s string) int64 {
	if s == "" {
		return 0
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil && n.err == nil {
		n.err = err
	}
	return v
}

func (n *numbers) oid(s string) uint32 { return uint32(n.int(s)) }

// numbersIn reads the numbers of processes, with a space between, of which there
// is at least one. A long queue has so many that this is done by hand.
func numbersIn(text string) (pids []int32, ok bool) {
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
func (n *numbers) microseconds(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	return time.UnixMicro(n.int(s)).UTC()
}

// seconds reads seconds since 1970, to the microsecond.
func (n *numbers) seconds(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	fraction = (fraction + "000000")[:6]
	return time.Unix(n.int(whole), n.int(fraction)*1000).UTC()
}
