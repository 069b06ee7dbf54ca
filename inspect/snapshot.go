package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/pglock-go/pglock/driver"
)

// A Snapshot is the state of all locks of a server and the pairs of waiters and
// blockers. Its parts are read within a moment of each other, but not atomically,
// since Postgres does not offer that: a session may be in one part and gone from
// another.
type Snapshot struct {
	Server Server
	Locks  []Lock // all rows of pg_locks, except those of the read itself
	Pairs  []Pair // waiters and their blockers
}

// ReadSnapshot reads a snapshot of all locks. ctx covers the reading, as for [Locks].
//
// pg_blocking_pids is called once for each waiting session, and for no other; the
// blockers in long queues are computed, as in [Blocked].
func ReadSnapshot(ctx context.Context, q driver.Querier) (*Snapshot, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	r, err := readEdges(ctx, q, snapshotSQL, map[string]string{}, crowd)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading the locks: %w", err)
	}
	r.blocking = nil
	pairs := r.pairs()
	order(r.locks)
	return &Snapshot{Server: r.server, Locks: r.locks, Pairs: pairs}, nil
}

// Locks returns the locks of the server that match all filters, those that are waited
// for first, the longest wait before the others. Without a filter it returns all rows
// of pg_locks, of all types, databases and sessions, including those of prepared
// transactions and of sessions that have ended meanwhile, but not those of the read
// itself.
//
// ctx covers the reading. If it has no deadline, the limit is 30 seconds. When ctx
// ends, the driver asks the server to cancel the statement. An invalid filter is an
// error before anything is read.
func Locks(ctx context.Context, q driver.Querier, filters ...Filter) ([]Lock, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	var r *reading
	var err error
	if len(filters) == 0 {
		var sql string
		if sql, err = withoutEdges(snapshotSQL); err == nil {
			r, err = read(ctx, q, sql, map[string]string{"crowd": strconv.Itoa(noCrowd)})
		}
	} else {
		r, err = readMatching(ctx, q, false, filters)
	}
	if err != nil {
		return nil, fmt.Errorf("inspect: reading the locks: %w", err)
	}
	order(r.locks)
	return r.locks, nil
}

// withoutEdges returns template, which is snapshot.sql, without the blockers.
func withoutEdges(template string) (string, error) {
	return fill(template, marker{begin: "true -- edges", text: "false"})
}

// order moves the waits to the front, the longest first, and keeps the order of the
// rest: the locks of one session are together.
func order(locks []Lock) {
	// There are many locks and few waits, so only the waits are moved.
	var waits []Lock
	kept := len(locks)
	for i := len(locks) - 1; i >= 0; i-- {
		if locks[i].Granted {
			if kept--; kept != i {
				locks[kept] = locks[i]
			}
		} else {
			waits = append(waits, locks[i])
		}
	}
	slices.SortFunc(waits, func(a, b Lock) int { return compareWaits(&a, &b) })
	copy(locks, waits)
}

// compareWaits orders waits: the longest first.
func compareWaits(a, b *Lock) int {
	return cmp.Or(cmp.Compare(b.WaitDuration, a.WaitDuration), cmp.Compare(a.PID, b.PID))
}
