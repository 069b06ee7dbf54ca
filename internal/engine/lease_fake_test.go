package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
)

// A leaseServer is a fake Postgres with leases, for tests with fake time. It understands the
// statements of the folder sql/lease. Each takes a millisecond each way.
type leaseServer struct {
	mu         sync.Mutex
	silent     bool // no statement is answered
	sessions   map[string]time.Time
	leases     map[string]*fakeLease
	tokens     int64
	statements map[string]int // how often each was run
	most       int            // leases in one take
	old        int            // rows that can be removed
}

type fakeLease struct {
	owner string
	token int64
	due   time.Time // it may not be taken before
}

func newLeaseServer() *leaseServer {
	return &leaseServer{sessions: map[string]time.Time{}, leases: map[string]*fakeLease{}, statements: map[string]int{}}
}

// engine returns an Engine for leases that uses the server.
func (s *leaseServer) engine(t *testing.T, ttl time.Duration, clock func() moment) *Engine {
	e := New(Config{
		Open:     func(context.Context) (Conn, error) { return &leaseConn{server: s, closed: make(chan struct{})}, nil },
		Sessions: 1, Slice: time.Second, Heartbeat: 10 * time.Second,
		Lease: &LeaseConfig{TTL: ttl, Schema: "pglock", now: clock},
	})
	t.Cleanup(func() { e.Close() })
	return e
}

func (s *leaseServer) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statements[name]
}

type leaseConn struct {
	server *leaseServer
	once   sync.Once
	closed chan struct{}
}

func (c *leaseConn) PID() uint32                                { return 7 }
func (c *leaseConn) Exec(context.Context, string, ...any) error { return nil }

func (c *leaseConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *leaseConn) Watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.closed:
		return errors.New("closed")
	}
}

func (c *leaseConn) QueryTextSimple(_ context.Context, sql string) (string, error) {
	if meeting, _ := handshake.IsMeeting(sql); !meeting {
		return "", errors.New("not the handshake: " + sql)
	}
	return handshake.MeetingReply(`{"pid": 7, "start": "2026-01-01 00:00:00", "version": "fake", "boot": 1}`, ""), nil
}

func (c *leaseConn) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	time.Sleep(time.Millisecond)
	c.server.mu.Lock()
	silent := c.server.silent
	c.server.mu.Unlock()
	if silent {
		select {
		case <-ctx.Done():
		case <-c.closed:
		}
		c.Close()
		return "", errors.New("no answer")
	}
	reply, err := c.server.run(sql, args)
	time.Sleep(time.Millisecond)
	return reply, err
}

// run runs a statement.
func (s *leaseServer) run(sql string, args []string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := newLeaseStatements("pglock")
	until := func() time.Time {
		ms, _ := strconv.Atoi(args[1])
		return time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	alive := func(id string) bool { return time.Now().Before(s.sessions[id]) }
	switch sql {
	case all.open:
		s.statements["open"]++
		s.sessions[args[0]] = until()
		return "1", nil
	case all.renew:
		s.statements["renew"]++
		if !alive(args[0]) {
			return "ended", nil
		}
		s.sessions[args[0]] = until()
		return "0", nil
	case all.close:
		s.statements["close"]++
		delete(s.sessions, args[0])
		return "1", nil
	case all.owned:
		var rows []string
		for name, lease := range s.leases {
			if lease.owner == args[0] {
				rows = append(rows, fmt.Sprintf("[%q, 0, %d]", name, lease.token))
			}
		}
		return "[" + strings.Join(rows, ",") + "]", nil
	case all.seed:
		for _, name := range elements(args[0]) {
			s.leases[name] = &fakeLease{}
		}
		return "0", nil
	case all.sweep:
		s.statements["sweep"]++
		n := min(s.old, maxSwept)
		s.old -= n
		return strconv.Itoa(n), nil
	case all.take:
		s.statements["take"]++
		names, me := elements(args[0]), args[4]
		s.most = max(s.most, len(names))
		reply, taken := "0", ""
		if alive(me) {
			reply = "1"
		}
		for i, name := range names {
			switch lease := s.leases[name]; {
			case lease == nil:
				reply += " u"
			case time.Now().Before(lease.due):
				reply += fmt.Sprintf(" d%d", time.Until(lease.due).Milliseconds())
			case lease.owner == "" || !alive(lease.owner):
				s.tokens++
				lease.owner, lease.token = me, s.tokens
				reply += " b"
				taken += fmt.Sprintf(" %d:%d", i+1, s.tokens)
			default:
				reply += fmt.Sprintf(" h%d", time.Until(s.sessions[lease.owner]).Milliseconds())
			}
		}
		return reply + " |" + taken, nil
	case all.release:
		s.statements["release"]++
		before, freed := "", ""
		for i, name := range elements(args[0]) {
			lease := s.leases[name]
			before += "l"
			freed += fmt.Sprintf(" %d", i+1)
			lease.owner = ""
		}
		return before + "|" + freed, nil
	}
	return "", errors.New("an unknown statement: " + sql)
}

// elements returns the elements of an array without special characters.
func elements(array string) []string {
	return strings.Split(strings.ReplaceAll(strings.Trim(array, "{}"), `"`, ""), ",")
}

func leaseKey(n int) Key { return Key{Name: fmt.Sprint("lease ", n)} }

// A session is renewed by one statement each third of its time, however many leases it holds,
// and for no longer than they are held.
func TestLeaseRenewals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		e := s.engine(t, 30*time.Second, nil)
		var keys []Key
		for n := range 1000 {
			keys = append(keys, leaseKey(n))
		}
		holds, errs := e.AcquireAll(t.Context(), keys, Exclusive, Wait{})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if n := s.count("take"); n > 4 {
			t.Errorf("%d statements took 1000 leases", n)
		}
		time.Sleep(time.Hour)
		if n := s.count("renew"); n < 300 || n > 460 {
			t.Errorf("%d renewals in an hour", n)
		}
		for _, h := range holds {
			if err := h.Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(e.ReleaseAll(holds)...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.sessions) > 0 {
			t.Errorf("sessions are left: %v", s.sessions)
		}
	})
}

// If the server is silent, the holders are notified after the time to live less the margin, and
// before the server lets others in.
func TestLeaseTrust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		e := s.engine(t, 30*time.Second, nil)
		h, err := e.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Second) // some renewals
		s.mu.Lock()
		s.silent = true
		s.mu.Unlock()
		var notified time.Time
		h.OnLoss(func(error) { notified = time.Now() })
		<-h.Done()
		if err := h.Err(); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, until := range s.sessions {
			if left := until.Sub(notified); left < 3*time.Second || left > 4*time.Second {
				t.Errorf("notified %v before others may take over", left)
			}
		}
	})
}

// If the machine sleeps, or its wall clock is set forward, the loss is found before any answer
// is given, although the monotonic clock and the timers have stood still.
func TestLeaseSleepingMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asleep time.Duration
		clock := func() moment {
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			return moment{monotonic: now, wall: now.Round(0).Add(asleep)}
		}
		s := newLeaseServer()
		e := s.engine(t, 30*time.Second, clock)
		for name, check := range map[string]func(h *Hold) error{
			"Err":     (*Hold).Err,
			"Release": (*Hold).Release,
			"Done": func(h *Hold) error {
				select {
				case <-h.Done():
					return h.Err()
				default:
					return nil
				}
			},
		} {
			h, err := e.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			asleep += time.Minute
			mu.Unlock()
			if err := check(h); !errors.Is(err, ErrLost) {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(time.Minute) // the lease expires
		}
		// A wall clock that is set back changes nothing.
		h, err := e.Acquire(t.Context(), leaseKey(2), Exclusive, Wait{})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		asleep -= time.Hour
		mu.Unlock()
		time.Sleep(time.Minute)
		if err := h.Err(); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.silent = true
		s.mu.Unlock()
		began := time.Now()
		<-h.Done()
		if passed := time.Since(began); passed > 30*time.Second {
			t.Errorf("notified %v after the server fell silent", passed)
		}
	})
}

// All leases that a process waits for are tried in one statement, about four times a second.
func TestLeasePolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		holder, waiter := s.engine(t, 30*time.Second, nil), s.engine(t, 30*time.Second, nil)
		var keys []Key
		for n := range 100 {
			keys = append(keys, leaseKey(n))
		}
		holds, errs := holder.AcquireAll(t.Context(), keys, Exclusive, Wait{})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, key := range keys {
			wg.Go(func() {
				h, err := waiter.Acquire(t.Context(), key, Exclusive, Wait{})
				if err != nil {
					t.Error(err)
					return
				}
				if h.Token() <= 100 {
					t.Errorf("token %d", h.Token())
				}
				if err := h.Release(); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		before := s.count("take")
		time.Sleep(10 * time.Second)
		if n := s.count("take") - before; n < 35 || n > 60 {
			t.Errorf("%d takes in ten seconds", n)
		}
		if err := errors.Join(holder.ReleaseAll(holds)...); err != nil {
			t.Fatal(err)
		}
		released := time.Now()
		wg.Wait()
		if took := time.Since(released); took > 300*time.Millisecond {
			t.Errorf("the waiters noticed the release after %v", took)
		}
	})
}

// Leases that are not due are polled less often, until they are due; others are not.
func TestLeasePollsWhatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		e := s.engine(t, 30*time.Second, nil)
		due, again, held := leaseKey(1), leaseKey(2), leaseKey(3)
		began := time.Now()
		s.leases[due.Name] = &fakeLease{due: began.Add(time.Minute)}
		s.leases[again.Name] = &fakeLease{due: began.Add(time.Hour)}
		took := func(key Key) <-chan time.Duration {
			result := make(chan time.Duration, 1)
			go func() {
				h, err := e.Acquire(t.Context(), key, Exclusive, Wait{})
				if err != nil {
					t.Error(err)
				} else if err := h.Release(); err != nil {
					t.Error(err)
				}
				result <- time.Since(began)
			}()
			return result
		}
		dueTook, againTook := took(due), took(again)
		time.Sleep(30 * time.Second)
		if n := s.count("take"); n < 4 || n > 12 {
			t.Errorf("%d takes in half a minute", n)
		}
		// The work has failed, and so the lease is due at once.
		s.mu.Lock()
		s.leases[again.Name].due = time.Time{}
		s.mu.Unlock()
		if d := <-againTook; d > 40*time.Second {
			t.Errorf("the lease that was due again was taken after %v", d)
		}
		// One that is held is polled as before.
		other := s.engine(t, 30*time.Second, nil)
		hold, err := other.Acquire(t.Context(), held, Exclusive, Wait{})
		if err != nil {
			t.Fatal(err)
		}
		heldTook := took(held)
		time.Sleep(10 * time.Second)
		if err := hold.Release(); err != nil {
			t.Fatal(err)
		}
		released := time.Since(began)
		if d := <-heldTook - released; d > 300*time.Millisecond {
			t.Errorf("the waiter noticed the release after %v", d)
		}
		if d := <-dueTook; d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("the lease that was not due was taken after %v", d)
		}
	})
}
