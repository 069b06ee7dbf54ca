package cli

import (
	"context"
	_ "embed"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// Limits for several databases, so that one that does not answer cannot delay the others.
const (
	// maxConnecting is how many connections are made at once.
	maxConnecting = 4

	// connectShare is how long a connection that is being made counts for maxConnecting.
	connectShare = time.Second

	// connectLimit is how long a host may take to connect, without a connect_timeout.
	connectLimit = 5 * time.Second

	// readLimit is how long a database may take to answer.
	readLimit = 10 * time.Second

	// firstPatience is how long a frame of --watch waits for a first connection.
	firstPatience = time.Second
)

// A fleet is the databases that a verb reads, and the sessions on them. Usually it has a
// single database, whose errors are the verb's.
type fleet struct {
	several bool // of -d a,b or --all
	members []*member
	notes   []string // notices of the last reading

	cost time.Duration // of several databases, how long the busiest one has worked since connectAll

	slots  chan struct{} // holds the connections that are being made
	news   chan struct{} // has something if a connection was made or failed
	cancel context.CancelFunc
	ctx    context.Context // of the connections that are being made
}

// A member is a database of a fleet.
type member struct {
	name    string          // as given in -d, or in the config file
	flags   connect.Flags   // of several databases
	target  *connect.Target // of several databases; nil if its settings are wrong
	connect func(ctx context.Context) (*session, error)
	limit   time.Duration // for connect, of several
	session *session      // nil if there is no connection
	server  *server       // that of the last session, of several databases
	err     error         // why there is none, if that is known
	pending chan opened   // receives the connection that is being made; else nil
	since   time.Time     // when pending began
}

// opened is the result of connecting.
type opened struct {
	session *session
	err     error
}

// A part is what was read from one database.
type part[T any] struct {
	*session
	value T
}

// A server is where a session of a fleet is, and which database it is in.
type server struct {
	id       string // equal for two names of one server
	oid      uint32 // of the database
	database string
	peers    []*session // all sessions of the fleet on this server, in order
}

//go:embed identity.sql
var identitySQL string

// newFleet returns the databases that were chosen, without connections. Call close when
// done.
func (a *app) newFleet(ctx context.Context, verb string) *fleet {
	f := &fleet{several: len(a.config.choices) > 0, slots: make(chan struct{}, maxConnecting), news: make(chan struct{}, 1)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	if !f.several {
		f.members = []*member{{connect: func(ctx context.Context) (*session, error) { return a.open(ctx, verb) }}}
		return f
	}
	for _, c := range a.config.choices {
		m := &member{name: c.name, flags: c.flags, limit: connectLimit}
		target, err := a.targetOf(c, render.ApplicationName(verb, ""))
		if err != nil {
			m.connect = func(context.Context) (*session, error) { return nil, err }
		} else {
			m.target, m.limit = target, target.LimitConnect(connectLimit)
			m.connect = func(ctx context.Context) (*session, error) { return openOn(ctx, c.flags, target) }
		}
		f.members = append(f.members, m)
	}
	return f
}

// close closes all connections, also those that are being made.
func (f *fleet) close() {
	f.cancel()
	for _, m := range f.members {
		if m.pending != nil {
			m.take(<-m.pending)
		}
	}
	f.disconnect()
}

// disconnect closes all connections.
func (f *fleet) disconnect() {
	for _, m := range f.members {
		if m.session != nil {
			m.session.close()
			m.session = nil
		}
	}
}

// connectAll connects to the databases without a connection. With patience, it does not
// wait for those that take longer, or that did not answer before: they are connected
// later. The error is that of the only database, or of all of them.
func (f *fleet) connectAll(ctx context.Context, patience bool) error {
	if !f.several {
		m := f.members[0]
		if m.session != nil {
			return nil
		}
		m.session, m.err = m.connect(ctx)
		return m.err
	}
	f.notes, f.cost = nil, 0
	for _, m := range f.members {
		if m.session == nil && m.pending == nil {
			m.pending, m.since = make(chan opened, 1), time.Now()
			go func(result chan<- opened) {
				result <- f.connectOne(m)
				select {
				case f.news <- struct{}{}:
				default: // it is known already that there is something
				}
			}(m.pending)
		}
	}
	for _, m := range f.members {
		if err := m.await(ctx, patience); err != nil {
			return err
		}
	}
	for len(f.sessions()) == 0 && f.isConnecting() { // there is nothing to show yet
		select {
		case <-f.news:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, m := range f.members {
			select {
			case o := <-m.pending: // or never, if nothing is pending
				m.take(o)
			default:
			}
		}
	}
	f.findPeers()
	if len(f.sessions()) == 0 {
		return f.err()
	}
	return nil
}

// await waits for a connection that is being made. With patience, it returns without it if
// it takes too long, or if the database did not answer before. The error is that of ctx.
func (m *member) await(ctx context.Context, patience bool) error {
	if m.pending == nil {
		return nil
	}
	var late <-chan time.Time // never, without patience
	switch {
	case patience && m.err != nil:
		late = time.After(0)
	case patience:
		late = time.After(firstPatience - time.Since(m.since))
	}
	select {
	case o := <-m.pending:
		m.take(o)
	case <-late:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// take stores the result of connecting.
func (m *member) take(o opened) {
	m.session, m.err, m.pending = o.session, o.err, nil
	if m.session != nil {
		m.session.name, m.server = m.name, m.session.server
	}
}

// connectOne connects to a member's database and finds out which server it is on.
func (f *fleet) connectOne(m *member) opened {
	select {
	case f.slots <- struct{}{}:
	case <-f.ctx.Done():
		return opened{err: f.ctx.Err()}
	}
	free := sync.OnceFunc(func() { <-f.slots })
	defer free()
	defer time.AfterFunc(connectShare, free).Stop() // a silent server only waits by then
	s, err := within(f.ctx, m.limit, func(ctx context.Context) (*session, error) {
		s, err := m.connect(ctx)
		if err != nil {
			return nil, err
		}
		if s.server, err = identify(ctx, s, m.name); err != nil {
			s.close()
			return nil, err
		}
		return s, nil
	})
	return opened{s, err}
}

// within calls f with a limit on its time. If f fails because of the limit, the error is a
// silentError, except for an error of connecting, which describes that itself.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	value, err := f(limited)
	var failed *connect.Error
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil && !errors.As(err, &failed) {
		err = &silentError{limit}
	}
	return value, err
}

// identify returns which server and database a session is in. If the server does not
// report it, name stands for a server that no other name shares.
func identify(ctx context.Context, s *session, name string) (*server, error) {
	text, err := s.text(ctx, identitySQL)
	if err != nil {
		if s.conn.IsClosed() || ctx.Err() != nil {
			return nil, err
		}
		return &server{id: "name " + name}, nil
	}
	parts := strings.SplitN(text, " ", 3)
	if len(parts) != 3 {
		return &server{id: "name " + name}, nil
	}
	oid, err := strconv.ParseUint(parts[1], 10, 32)
	return &server{id: parts[0], oid: uint32(oid), database: parts[2]}, err
}

// isConnecting reports whether a connection is being made.
func (f *fleet) isConnecting() bool {
	return slices.ContainsFunc(f.members, func(m *member) bool { return m.pending != nil })
}

// sessions returns the connected sessions, in the order of the members.
func (f *fleet) sessions() []*session {
	var sessions []*session
	for _, m := range f.members {
		if m.session != nil {
			sessions = append(sessions, m.session)
		}
	}
	return sessions
}

// findPeers groups the sessions by server.
func (f *fleet) findPeers() {
	peers := map[string][]*session{}
	for _, s := range f.sessions() {
		peers[s.server.id] = append(peers[s.server.id], s)
	}
	for _, s := range f.sessions() {
		s.server.peers = peers[s.server.id]
	}
}

// owns reports whether this session shows what is in a database, given by its OID, if that
// is not 0, or else by its name. Each session shows its own database, whose names only it
// can read, and the first one on a server also shows all that is in no other.
func (s *session) owns(oid uint32, database string) bool {
	if s.server == nil {
		return true
	}
	for _, p := range s.server.peers {
		if oid != 0 && p.server.oid == oid || oid == 0 && database != "" && p.server.database == database {
			return p == s
		}
	}
	return s.isFirst()
}

// ownsLock reports whether this session shows a lock. A lock that is in no database, such
// as on a transaction ID, belongs to the database of its session.
func (s *session) ownsLock(l *inspect.Lock) bool { return s.owns(l.DatabaseOID, l.Database) }

// serverID returns what is equal for all sessions on one server.
func (s *session) serverID() string {
	if s.server == nil {
		return ""
	}
	return s.server.id
}

// peerNames returns the names of all databases on this session's server, or "" if there is
// only one database.
func (s *session) peerNames() string {
	if s.server == nil {
		return ""
	}
	var names []string
	for _, p := range s.server.peers {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// isFirst reports whether this session is the first on its server.
func (s *session) isFirst() bool { return s.server == nil || s == s.server.peers[0] }

// isAlias reports whether an earlier session is in the same database, so that this one has
// nothing to show.
func (s *session) isAlias() bool {
	first := slices.IndexFunc(s.server.peers, func(p *session) bool {
		return p == s || p.server.oid != 0 && p.server.oid == s.server.oid
	})
	return s.server.peers[first] != s
}

// isOurs reports whether a PID is that of a session of this fleet on the same server.
func (s *session) isOurs(pid int32) bool {
	if s.server == nil {
		return false
	}
	for _, p := range s.server.peers {
		if int32(p.conn.PgConn().PID()) == pid {
			return true
		}
	}
	return false
}

// label returns text for a notice, with the name of the database if there are several.
func (s *session) label(text string) string {
	if s.name == "" {
		return text
	}
	return s.name + ": " + text
}

// readAll reads from all connected databases: from servers at once, and from the
// databases of one server in turn. A database whose connection breaks, or that does not
// answer in time, loses its connection, and is a line of failures. One that lacks a table
// of a filter is a notice, unless all do. The error is that of the only database, or of
// all of them.
func readAll[T any](ctx context.Context, f *fleet, read func(context.Context, *session) (T, error)) ([]part[T], error) {
	if !f.several {
		s := f.members[0].session
		value, err := read(ctx, s)
		return []part[T]{{s, value}}, err
	}
	values, errs, costs := make([]T, len(f.members)), make([]error, len(f.members)), make([]time.Duration, len(f.members))
	var wait sync.WaitGroup
	servers := map[string][]int{}
	for i, m := range f.members {
		if m.session != nil && !m.session.isAlias() {
			servers[m.session.server.id] = append(servers[m.session.server.id], i)
		}
	}
	for _, members := range servers {
		wait.Go(func() {
			for _, i := range members {
				began := time.Now()
				values[i], errs[i] = within(ctx, readLimit, func(ctx context.Context) (T, error) {
					return read(ctx, f.members[i].session)
				})
				costs[i] = time.Since(began)
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var busiest time.Duration
	for i, cost := range costs {
		if errs[i] == nil { // not one that did not answer: its connection is closed now
			busiest = max(busiest, cost)
		}
	}
	f.cost += busiest
	var parts []part[T]
	var invalid error
	var lost []*member
	for i, m := range f.members {
		switch {
		case m.session == nil || m.session.isAlias():
		case errs[i] == nil:
			parts = append(parts, part[T]{m.session, values[i]})
		case errors.Is(errs[i], inspect.ErrFilter):
			f.notes = append(f.notes, m.session.label(message(errs[i])))
			if invalid == nil {
				invalid = errs[i]
			}
		default:
			lost = append(lost, m)
			m.err = errs[i]
		}
	}
	for _, m := range lost { // not before: aliases depend on all of them
		m.session.close()
		m.session = nil
	}
	f.findPeers()
	switch {
	case len(parts) > 0:
		return parts, nil
	case invalid != nil:
		return nil, invalid
	}
	return nil, f.err()
}

// failures returns a line for each database without a connection.
func (f *fleet) failures() []string {
	var lines []string
	for _, m := range f.members {
		switch {
		case !f.several || m.session != nil:
		case m.err != nil:
			lines = append(lines, m.name+": "+message(m.err))
		default:
			lines = append(lines, m.name+": no answer yet")
		}
	}
	return lines
}

// err returns the error that decides the exit code if databases failed: wrong settings,
// then any refusal, and then a server that did not answer. The caller prints failures.
func (f *fleet) err() error {
	var worst error
	rank := func(err error) int {
		switch exitCode(err) {
		case exitUsage:
			return 2
		case exitUnavailable:
			return 0
		}
		return 1
	}
	for _, m := range f.members {
		if m.err != nil && (worst == nil || rank(m.err) > rank(worst)) {
			worst = m.err
		}
	}
	if worst == nil {
		return nil
	}
	return &loggedError{worst}
}
