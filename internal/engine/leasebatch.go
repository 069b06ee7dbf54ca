package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// step does the next thing: it renews the row, runs a batch, or waits for work. An error ends
// the session.
func (l *leaseSession) step() error {
	e := l.engine
	if !l.connected {
		e.mu.Lock()
		l.session.busy = true // requests do not end the pauses between two tries
		e.mu.Unlock()
		if err := l.connect(); err != nil {
			return err
		}
	}
	if !time.Now().Before(l.renewAt) {
		return l.retryRenew()
	}
	l.gather()
	e.mu.Lock()
	l.checkTrust()
	switch {
	case l.lost != nil:
		e.unlockMu()
		return l.lost
	case len(l.queue) > 0:
		l.session.busy = true
		l.fillBatch()
		// An unlock before a try, so that its caller does not wait for that.
		slices.SortStableFunc(l.ops, func(a, b op) int { return cmp.Compare(a.isTry(), b.isTry()) })
		e.unlockMu()
		err := l.runLeaseBatch()
		e.mu.Lock()
		l.clearBatch()
		l.lastUse = l.lastReply
		e.mu.Unlock()
		return err
	}
	l.session.busy = false
	e.unlockMu()
	return l.await()
}

func (o op) isTry() int {
	if o.kind == opTry {
		return 1
	}
	return 0
}

// retryRenew renews the row. A renewal that fails is repeated on another connection, until
// the session can no longer rely on its leases.
func (l *leaseSession) retryRenew() error {
	err := l.renew()
	switch {
	case err == nil, errors.Is(err, errLeaseEnded), errors.Is(err, ErrNotInstalled):
		return err
	case l.connected && sqlstate.Of(err) != "" && isTransient(err):
		l.sleep(jitter(10 * time.Millisecond))
		return nil
	}
	l.disconnect()
	return l.connect()
}

// renewNow renews the row before that is due. If it returns nil, the session had not ended.
func (l *leaseSession) renewNow() error {
	l.renewAt = time.Now()
	for !time.Now().Before(l.renewAt) {
		if err := l.retryRenew(); err != nil {
			return err
		}
	}
	return nil
}

// maxSwept is how many rows of each table sweep.sql removes at a time.
const maxSwept = 1000

// await waits for work, for the next renewal, or for the end of the connection.
func (l *leaseSession) await() error {
	e := l.engine
	next := l.renewAt
	if l.mayRetire() {
		next = minTime(next, l.lastUse.Add(idleTimeout))
	}
	if !l.cannotWatch {
		ctx, cancel := context.WithDeadline(context.Background(), next)
		e.mu.Lock()
		if len(l.queue) > 0 || l.lost != nil {
			e.mu.Unlock()
			cancel()
			return nil
		}
		l.session.cancelWatch = cancel
		e.mu.Unlock()
		err := l.conn.Watch(ctx)
		e.mu.Lock()
		l.session.cancelWatch = nil
		e.mu.Unlock()
		cancel()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			l.cannotWatch = true
		case err != nil:
			l.disconnect() // the row stays
			return nil
		}
	}
	if l.cannotWatch {
		l.sleep(time.Until(next))
	}
	if l.mayRetire() && time.Since(l.lastUse) >= idleTimeout {
		if l.retire() {
			return errUnused
		}
	}
	if time.Now().After(l.sweepAt) {
		l.sweepAt = time.Now().Add(jitter(24 * time.Hour))
		reply, err := l.sendSoon(l.statements.sweep)
		if n, _ := strconv.Atoi(reply); n >= maxSwept { // there may be more
			l.sweepAt = time.Now().Add(jitter(time.Minute))
		}
		l.afterError(err)
	}
	return nil
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// mayRetire reports whether the session holds nothing and has nothing to do.
func (l *leaseSession) mayRetire() bool {
	e := l.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(l.held) == 0 && len(l.queue) == 0 && len(e.locks) == 0
}

// sendSoon sends a statement and waits for the reply as long as a statement may take.
func (l *leaseSession) sendSoon(sql string, args ...string) (string, error) {
	return l.sendIn(l.config.statementLimit(), sql, args...)
}

// sendIn sends a statement and waits for the reply for d at most.
func (l *leaseSession) sendIn(d time.Duration, sql string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return l.send(ctx, sql, args...)
}

// send sends a statement. A pooler may run it in any session, where nothing may be set or
// prepared: then it is one message of the simple protocol, with settings that end with it.
func (l *leaseSession) send(ctx context.Context, sql string, args ...string) (string, error) {
	l.engine.roundTrips.Add(1)
	var reply string
	var err error
	if l.direct {
		reply, err = l.conn.QueryText(ctx, sql, args...)
	} else {
		reply, err = l.conn.QueryTextSimple(ctx, handshake.Local(l.settings)+sqltext.Inline(sql, args...))
	}
	l.lastReply = time.Now()
	return reply, err
}

// isTransient reports whether a statement changed nothing and may be run again at once.
func isTransient(err error) bool {
	switch sqlstate.Of(err) {
	case sqlstate.SerializationFailure, sqlstate.DeadlockDetected, sqlstate.LockNotAvailable, sqlstate.QueryCanceled:
		return true
	}
	return false
}

// afterError handles the error of a statement. If it may have taken effect, or may yet, the
// session is in doubt from now on.
func (l *leaseSession) afterError(err error) {
	switch state := sqlstate.Of(err); {
	case err == nil, isTransient(err):
		return
	case state == "" || isDisconnect(state) || isSwapped(err) || state == sqlstate.ReadOnlyTransaction || state == sqlstate.FeatureNotSupported:
		// There is no usable connection, or to a server that is not the primary any more.
		if state == "" || strings.HasPrefix(state, "08") {
			l.doubt = doubtful
		}
		l.disconnect()
	}
}

// maxLeaseRetries is how often a statement is run again after an error of Postgres.
const maxLeaseRetries = 20

// A refusedError is an error with which Postgres refuses a statement. The session goes on.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

func isRefused(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}

// persist sends a statement until there is a reply, on other connections if necessary. The
// error is a [*refusedError] if Postgres refuses the statement; any other one ends the
// session. doubted reports whether the statement may have run more than once.
func (l *leaseSession) persist(sql string, args ...string) (reply string, doubted bool, err error) {
	for tries := 0; ; {
		if !l.connected {
			if err := l.connect(); err != nil {
				return "", doubted, err
			}
		}
		if !time.Now().Before(l.renewAt) {
			if err := l.retryRenew(); err != nil {
				return "", doubted, err
			}
			continue
		}
		reply, err = l.sendSoon(sql, args...)
		if err == nil {
			return reply, doubted, nil
		}
		l.afterError(err)
		switch {
		case !l.connected:
			doubted = true
		case !isTransient(err) || tries == maxLeaseRetries:
			return "", doubted, &refusedError{err}
		default:
			tries++
			l.sleep(jitter(time.Duration(tries) * 2 * time.Millisecond))
		}
	}
}

// runLeaseBatch runs the batch: the unlocks in one statement, then the tries in another.
func (l *leaseSession) runLeaseBatch() error {
	first := l.ops[0]
	if first.kind == opQuery {
		reply, _, err := l.persist(first.query.sql, first.query.args...)
		if err != nil && !isRefused(err) {
			return err // markLost closes ready
		}
		return l.finish(func() {
			first.query.reply, first.query.err = reply, err
			close(first.query.ready)
		})
	}
	n := slices.IndexFunc(l.ops, func(o op) bool { return o.kind == opTry })
	if n < 0 {
		n = len(l.ops)
	}
	unlocks, tries := l.ops[:n], l.ops[n:]
	if len(unlocks) > 0 {
		stuck, err := l.runUnlocks(unlocks)
		if err != nil {
			return err
		}
		if len(stuck) > 0 {
			tries = l.postpone(stuck, tries)
		}
	}
	if len(tries) > 0 {
		return l.runTries(tries)
	}
	return l.lostError()
}

// lostError returns why the session was lost, or nil.
func (l *leaseSession) lostError() error {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return l.lost
}

// releaseArgs returns the arguments of release.sql.
func (l *leaseSession) releaseArgs(unlocks []op) []string {
	names, slots := leaseKeys(unlocks)
	var tokens, again textArray
	for _, o := range unlocks {
		tokens.addInt(o.lease.token)
		again.addRaw(strconv.FormatBool(o.lease.again))
	}
	return []string{names, slots, tokens.String(), again.String(), l.id}
}

// runUnlocks releases leases. It returns the operations on rows that another transaction
// has locked, which did nothing.
func (l *leaseSession) runUnlocks(unlocks []op) (stuck []op, err error) {
	e := l.engine
	text, doubted, err := l.persist(l.statements.release, l.releaseArgs(unlocks)...)
	if err != nil && !isRefused(err) {
		return nil, err
	}
	reply, ok := parseRelease(text, len(unlocks))
	if err == nil && !ok {
		return nil, fmt.Errorf("invalid reply about the release of %d leases", len(unlocks))
	}
	taken := false // a lease that may have been released already belongs to somebody else
	for i, o := range unlocks {
		o.lease.doubted = o.lease.doubted || doubted
		taken = taken || err == nil && o.lease.doubted && reply[i] == '0'
	}
	if taken {
		if err := l.renewNow(); err != nil {
			return nil, err
		}
	}
	var wanted []op
	e.mu.Lock()
	l.checkTrust()
	for i, o := range unlocks {
		if l.lost != nil {
			break
		}
		l.batch = l.batch[1:]
		switch {
		case err != nil:
			// The row may still be ours: a later comparison releases it.
			l.doubt = doubtful
			if l.unreleased == nil {
				l.unreleased = make(map[Key]int64)
			}
			l.unreleased[o.key] = o.lease.token
			o.lock.leaseGone(fmt.Errorf("%w: %w", ErrUnconfirmed, err))
		case reply[i] == 'l':
			stuck = append(stuck, o)
		case reply[i] == '2':
			wanted = append(wanted, o)
			o.lock.unlockDone(l.session, true)
		case reply[i] == '1', reply[i] == 'f' && o.lease.doubted:
			o.lock.unlockDone(l.session, true)
		case o.lease.doubted && o.lock.lease.broken == l.broken:
			// The session has not ended, and none of its leases was broken since it took this
			// one. So the statement whose reply was lost had released it.
			o.lock.unlockDone(l.session, true)
		default:
			o.lock.leaseGone(fmt.Errorf("%w: %w", ErrLost, errLeaseGone))
		}
	}
	e.unlockMu()
	if len(wanted) > 0 {
		var names textArray
		for _, o := range wanted {
			names.add(o.key.Name)
		}
		_, err := l.sendSoon(l.statements.notify, names.String())
		l.afterError(err) // those who listen also poll
	}
	return stuck, l.lostError()
}

// stuckPause is the time after which an operation on a row that another transaction has
// locked is tried again.
const stuckPause = 20 * time.Millisecond

// postpone queues unlocks again after a while, each with the try that follows it, and
// returns the other tries.
func (l *leaseSession) postpone(stuck, tries []op) []op {
	e := l.engine
	var rest, later []op
	e.mu.Lock()
	defer e.unlockMu()
	for _, o := range stuck {
		later = append(later, o)
		for _, t := range tries {
			if t.lock == o.lock {
				later = append(later, t)
			}
		}
	}
	for _, t := range tries {
		if !slices.ContainsFunc(stuck, func(o op) bool { return o.lock == t.lock }) {
			rest = append(rest, t)
		}
	}
	// Meanwhile they are in no list: if the session is lost, so are the leases, which it
	// still holds, and their callers are notified of that.
	l.batch = rest
	time.AfterFunc(stuckPause, func() {
		e.mu.Lock()
		defer e.unlockMu()
		if l.lost == nil {
			for _, o := range later {
				l.push(o)
			}
		}
	})
	return rest
}

// runTries tries to take leases.
func (l *leaseSession) runTries(tries []op) error {
	e := l.engine
	replies, err := l.take(tries)
	switch {
	case err == nil:
	case !isRefused(err):
		return err
	case len(tries) > 1:
		l.doubt = doubtful // some may have been taken before the error
		if isDataError(err) {
			// A name or a note is to blame, and the others are not refused for it.
			half := len(tries) / 2
			if err := l.runTries(tries[:half]); err != nil {
				return err
			}
			return l.runTries(tries[half:])
		}
	}
	e.mu.Lock()
	defer e.unlockMu()
	l.checkTrust()
	for i, o := range tries {
		if l.lost != nil {
			break
		}
		l.batch = l.batch[1:]
		if err != nil {
			o.lock.tryFailed(l.setUpError(err))
			continue
		}
		r := replies[i]
		if r.kind == 'm' && l.unreleased[o.key] == r.value {
			r.kind = 'b' // its token belongs to an earlier holder
		}
		switch r.kind {
		case 't', 'm':
			o.lock.lease.token, o.lock.lease.terms, o.lock.lease.broken = r.value, o.lease.terms, l.broken
			o.lock.lease.due, o.lock.lease.left = time.Time{}, time.Time{}
			l.highest = max(l.highest, r.value)
			o.lock.tryDone(l.session, true)
		default:
			o.lock.lease.refused(r)
			o.lock.tryDone(l.session, false)
		}
	}
	return l.lost
}

// isDataError reports whether Postgres refused a value of a statement: such as one that the
// encoding of the database does not have.
func isDataError(err error) bool {
	state := sqlstate.Of(err)
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "54")
}

// maxTakes limits how often take.sql is run for the same leases: after rows that were
// missing are created, the sessions of earlier owners ended, and leases released that this
// session still owns.
const maxTakes = 4

// take runs take.sql for tries, and what it asks for.
func (l *leaseSession) take(tries []op) ([]takeReply, error) {
	if err := l.want(tries); err != nil {
		return nil, err
	}
	// What this session owns already was taken by a try whose reply was lost, unless its token
	// is old. Then it was released, and a failover has lost that, and may have lost later
	// holders: it needs a new token.
	old := l.highest
	result := make([]takeReply, len(tries))
	left := make([]int, len(tries)) // indexes of the tries without a final result
	for i := range left {
		left[i] = i
	}
	for n := 1; len(left) > 0; n++ {
		ops := make([]op, len(left))
		var every, notes textArray
		for i, at := range left {
			ops[i] = tries[at]
			every.addRaw(strconv.FormatFloat(ops[i].lease.terms.Every.Seconds(), 'f', -1, 64))
			notes.add(ops[i].lease.terms.Note)
		}
		names, slots := leaseKeys(ops)
		reply, _, err := l.persist(l.statements.take, names, slots, every.String(), notes.String(), l.id)
		if err != nil {
			return nil, err
		}
		alive, replies, ok := parseTake(reply, len(ops))
		switch {
		case !ok:
			return nil, fmt.Errorf("invalid reply about %d leases", len(ops))
		case !alive:
			return nil, errLeaseEnded
		}
		var missing, released []op
		var ended textArray
		var again []int
		for i, r := range replies {
			at := left[i]
			result[at] = r
			switch r.kind {
			case 'u':
				missing = append(missing, ops[i])
				again = append(again, at)
			case 'e':
				ended.add(r.owner)
				again = append(again, at)
			case 'm':
				if r.value <= old {
					released = append(released, op{kind: opUnlock, key: ops[i].key, lease: &leaseArgs{token: r.value}})
					again = append(again, at)
					result[at] = takeReply{kind: 'b'}
				}
			}
		}
		if n == maxTakes {
			break
		}
		left = again
		if len(missing) > 0 {
			names, slots := leaseKeys(missing)
			if _, _, err := l.persist(l.statements.seed, names, slots); err != nil {
				return nil, err
			}
		}
		if s := ended.String(); s != "{}" {
			if _, _, err := l.persist(l.statements.end, s); err != nil {
				return nil, err
			}
		}
		if len(released) > 0 {
			if _, _, err := l.persist(l.statements.release, l.releaseArgs(released)...); err != nil {
				return nil, err
			}
		}
	}
	return result, nil
}

// want asks for a notification when the leases that are waited for are released.
func (l *leaseSession) want(tries []op) error {
	e := l.engine
	e.mu.Lock()
	waited := slices.DeleteFunc(slices.Clone(tries), func(o op) bool { return o.lock.polls == nil })
	listening := l.listener.active()
	e.mu.Unlock()
	if len(waited) == 0 {
		return nil
	}
	if !listening {
		l.startListening()
		return nil
	}
	names, slots := leaseKeys(waited)
	_, _, err := l.persist(l.statements.want, names, slots)
	return err
}
