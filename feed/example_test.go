package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func exampleDatabase() (open feed.OpenFunc, done func()) {
	e := &pgtest.Example{}
	dsn := pgtest.Database(e)
	return func(ctx context.Context) (driver.Querier, func(), error) {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return nil, nil, err
		}
		q, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
		if err != nil {
			_ = conn.Close(ctx)
			return nil, nil, err
		}
		return q, func() { _ = conn.Close(context.Background()) }, nil
	}, e.Done
}

// Watch the locks of a server until something was seen.
func ExampleFeed_Run() {
	ctx, cancel := context.WithCancel(context.Background())
	open, done := exampleDatabase()
	defer done()

	source := feed.NewSource(open)
	defer source.Close()
	locks := feed.New(source.Snapshot, time.Second)
	ended := make(chan error)
	go func() { ended <- locks.Run(ctx) }()

	for frame := range locks.Frames(ctx) {
		if frame.Err != nil {
			log.Println("the server cannot be read:", frame.Err)
			continue
		}
		fmt.Println("reading", frame.Sequence, "has a primary:", !frame.Value.Server.InRecovery)
		break
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// reading 1 has a primary: true
	// context canceled
}

// Wait for a reading that is newer than the last one.
func ExampleFeed_Next() {
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	count := feed.New(func(context.Context) (int, time.Duration, error) { n++; return n, 0, nil }, time.Millisecond)
	go func() { _ = count.Run(ctx) }()

	first, err := count.Next(ctx, 0)
	if err != nil {
		log.Panic(err)
	}
	second, err := count.Next(ctx, first.Sequence)
	fmt.Println(second.Value > first.Value, err)

	cancel()
	_, err = count.Next(context.Background(), 1_000_000)
	fmt.Println(errors.Is(err, feed.ErrEnded))
	// Output:
	// true <nil>
	// true
}

// Each reader of a feed gets the newest frames.
func ExampleFeed_Frames() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clock := feed.New(func(context.Context) (string, time.Duration, error) { return "tick", 0, nil }, time.Millisecond)
	go func() { _ = clock.Run(ctx) }()

	for frame := range clock.Frames(ctx) {
		fmt.Println(frame.Value)
		break
	}
	// Output: tick
}

// Pause a feed, and let it go on.
func ExampleFeed_SetInterval() {
	clock := feed.New(func(context.Context) (string, time.Duration, error) { return "tick", 0, nil }, time.Second)
	clock.SetInterval(0)
	fmt.Println(clock.Interval())
	clock.SetInterval(time.Minute)
	fmt.Println(clock.Interval())
	// Output:
	// 0s
	// 1m0s
}

// Use the session of a feed for something else, such as to end a blocker.
func ExampleSource_Do() {
	ctx := context.Background()
	open, done := exampleDatabase()
	defer done()
	source := feed.NewSource(open)
	defer source.Close()

	_, err := source.Do(ctx, func(ctx context.Context, q driver.Querier) error {
		outcomes, err := inspect.Terminate(ctx, q, nil)
		fmt.Println(len(outcomes), "sessions were ended")
		return err
	})
	fmt.Println(err)
	// Output:
	// 0 sessions were ended
	// <nil>
}

// Read the locks once.
func ExampleSource_Snapshot() {
	ctx := context.Background()
	open, done := exampleDatabase()
	defer done()
	source := feed.NewSource(open)
	defer source.Close()

	snapshot, cost, err := source.Snapshot(ctx)
	fmt.Println(snapshot.Server.Version >= 120000, cost > 0, err)
	// Output: true true <nil>
}
