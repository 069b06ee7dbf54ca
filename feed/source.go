package feed

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
)

// An OpenFunc opens a session, and returns what closes it. [inspect.Guard] prepares it for
// reading. With an error there is nothing to close.
type OpenFunc func(ctx context.Context) (q driver.Querier, closeSession func(), err error)

// A Source is a session that is opened when it is first used, and again after an error.
// Only one goroutine uses it at a time; others wait. So a program that reads with it and
// ends sessions with it needs a single connection, also while the server has no other left.
type Source struct {
	open OpenFunc

	slot chan struct{} // holds something while the session is used
	once sync.Once     // closes done
	done chan struct{}

	q            driver.Querier // nil if there is no session
	closeSession func()
}

// NewSource returns a Source, which has no session yet. Call Close when done.
func NewSource(open OpenFunc) *Source {
	return &Source{open: open, slot: make(chan struct{}, 1), done: make(chan struct{})}
}

// errClosed is returned after Close.
var errClosed = errors.New("feed: the source is closed")

// Do calls f with the session. After an error the session is closed, unless the error is
// about a filter, which the session survives. cost is how long f took. ctx covers the
// waiting, the opening and f.
func (s *Source) Do(ctx context.Context, f func(ctx context.Context, q driver.Querier) error) (cost time.Duration, err error) {
	select {
	case s.slot <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.done:
		return 0, errClosed
	}
	defer func() { <-s.slot }()
	select {
	case <-s.done:
		return 0, errClosed
	default:
	}
	if s.q == nil {
		q, closeSession, err := s.open(ctx)
		if err != nil {
			return 0, err
		}
		s.q, s.closeSession = q, closeSession
	}
	began := time.Now()
	err = f(ctx, s.q)
	cost = time.Since(began)
	if err != nil && !errors.Is(err, inspect.ErrFilter) {
		s.closeSession()
		s.q, s.closeSession = nil, nil
	}
	return cost, err
}

// Snapshot reads a snapshot of all locks. It is a ReadFunc.
func (s *Source) Snapshot(ctx context.Context) (snapshot *inspect.Snapshot, cost time.Duration, err error) {
	cost, err = s.Do(ctx, func(ctx context.Context, q driver.Querier) (err error) {
		snapshot, err = inspect.ReadSnapshot(ctx, q)
		return err
	})
	return snapshot, cost, err
}

// Close waits until the session is not used, and closes it.
func (s *Source) Close() {
	s.once.Do(func() { close(s.done) })
	s.slot <- struct{}{}
	defer func() { <-s.slot }()
	if s.closeSession != nil {
		s.closeSession()
		s.q, s.closeSession = nil, nil
	}
}
