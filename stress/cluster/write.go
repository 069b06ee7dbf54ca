//go:build unix

package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/chaos"
)

// Holders of leases write to a table, and so do some that have lost theirs, as a program
// would that does not notice it. Every write has the token of its lease. Each row is
// written in one way:
type way string

const (
	// After Fence in the same transaction.
	byFence way = "fence"
	// Only if no newer token has been written, as in another store.
	byCondition way = "condition"
	// Without a check. It shows that there are late writes, and that they are found.
	unchecked way = "unchecked"
)

func ways() []way { return []way{byFence, byCondition, unchecked} }

// tables creates the tables of the writes.
//
//go:embed tables.sql
var tables string

// A write is a line of a worker's file of writes.
type write struct {
	Number    int64  `json:"n"` // within the worker
	Key       string `json:"key"`
	Way       way    `json:"way"`
	Token     int64  `json:"token"`
	Late      bool   `json:"late,omitempty"` // the writer had lost the lease
	Requested int64  `json:"begin"`          // the time of a history
	Ended     int64  `json:"end"`
	Result    result `json:"result"`
}

// A result says how a write ended.
type result string

const (
	written result = "written" // committed
	refused result = "refused" // by the check
	failed  result = "failed"  // by an error; it may have been committed
)

// A writer writes with the token of a lease and records that.
type writer struct {
	worker string
	pool   *pgxpool.Pool
	number atomic.Int64

	mu   sync.Mutex // serializes lines; guards err
	file *os.File
	err  error
}

func writesFile(dir, worker string) string { return filepath.Join(dir, worker+".writes.jsonl") }

func newWriter(dir, worker string, pool *pgxpool.Pool) (*writer, error) {
	file, err := os.Create(writesFile(dir, worker))
	if err != nil {
		return nil, err
	}
	return &writer{worker: worker, pool: pool, file: file}, nil
}

func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.file.Close())
}

// readWrites reads the file of a worker.
func readWrites(dir, worker string) (all []write, err error) {
	file, err := os.Open(writesFile(dir, worker))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var w write
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file.Name(), lines.Text(), err)
		}
		all = append(all, w)
	}
	return all, lines.Err()
}

// write makes one write and records it. The error is a broken promise.
func (w *writer) write(lock *pglock.Lock, key string, way way, late bool) (result, error) {
	r := write{Number: w.number.Add(1), Key: key, Way: way, Token: lock.Token(), Late: late, Requested: chaos.Now()}
	var wrong error
	r.Result, wrong = w.try(lock, r)
	r.Ended = chaos.Now()
	line, err := json.Marshal(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		_, err = w.file.Write(append(line, '\n'))
	}
	w.err = errors.Join(w.err, err)
	return r.Result, wrong
}

// try makes a write in a transaction.
func (w *writer) try(lock *pglock.Lock, r write) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return failed, nil
	}
	defer tx.Rollback(context.Background()) // fails after Commit
	if r.Way == byFence {
		switch err := pglock.Fence(ctx, pgxlock.Tx(tx), lock); {
		case errors.Is(err, pglock.ErrLost), errors.Is(err, pglock.ErrNotHeld):
			return refused, nil
		case err != nil:
			return failed, nil
		}
	}
	newest, err := change(ctx, tx, r)
	if err != nil {
		return failed, nil
	}
	if !newest {
		if r.Way == byFence {
			return refused, fmt.Errorf("the fence let token %d write to %s after a newer one", r.Token, r.Key)
		}
		return refused, nil
	}
	const log = "INSERT INTO written (key, way, token, worker, number) VALUES ($1, $2, $3, $4, $5)"
	if _, err := tx.Exec(ctx, log, r.Key, string(r.Way), r.Token, w.worker, r.Number); err != nil {
		return failed, nil
	}
	if err := tx.Commit(ctx); err != nil {
		return failed, nil
	}
	return written, nil
}

// change changes the row of a write, and reports whether it did. It does not if a newer
// token has been written, except without a check. The row stays locked until the
// transaction ends, so the order of the log is that of the changes.
func change(ctx context.Context, tx pgx.Tx, r write) (bool, error) {
	tag, err := tx.Exec(ctx, "UPDATE guarded SET token = $3, writes = writes + 1 WHERE key = $1 AND way = $2 AND (token <= $3 OR $4)",
		r.Key, string(r.Way), r.Token, r.Way == unchecked)
	return tag.RowsAffected() == 1, err
}

// How often a holder writes, and for how long one that has lost its lease goes on.
const (
	writeEvery = 100 * time.Millisecond
	lateEvery  = 250 * time.Millisecond
	lateFor    = 90 * time.Second
	maxLate    = 2 // at the same time, for each worker
)

// startWriting writes with a lease again and again. The function that it returns ends
// that. If the lease is lost, some writers go on. Advisory locks have no token.
func (w *worker) startWriting(lock *pglock.Lock, key string, op int64) (stop func(lost bool)) {
	if w.TTL == 0 {
		return func(bool) {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.writeUntil(end, lock, key, op, writeEvery, false)
	}()
	return func(lost bool) {
		close(end)
		<-ended
		if !lost {
			return
		}
		select {
		case w.lateSlots <- struct{}{}:
			w.late.Go(func() {
				w.writeLate(lock, key, op)
				<-w.lateSlots
			})
		default:
		}
	}
}

// writeLate goes on to write with a lease that was lost, until the workers rest.
func (w *worker) writeLate(lock *pglock.Lock, key string, op int64) {
	end := make(chan struct{})
	go func() {
		defer close(end)
		for began := time.Now(); time.Since(began) < lateFor && !w.resting.Load(); {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	w.writeUntil(end, lock, key, op, lateEvery, true)
}

// writeUntil writes in each way in turn, until end is closed.
func (w *worker) writeUntil(end <-chan struct{}, lock *pglock.Lock, key string, op int64, every time.Duration, late bool) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if _, wrong := w.writer.write(lock, key, ways()[n%len(ways())], late); wrong != nil {
			w.history.Wrong(op, "%v", wrong)
		}
		select {
		case <-end:
			return
		case <-ticker.C:
		}
	}
}
