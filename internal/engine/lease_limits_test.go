package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// silence makes the server silent or not.
func (s *leaseServer) silence(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// A server that is silent for a few seconds delays what comes next by as much as a statement may
// take, however long the leases last.
func TestLeaseShortSilence(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{30 * time.Second, 10 * time.Minute, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newLeaseServer()
			e := s.engine(t, ttl, nil)
			hold, err := e.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{})
			if err != nil {
				t.Fatal(err)
			}
			s.silence(true)
			began := time.Now()
			go func() {
				time.Sleep(5 * time.Second)
				s.silence(false)
			}()
			other, err := e.Acquire(t.Context(), leaseKey(2), Exclusive, Wait{})
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > maxLeaseStatement+2*time.Second {
				t.Errorf("with %v, the next lease was taken after %v", ttl, took)
			}
			if err := errors.Join(e.ReleaseAll([]*Hold{hold, other})...); err != nil {
				t.Error(err)
			}
		})
	}
}

// A caller does not wait for a release as long as the lease lasts. The release goes on.
func TestLeaseReleaseLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		e := s.engine(t, 10*time.Minute, nil)
		holds, errs := e.AcquireAll(t.Context(), []Key{leaseKey(1), leaseKey(2), leaseKey(3)}, Exclusive, Wait{})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		s.silence(true)
		began := time.Now()
		for _, err := range e.ReleaseAll(holds) {
			if !errors.Is(err, ErrUnconfirmed) {
				t.Errorf("the release ends with %v", err)
			}
		}
		if took := time.Since(began); took != leaseReleaseLimit {
			t.Errorf("the release took %v", took)
		}
		for _, h := range holds {
			if err := h.Release(); !errors.Is(err, ErrNotHeld) {
				t.Errorf("a second release ends with %v", err)
			}
		}
		s.silence(false)
		other := s.engine(t, 10*time.Minute, nil)
		again, err := other.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{For: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Release(); err != nil {
			t.Error(err)
		}
	})
}

// Requests do not make a session connect more often while the server is down.
func TestLeaseReconnects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		var down atomic.Bool
		var opens atomic.Int64
		e := New(Config{
			Open: func(context.Context) (Conn, error) {
				opens.Add(1)
				if down.Load() {
					return nil, errors.New("connection refused")
				}
				return &leaseConn{server: s, closed: make(chan struct{})}, nil
			},
			Sessions: 1, Slice: time.Second, Heartbeat: 10 * time.Second,
			Lease: &LeaseConfig{TTL: time.Minute, Schema: "pglock"},
		})
		defer e.Close()
		hold, err := e.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{})
		if err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		e.mu.Lock()
		conn := e.sessions[0].conn
		e.mu.Unlock()
		conn.Close()
		synctest.Wait()
		opens.Store(0)
		for range 5000 {
			if _, err := e.Acquire(t.Context(), leaseKey(2), Exclusive, Wait{No: true, For: time.Millisecond}); err == nil {
				t.Fatal("a lease was taken from a server that is down")
			}
		}
		if n := opens.Load(); n > 20 {
			t.Errorf("%d connections were tried in five seconds", n)
		}
		down.Store(false)
		if err := hold.Release(); err != nil {
			t.Error(err)
		}
	})
}

// A lease that is held here is not refused for a period that ended before it was taken.
func TestLeaseNotDueAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		e := s.engine(t, 30*time.Second, nil)
		key := leaseKey(1)
		s.leases[key.Name] = &fakeLease{due: time.Now().Add(time.Hour)}
		notDue := func() bool {
			_, err := e.Acquire(t.Context(), key, Exclusive, Wait{For: time.Second})
			due := new(NotDueError)
			if !errors.Is(err, ErrNotAcquired) {
				t.Errorf("the error is %v", err)
			}
			return errors.As(err, &due)
		}
		if !notDue() {
			t.Error("the error does not say that it is not due")
		}
		s.mu.Lock()
		s.leases[key.Name].due = time.Time{} // the work has failed elsewhere
		s.mu.Unlock()
		hold, err := e.Acquire(t.Context(), key, Exclusive, Wait{For: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if notDue() {
			t.Error("the error says that a lease that is held is not due")
		}
		if err := hold.Release(); err != nil {
			t.Error(err)
		}
	})
}

// Old rows are removed within an hour, in small steps, and then once a day.
func TestLeaseSweeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		s.old = 5*maxSwept + 7
		e := s.engine(t, time.Minute, nil)
		hold, err := e.Acquire(t.Context(), leaseKey(1), Exclusive, Wait{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(75 * time.Minute)
		if n := s.count("sweep"); n != 6 || s.old != 0 {
			t.Errorf("%d sweeps left %d rows", n, s.old)
		}
		time.Sleep(18 * time.Hour)
		if n := s.count("sweep"); n != 6 {
			t.Errorf("%d sweeps in a day", n)
		}
		time.Sleep(12 * time.Hour)
		if n := s.count("sweep"); n != 7 {
			t.Errorf("%d sweeps on the next day", n)
		}
		if err := hold.Release(); err != nil {
			t.Error(err)
		}
	})
}
