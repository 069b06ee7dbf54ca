package pglocktest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
)

func (s suite) closeEndsTheSession(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	queryText(t, session, lockSQL)
	if err := session.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.awaitGone(t, pid)
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("QueryText after Close: %v", err)
	}
	if err := session.Exec(context.Background(), `SELECT 1`); err == nil || stateOf(err) != "" {
		t.Errorf("Exec after Close: %v", err)
	}
}

func (s suite) closeInsideATransaction(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	if err := session.Exec(context.Background(), `BEGIN`); err != nil {
		t.Fatal(err)
	}
	queryText(t, session, `SELECT pg_advisory_xact_lock(1885826164)::text`)
	session.Close()
	s.awaitGone(t, pid)
}

func (s suite) closeWhileAQueryRuns(t testing.TB) {
	holder, session, observer := s.open(t), s.open(t), s.open(t)
	queryText(t, holder, lockSQL)
	pid := queryText(t, session, pidSQL)
	result := make(chan error, 1)
	go func() {
		_, err := session.QueryText(context.Background(), lockSQL)
		result <- err
	}()
	awaitWaiting(t, observer, pid)

	began := time.Now()
	session.Close()
	if took := time.Since(began); took > callTimeout {
		t.Errorf("Close took %v", took)
	}
	select {
	case err := <-result:
		if err == nil {
			t.Error("QueryText acquired a lock held by another session")
		}
	case <-time.After(callTimeout):
		t.Fatal("QueryText continues after Close")
	}
	await(t, observer, "0", `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1::int`, pid)
	holder.Close()
}

func (s suite) closeTwice(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { session.Close() })
		}
		wg.Wait()
		session.Close()
	}()
	select {
	case <-done:
	case <-time.After(callTimeout):
		t.Fatal("Close does not return when it is called again")
	}
	s.awaitGone(t, pid)
}

func (s suite) closeAfterLoss(t testing.TB) {
	session, observer := s.open(t), s.open(t)
	pid := queryText(t, session, pidSQL)
	queryText(t, observer, `SELECT pg_terminate_backend($1::int)::text`, pid)
	s.awaitGone(t, pid)
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil {
		t.Error("QueryText succeeds on a session whose backend is gone")
	}
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("QueryText once more: %v", err)
	}
	session.Close()
}

// watch starts Watch. It skips the check if the adapter does not support it.
func watch(ctx context.Context, t testing.TB, session driver.Session) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- session.Watch(ctx) }()
	select {
	case err := <-result:
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("Watch returned at once: %v", err)
		}
		queryText(t, session, pidSQL)
		t.Skipf("no Watch: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	return result
}

func (s suite) watchUntilContextEnds(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	for range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		result := watch(ctx, t, session)
		cancel()
		select {
		case err := <-result:
			if err != nil {
				t.Fatalf("Watch: %v, want nil when its context ends", err)
			}
		case <-time.After(callTimeout):
			t.Fatal("Watch continues after its context has ended")
		}
		if got := queryText(t, session, pidSQL); got != pid {
			t.Fatalf("the session changed: backend %s, was %s", got, pid)
		}
	}
}

func (s suite) watchUntilLoss(t testing.TB) {
	session, observer := s.open(t), s.open(t)
	pid := queryText(t, session, pidSQL)
	result := watch(context.Background(), t, session)
	queryText(t, observer, `SELECT pg_terminate_backend($1::int)::text`, pid)
	select {
	case err := <-result:
		if err == nil {
			t.Error("Watch: nil although the session is lost")
		}
	case <-time.After(callTimeout):
		t.Fatal("Watch did not notice that the backend was terminated")
	}
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil {
		t.Error("QueryText succeeds on a lost session")
	}
}

func (s suite) closeWhileWatchRuns(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	result := watch(context.Background(), t, session)
	session.Close()
	select {
	case err := <-result:
		if err == nil {
			t.Error("Watch: nil although the session is closed")
		}
	case <-time.After(callTimeout):
		t.Fatal("Watch continues after Close")
	}
	s.awaitGone(t, pid)
}
