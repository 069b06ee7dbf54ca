package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// A kind is a driver and how it connects to Postgres.
type kind struct {
	name   string
	source func(dsn string) driver.Source
	listen bool // is notified at once when its session ends
}

func drivers() []kind {
	return []kind{
		{"pgx", func(dsn string) driver.Source { return pgxlock.ConnString(dsn) }, true},
		{"database/sql, pgx", func(dsn string) driver.Source { return sqllock.ConnString("pgx", dsn) }, true},
		{"database/sql, lib/pq", func(dsn string) driver.Source { return sqllock.ConnString("postgres", dsn) }, false},
	}
}

// A holder holds a lock on its own session.
type holder struct {
	notified chan time.Time // when its ctx was canceled because the lock was lost
	ended    chan error     // the result of Do
	locker   *pglock.Locker
}

// hold acquires a lock and returns when it is held. ctx bounds the wait.
func hold(ctx context.Context, source driver.Source, key int64, heartbeat time.Duration) (*holder, error) {
	locker, err := pglock.New(source, pglock.Heartbeat(heartbeat))
	if err != nil {
		return nil, err
	}
	h := &holder{notified: make(chan time.Time, 1), ended: make(chan error, 1), locker: locker}
	held := make(chan struct{})
	go func() {
		h.ended <- locker.Do(ctx, pglock.Int(key), func(inside context.Context) error {
			close(held)
			<-inside.Done()
			if errors.Is(context.Cause(inside), pglock.ErrLost) {
				h.notified <- time.Now()
			}
			return nil
		})
	}()
	select {
	case <-held:
		return h, nil
	case err := <-h.ended:
		locker.Close()
		return nil, fmt.Errorf("the lock was not acquired: %w", err)
	}
}

// loss waits until the holder is notified of the loss, and returns the time.
func (h *holder) loss(ctx context.Context) (time.Time, error) {
	select {
	case err := <-h.ended:
		if len(h.notified) == 0 || !errors.Is(err, pglock.ErrLost) {
			return time.Time{}, fmt.Errorf("the holder was not notified: %w", err)
		}
		return <-h.notified, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("the holder was not notified: %w", context.Cause(ctx))
	}
}

// close ends the holder, if it still holds.
func (h *holder) close() { h.locker.Close() }

// A waiter is another session that waits for the lock in Postgres.
type waiter struct {
	conn *pgx.Conn
	free chan time.Time // when it was granted
	err  error          // why it was not granted; set before free is closed
}

// await starts a session that waits for the lock, and returns once it waits. ctx bounds
// the whole wait.
func await(ctx context.Context, dsn string, key int64) (*waiter, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	w := &waiter{conn: conn, free: make(chan time.Time, 1)}
	pid := conn.PgConn().PID()
	go func() {
		defer close(w.free)
		if _, w.err = conn.Exec(ctx, "SELECT pg_advisory_lock($1)", key); w.err == nil {
			w.free <- time.Now()
		}
	}()
	err = until(ctx, dsn, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND locktype = 'advisory' AND NOT granted)", pid)
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *waiter) granted() (time.Time, error) {
	at, ok := <-w.free
	if !ok {
		return at, fmt.Errorf("the lock was not granted: %w", w.err)
	}
	return at, nil
}

func (w *waiter) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w.conn.PgConn().Conn().Close() // even while a statement runs
	for range w.free {
	}
	w.conn.Close(ctx)
}

// until repeats a query until it returns true.
func until(ctx context.Context, dsn, question string, args ...any) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		var yes bool
		if err := conn.QueryRow(ctx, question, args...).Scan(&yes); err != nil {
			return fmt.Errorf("%s: %w", question, err)
		}
		if yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", question, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}
