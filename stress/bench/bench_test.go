package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// Go benchmarks for make bench-compare: pglock alone, on a real server. make bench
// compares it with its peers.

func benchLocker(b *testing.B, dsn string, opts ...pglock.LockerOption) *pglock.Locker {
	locker, err := newLocker(dsn, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := locker.Close(); err != nil {
			b.Error(err)
		}
	})
	// Connect and prepare the statements before measuring.
	for range 10 {
		lockOnce(b, locker, pglock.Int(0))
	}
	return locker
}

func lockOnce(b *testing.B, locker *pglock.Locker, key pglock.Key, opts ...pglock.LockOption) {
	lock, err := locker.Lock(context.Background(), key, opts...)
	if err == nil {
		err = lock.Unlock()
	}
	if err != nil {
		b.Error(err)
	}
}

// share calls do b.N times in total, from the given number of goroutines.
func share(b *testing.B, goroutines int, do func(goroutine, i int)) {
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				do(g, i)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkOwnKeys(b *testing.B) {
	for _, goroutines := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			locker := benchLocker(b, pgtest.Database(b))
			share(b, goroutines, func(g, _ int) { lockOnce(b, locker, pglock.Int(int64(1+g))) })
		})
	}
}

func BenchmarkOneKey(b *testing.B) {
	locker := benchLocker(b, pgtest.Database(b))
	share(b, 16, func(int, int) { lockOnce(b, locker, pglock.Int(1)) })
}

// Two Lockers behave like two processes.
func BenchmarkTwoLockersOneKey(b *testing.B) {
	dsn := pgtest.Database(b)
	lockers := []*pglock.Locker{benchLocker(b, dsn), benchLocker(b, dsn)}
	share(b, 8, func(g, _ int) { lockOnce(b, lockers[g%2], pglock.Int(1)) })
}

func BenchmarkMixed(b *testing.B) {
	locker := benchLocker(b, pgtest.Database(b))
	share(b, 16, func(_, i int) {
		if i%10 == 0 {
			lockOnce(b, locker, pglock.Int(1))
		} else {
			lockOnce(b, locker, pglock.Int(1), pglock.Shared())
		}
	})
}

func BenchmarkDo(b *testing.B) {
	locker := benchLocker(b, pgtest.Database(b))
	share(b, 64, func(g, _ int) {
		if err := locker.Do(context.Background(), pglock.Int(int64(1+g)), func(context.Context) error { return nil }); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkWhileHeld locks and unlocks from one goroutine while the Locker holds many
// locks.
func BenchmarkWhileHeld(b *testing.B) {
	const held = 1000 // fits a server with default settings
	locker := benchLocker(b, pgtest.Database(b))
	keys := make([]pglock.Key, held)
	for i := range keys {
		keys[i] = pglock.Int(int64(1000 + i))
	}
	lock, err := locker.LockAll(b.Context(), keys)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		lockOnce(b, locker, pglock.Int(1))
	}
	if err := lock.Unlock(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadSnapshot10000 reads a full snapshot of 10,000 locks.
func BenchmarkReadSnapshot10000(b *testing.B) {
	server := pgtest.Own(b, pgserver.Options{Settings: map[string]string{"max_locks_per_transaction": "300"}})
	conn, err := pgx.Connect(b.Context(), server.ConnString("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(b.Context(), "SELECT pg_advisory_lock(i) FROM generate_series(1, 10000) AS i"); err != nil {
		b.Fatal(err)
	}
	q := pgxlock.Conn(conn)
	b.ReportAllocs()
	for b.Loop() {
		if s, err := inspect.ReadSnapshot(b.Context(), q); err != nil || len(s.Locks) < 10_000 {
			b.Fatal(len(s.Locks), err)
		}
	}
}
