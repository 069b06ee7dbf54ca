//go:build unix

package main

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/stress/chaos"
)

// A beat writes to the database through HAProxy, again and again, to learn when there is a
// primary. It says what the cluster does, whatever pglock does.
type beat struct {
	stop func()

	mu      sync.Mutex // guards success
	success [][2]int64 // begin and end of each write, in the time of a history
}

const beatEvery = 50 * time.Millisecond

func startBeat(dsn string) *beat {
	ctx, cancel := context.WithCancel(context.Background())
	b := new(beat)
	ended := make(chan struct{})
	b.stop = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		var conn *pgx.Conn
		for sleep(ctx, beatEvery) == nil {
			conn = b.once(ctx, dsn, conn)
		}
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	return b
}

// once writes once, on conn unless that is nil. It returns the connection for the next
// write.
func (b *beat) once(ctx context.Context, dsn string, conn *pgx.Conn) *pgx.Conn {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	began := chaos.Now()
	if conn == nil {
		var err error
		if conn, err = pgx.Connect(ctx, dsn+" application_name=beat"); err != nil {
			return nil
		}
	}
	if _, err := conn.Exec(ctx, "UPDATE beat SET at = pg_catalog.now()"); err != nil {
		_ = conn.Close(ctx)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.success = append(b.success, [2]int64{began, chaos.Now()})
	return conn
}

// since reports whether a write succeeded that began after t.
func (b *beat) since(t int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.success) > 0 && b.success[len(b.success)-1][0] > t
}

// times returns when writes succeeded.
func (b *beat) times() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	times := make([]int64, len(b.success))
	for i, s := range b.success {
		times[i] = s[1]
	}
	return times
}
