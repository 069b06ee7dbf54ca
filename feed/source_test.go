package feed_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
)

// An opener opens sessions for a Source and counts those that are open.
type opener struct {
	dsn string

	mu           sync.Mutex
	open, opened int
	err          error // instead of opening
	pid          int32 // of the last session
}

func (o *opener) openSession(ctx context.Context) (driver.Querier, func(), error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, nil, o.err
	}
	conn, err := pgx.Connect(ctx, o.dsn)
	if err != nil {
		return nil, nil, err
	}
	q, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
	if err != nil {
		_ = conn.Close(ctx)
		return nil, nil, err
	}
	o.open++
	o.opened++
	o.pid = int32(conn.PgConn().PID())
	return q, func() {
		_ = conn.Close(context.Background())
		o.mu.Lock()
		defer o.mu.Unlock()
		o.open--
	}, nil
}

func (o *opener) wants(t *testing.T, open, opened int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open != open || o.opened != opened {
		t.Errorf("%d sessions are open of %d, want %d of %d", o.open, o.opened, open, opened)
	}
}

// A feed of snapshots shows who waits, and goes on after its session was terminated.
func TestSnapshots(t *testing.T) {
	dsn := pgtest.Database(t)
	observer := sessiontest.Connect(t, dsn, "")
	holder, waiter := sessiontest.Open(t, dsn, "holder"), sessiontest.Open(t, dsn, "waiter")
	holder.Do("CREATE TABLE orders (id int)", "BEGIN", "LOCK TABLE orders")
	waiter.Background("TABLE orders")
	waiter.AwaitWait(observer)

	o := &opener{dsn: dsn}
	source := feed.NewSource(o.openSession)
	locks := feed.New(source.Snapshot, 10*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), sessiontest.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- locks.Run(ctx) }()

	blocked := func(after int64) int64 {
		t.Helper()
		for frame, err := locks.Next(ctx, after); ; frame, err = locks.Next(ctx, frame.Sequence) {
			if err != nil {
				t.Fatal(err)
			}
			if frame.Err != nil {
				if frame.Value != nil {
					t.Error("a value besides an error")
				}
				continue
			}
			if frame.Cost <= 0 || frame.Sequence > 1 && frame.Pause < 19*frame.Cost {
				t.Errorf("cost %v, pause %v", frame.Cost, frame.Pause)
			}
			for _, p := range frame.Value.Pairs {
				if p.PID == waiter.PID && p.Blocking.PID == holder.PID {
					return frame.Sequence
				}
			}
			t.Fatalf("nobody waits in %+v", frame.Value.Pairs)
		}
	}
	last := blocked(0)
	o.wants(t, 1, 1)
	if _, err := observer.Exec(ctx, "SELECT pg_terminate_backend($1)", o.pid); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := locks.Next(ctx, last)
		if err != nil {
			t.Fatal(err)
		}
		if last = frame.Sequence; frame.Err != nil {
			break
		}
	}
	blocked(last)
	o.wants(t, 1, 2)
	cancel()
	<-done
	source.Close()
	o.wants(t, 0, 2)
	if _, err := source.Do(t.Context(), nil); err == nil {
		t.Error("a closed source is used")
	}
}

// The session survives a wrong filter, and no other error. A use waits for the one before,
// as long as its ctx allows.
func TestSource(t *testing.T) {
	o := &opener{dsn: pgtest.Database(t)}
	source := feed.NewSource(o.openSession)
	defer source.Close()
	use := func(f func(context.Context, driver.Querier) error) error {
		_, err := source.Do(t.Context(), f)
		return err
	}
	if err := use(func(context.Context, driver.Querier) error { return nil }); err != nil {
		t.Fatal(err)
	}
	err := use(func(ctx context.Context, q driver.Querier) error {
		_, err := inspect.Locks(ctx, q, inspect.On("missing"))
		return err
	})
	if !errors.Is(err, inspect.ErrFilter) {
		t.Fatal(err)
	}
	o.wants(t, 1, 1)
	broken := errors.New("broken")
	if err := use(func(context.Context, driver.Querier) error { return broken }); err != broken {
		t.Fatal(err)
	}
	o.wants(t, 0, 1)
	o.err = errors.New("no server")
	if err := use(nil); err != o.err {
		t.Error(err)
	}
	o.err = nil
	err = use(func(context.Context, driver.Querier) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := source.Do(ctx, func(context.Context, driver.Querier) error {
			t.Error("two uses at once")
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a source in use: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	o.wants(t, 1, 2)
}
