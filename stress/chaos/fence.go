//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
)

// Holders of leases write to a table in transactions that the lease fences. Each write has
// the number of its commit among those of the same lease: it comes from a row that stays
// locked until then. So the tokens must grow with the numbers.
const logTables = `
	CREATE SCHEMA chaos;
	CREATE TABLE chaos.counter (name text PRIMARY KEY, writes bigint NOT NULL);
	CREATE TABLE chaos.log (name text, number bigint, token bigint NOT NULL, worker text NOT NULL, op bigint NOT NULL,
		PRIMARY KEY (name, number));`

const writeSQL = `
	WITH counted AS (
		INSERT INTO chaos.counter AS c VALUES (CAST($1 AS text), 1)
		ON CONFLICT (name) DO UPDATE SET writes = c.writes + 1 RETURNING name, writes
	)
	INSERT INTO chaos.log SELECT name, writes, CAST($2 AS bigint), CAST($3 AS text), CAST($4 AS bigint) FROM counted`

// A fencedWrite is a transaction that is fenced by the lease of an operation.
type fencedWrite struct {
	stall  time.Duration // for which the transaction stays open
	before bool          // it does so before it writes, not before it commits
	early  bool          // the lease is released without waiting for it

	done chan struct{} // closed when it is over; nil if it did not begin
}

// newFencedWrite returns a random write for an operation, or nil. Some stay open for longer
// than leases last.
func newFencedWrite(r *rand.Rand, ttl time.Duration) *fencedWrite {
	if r.IntN(3) == 0 {
		return nil
	}
	w := &fencedWrite{before: r.IntN(2) == 0, early: r.IntN(4) == 0}
	switch n := r.IntN(50); {
	case n < 5:
		w.stall = between(r, ttl, ttl/2)
	case n < 13:
		w.stall = between(r, 50*time.Millisecond, 300*time.Millisecond)
	}
	return w
}

// start begins the write, and returns a channel that is closed when the lease may be
// released: nil if it may be released at once.
func (w *fencedWrite) start(a *attempt, lock *pglock.Lock) <-chan struct{} {
	if w == nil || lock == nil {
		return nil
	}
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		o, err := w.run(a, lock)
		e := event{Time: now(), Kind: evWrote, Op: a.op, Outcome: o}
		if err != nil {
			e.Text = err.Error()
		}
		a.rec.write(e)
	}()
	if w.early {
		return nil
	}
	return w.done
}

// wait waits until the write is over.
func (w *fencedWrite) wait() {
	if w != nil && w.done != nil {
		<-w.done
	}
}

// run runs the transaction. It goes on if the lease is lost meanwhile.
func (w *fencedWrite) run(a *attempt, lock *pglock.Lock) (outcome, error) {
	stall := func() {
		select {
		case <-time.After(w.stall):
		case <-a.hurry:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout/2)
	defer cancel()
	tx, err := a.adapter.db.Begin(ctx)
	if err != nil {
		return outBroken, fmt.Errorf("begin: %w", err)
	}
	// If the rollback fails, the connection is gone anyway.
	defer func() { _ = tx.Rollback(context.Background()) }()
	if err := pglock.Fence(ctx, tx.Conn, lock); err != nil {
		switch {
		case errors.Is(err, pglock.ErrLost):
			return outLost, err
		case errors.Is(err, pglock.ErrNotHeld) && w.early:
			return outHeld, err
		}
		return outBroken, fmt.Errorf("fence: %w", err)
	}
	a.rec.write(event{Time: now(), Kind: evFenced, Op: a.op})
	if w.before {
		stall()
	}
	// A commit must not be lost if the server is killed.
	if err = tx.Conn.Exec(ctx, `SET LOCAL synchronous_commit = on`); err == nil {
		err = tx.Conn.Exec(ctx, writeSQL, a.nameOf(lock.Keys()[0]), lock.Token(), a.config.Name, a.op)
	}
	if err != nil {
		return outBroken, fmt.Errorf("write: %w", err)
	}
	if !w.before {
		stall()
	}
	a.rec.write(event{Time: now(), Kind: evCommit, Op: a.op})
	if err := tx.Commit(ctx); err != nil {
		return outUnconfirmed, fmt.Errorf("commit: %w", err)
	}
	return outOK, nil
}

// A logged is a write that was committed.
type logged struct {
	Name   string `json:"name"`
	Number int64  `json:"number"`
	Token  int64  `json:"token"`
	Worker string `json:"worker"`
	Op     int64  `json:"op"`
}

// readLog returns the committed writes, in the order in which those of each lease were
// committed.
func (r *round) readLog(ctx context.Context) ([]logged, error) {
	admin, err := r.admin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := admin.Query(ctx, `SELECT name, number, token, worker, op FROM chaos.log ORDER BY name, number`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[logged])
}
