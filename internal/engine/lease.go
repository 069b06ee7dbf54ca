package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A LeaseConfig makes an Engine take leases, which are rows of a table, and not advisory
// locks. Then a session is a row too, which is renewed for as long as it holds leases. The
// connection only carries its statements: it may be a pooler's, and if it breaks, the
// session goes on with another.
type LeaseConfig struct {
	TTL    time.Duration // for how long the row is renewed
	Schema string        // of the tables
	App    string        // the program and its machine, for those who look at the table
	Host   string

	now func() moment // the clock of a test, or nil
}

// A leaseSession is the part of a session that takes leases. Its goroutine is the only one
// that uses the connection.
type leaseSession struct {
	*session
	config     *LeaseConfig
	statements leaseStatements
	settings   handshake.Settings
	id         string // of the row

	connected  bool // session.conn may be used
	direct     bool // no pooler is between: statements may be prepared
	renewAt    time.Time
	broken     string        // the reply to the last renewal
	doubt      int           // how many renewals compare, because a take may have taken effect, or may yet, that nobody knows of
	unreleased map[Key]int64 // tokens of leases that could not be released
	highest    int64         // the highest token that a caller was given
	compareAt  time.Time     // when to compare again
	sweepAt    time.Time

	trusted  moment // when the last renewal was sent; guarded by Engine.mu
	listener *releaseListener
}

var (
	errLeaseEnded   = errors.New("the lease expired and was ended by another process")
	errLeaseExpired = errors.New("the lease could not be renewed in time")
	errLeaseGone    = errors.New("the lease was broken, or taken over after it expired")
)

// maxLeaseStatement is how long a statement may take at most. While one has no reply, nothing else
// is sent, however long the leases last.
const maxLeaseStatement = 10 * time.Second

// statementLimit returns how long a statement may take.
func (c *LeaseConfig) statementLimit() time.Duration { return min(c.TTL/6, maxLeaseStatement) }

// runLeases is run for a session of leases.
func (s *session) runLeases() {
	e := s.engine
	defer e.wg.Done()
	c := e.config.Lease
	l := &leaseSession{
		session: s, config: c, statements: newLeaseStatements(c.Schema), id: rand.Text(),
		settings: handshake.Settings{
			PlanCacheMode: "force_generic_plan", ApplicationName: "pglock", Write: true,
			StatementTimeout: c.statementLimit(), LockTimeout: c.statementLimit(),
		},
	}
	s.timer = time.NewTimer(time.Hour)
	err := l.connect()
	if err == nil {
		stop := l.watchTrust()
		for err == nil {
			err = l.step()
		}
		stop()
	}
	e.mu.Lock()
	s.markLost(err)
	losses := s.losses
	e.unlockMu()
	l.end(err)
	if losses > 0 && !errors.Is(err, ErrClosed) {
		e.logWarn("leases lost", "leases", losses, "error", err)
	}
}

// end ends a session that was lost because of err. Others may take its leases at once only if
// it was not in use any more: holders that were just notified of a loss need the time until
// it expires.
func (l *leaseSession) end(err error) {
	if l.listener != nil {
		l.listener.stop()
	}
	if !l.connected {
		return
	}
	if errors.Is(err, errUnused) || errors.Is(err, ErrClosed) {
		_, _ = l.sendIn(resetTimeout, l.statements.close, l.id) // otherwise it expires
	}
	l.disconnect()
}

// now returns the time by the clock of the Engine.
func (c *LeaseConfig) clock() moment {
	if c.now != nil {
		return c.now()
	}
	return now()
}

// trust returns for how long the session may still rely on its leases. Engine.mu must be
// held.
func (l *leaseSession) trust() time.Duration {
	return l.config.TTL - l.config.margin() - l.config.clock().since(l.trusted)
}

// checkTrust ends the session if it can no longer rely on its leases, before any answer is
// given about one: the process may have been stopped, or the machine suspended. Engine.mu
// must be held.
func (s *session) checkTrust() {
	if l := s.lease; l != nil && s.open && s.lost == nil && l.trust() <= 0 {
		s.markLost(errLeaseExpired)
		s.kill()
	}
}

// watchTrust starts a goroutine that ends the session when it can no longer rely on its
// leases, whatever its own goroutine is waiting for. The function that watchTrust returns
// ends it.
func (l *leaseSession) watchTrust() (stop func()) {
	e := l.engine
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			e.mu.Lock()
			l.checkTrust()
			left, lost := l.trust(), l.lost != nil
			e.unlockMu()
			if lost {
				return
			}
			// The wall clock may run ahead of the timer.
			timer := time.NewTimer(max(min(left, time.Second), time.Millisecond))
			select {
			case <-timer.C:
			case <-stopping:
				timer.Stop()
				return
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

// connect opens the connection, and the row if there is none yet. It tries again until the
// session is lost, except for the first time.
func (l *leaseSession) connect() error {
	e := l.engine
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := l.connectOnce()
		e.mu.Lock()
		lost, open := l.lost, l.open
		e.unlockMu()
		switch {
		case lost != nil:
			return lost
		case err == nil:
			return nil
		case !open, errors.Is(err, errLeaseEnded), errors.Is(err, ErrNotInstalled):
			return err
		}
		l.sleep(jitter(pause))
	}
}

// jitter returns a duration near d, so that processes do not keep the same step.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(mathrand.Int64N(int64(d*2/5)+1))
}

// connectOnce tries to open the connection, and renews the row or opens it.
func (l *leaseSession) connectOnce() error {
	e := l.engine
	l.disconnect()
	limit := openTimeout
	if l.open {
		limit = min(openTimeout, l.config.TTL/3)
	}
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	conn, err := e.config.Open(ctx)
	if err != nil {
		return openError(err)
	}
	e.mu.Lock()
	l.session.conn = conn
	e.mu.Unlock()
	hello, err := handshake.Meet(ctx, l.counted(), l.settings)
	switch {
	case err != nil:
		err = openError(err)
	case hello.Standby:
		err = ErrStandby
	}
	if err == nil {
		l.connected, l.direct = true, hello.Path == handshake.Direct
		if l.open {
			err = l.renew()
		} else {
			err = l.openRow(ctx)
		}
	}
	if err != nil {
		l.disconnect()
	}
	return err
}

// disconnect closes the connection, if there is one.
func (l *leaseSession) disconnect() {
	e := l.engine
	e.mu.Lock()
	conn := l.conn
	l.session.conn = nil
	e.mu.Unlock()
	l.connected = false
	l.compareAt = time.Time{} // the next server may have lost the last commits of this one
	if conn != nil {
		conn.Close()
	}
}

// openRow opens the session's row.
func (l *leaseSession) openRow(ctx context.Context) error {
	e := l.engine
	began := l.config.clock()
	version, err := l.send(ctx, l.statements.open, l.id, l.ttlText(), l.config.App, l.config.Host, strconv.Itoa(os.Getpid()))
	if err != nil {
		return l.setUpError(err)
	}
	if n, err := strconv.ParseInt(version, 10, 64); err != nil || n < 1 {
		return fmt.Errorf("%w: version %s", ErrNotInstalled, version)
	}
	l.broken = "0"
	l.renewedAt(began)
	// A session need not last long to sweep: of many short ones, some begin with it.
	l.sweepAt = time.Now().Add(time.Duration(mathrand.Int64N(int64(time.Hour))))
	e.mu.Lock()
	defer e.unlockMu()
	l.lease, l.session.open, l.lastUse = l, true, time.Now()
	e.noOpenUntil = time.Time{}
	return nil
}

// setUpError returns the error of a session that could not be opened because of err.
func (l *leaseSession) setUpError(err error) error {
	switch state := sqlstate.Of(err); state {
	case sqlstate.UndefinedTable, sqlstate.InvalidSchemaName, sqlstate.UndefinedColumn:
		return fmt.Errorf("%w: %w", ErrNotInstalled, err)
	case sqlstate.ReadOnlyTransaction:
		return fmt.Errorf("%w: %w", ErrStandby, err)
	case "", sqlstate.TooManyConnections:
		return openError(err)
	default:
		if isDisconnect(state) || isTransient(err) {
			return openError(err)
		}
	}
	return err
}

// isDisconnect reports whether Postgres or a pooler ended the connection with the error: its
// class is 08, or 57P.
func isDisconnect(state string) bool {
	return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P")
}

func (l *leaseSession) ttlText() string { return strconv.FormatInt(l.config.TTL.Milliseconds(), 10) }

// renewedAt records that a renewal succeeded that was sent at began.
func (l *leaseSession) renewedAt(began moment) {
	l.engine.mu.Lock()
	l.trusted = began
	l.engine.mu.Unlock()
	l.renewAt = began.monotonic.Add(jitter(l.config.TTL / 3))
}

// renew renews the row. It also finds leases that were broken meanwhile, and returns those
// that nobody knows of.
func (l *leaseSession) renew() error {
	began := l.config.clock()
	reply, err := l.sendSoon(l.statements.renew, l.id, l.ttlText())
	if err != nil {
		return l.setUpError(err)
	}
	if reply == "ended" {
		return errLeaseEnded
	}
	l.renewedAt(began)
	if reply == l.broken && l.doubt == 0 && time.Now().Before(l.compareAt) {
		return nil
	}
	if err := l.compare(); err != nil {
		l.renewAt = time.Now() // it is not known what is held
		return err
	}
	l.broken = reply
	l.doubt = max(l.doubt-1, 0)
	l.compareAt = time.Now().Add(max(l.config.TTL, compareEvery))
	return nil
}

// compareEvery is how often what the row owns is compared without any reason: behind a
// pooler, a failover is not seen.
const compareEvery = time.Minute

// doubtful is how many renewals compare after a doubt. What takes effect even later is found when
// they compare without any reason.
const doubtful = 10

// compare compares what the row owns with the leases that this process holds.
func (l *leaseSession) compare() error {
	e := l.engine
	reply, err := l.sendSoon(l.statements.owned, l.id)
	if err != nil {
		return l.setUpError(err)
	}
	tokens, err := parseOwned(reply)
	if err != nil {
		return err
	}
	var orphans []op
	e.mu.Lock()
	for _, lock := range slices.Clone(l.held) {
		if token, owned := tokens[lock.key]; lock.state == held && (!owned || token != lock.lease.token) {
			lock.leaseGone(fmt.Errorf("%w: %w", ErrLost, errLeaseGone))
		}
	}
	for key, token := range tokens {
		// If it is waited for, the next try finds it.
		if e.locks[key] == nil || l.unreleased[key] == token {
			// Nobody has used a lease whose token no caller was given.
			unused := token > l.highest && l.unreleased[key] != token
			orphans = append(orphans, op{kind: opUnlock, key: key, lease: &leaseArgs{token: token, again: unused}})
		}
	}
	e.unlockMu()
	if len(orphans) == 0 {
		return nil
	}
	if _, err = l.sendSoon(l.statements.release, l.releaseArgs(orphans)...); err != nil {
		return l.setUpError(err)
	}
	return nil
}

// parseOwned parses the result of owned.sql.
func parseOwned(reply string) (map[Key]int64, error) {
	var rows [][3]any
	decoder := json.NewDecoder(strings.NewReader(reply))
	decoder.UseNumber()
	if err := decoder.Decode(&rows); err != nil {
		return nil, fmt.Errorf("invalid list of leases: %w", err)
	}
	tokens := make(map[Key]int64, len(rows))
	for _, row := range rows {
		name, _ := row[0].(string)
		slot, _ := row[1].(json.Number)
		token, _ := row[2].(json.Number)
		s, err1 := slot.Int64()
		t, err2 := token.Int64()
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("invalid list of leases: %w", err)
		}
		tokens[Key{Name: name, Slot: int32(s)}] = t
	}
	return tokens, nil
}
