package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pglock-go/pglock"
)

// A Snapshot is one picture of the locks of a server: each lock, and who blocks
// whom. Its parts are read within a moment of each other, but not in the same
// one, for Postgres offers no such thing: a session may be in one part and gone
// from another.
type Snapshot struct {
	Server Server
	Locks  []Lock // each row of pg_locks, but those that the reading takes
	Pairs  []Pair // who blocks whom
}

// Take takes a picture of all locks. ctx covers the reading, as for [Locks].
//
// pg_blocking_pids is asked once for each session that waits, and for no other.
func Take(ctx context.Context, q pglock.Querier) (*Snapshot, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	r, err := read(ctx, q, snapshotSQL, nil)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading the locks: %w", err)
	}
	r.blocking = nil
	pairs := r.pairs()
	order(r.locks)
	return &Snapshot{Server: r.server, Locks: r.locks, Pairs: pairs}, nil
}

// Locks are the locks of the server that all filters match, those that are waited
// for first, the longest wait before the others. Without a filter they are all
// rows of pg_locks, of all types, databases and sessions, prepared transactions
// and sessions that ended meanwhile included; only what this very reading takes
// is left out.
//
// ctx covers the reading. Without a deadline it gets one of 30 seconds; when it
// ends, the driver asks the server to end the statement. A filter that is wrong
// is an error, before anything is asked.
func Locks(ctx context.Context, q pglock.Querier, filters ...Filter) ([]Lock, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var r *reading
	var err error
	if len(filters) == 0 {
		var sql string
		if sql, err = withoutEdges(snapshotSQL); err == nil {
			r, err = read(ctx, q, sql, nil)
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

// withoutEdges returns template, which is snapshot.sql, without who blocks whom.
func withoutEdges(template string) (string, error) {
	return fill(template, marker{begin: "true -- edges", text: "false"})
}

// order puts waits first, the longest before the others, and leaves the rest as
// it is: the locks of one session together.
func order(locks []Lock) {
	// There are many locks and few waits, so only those are moved.
	var waits []Lock
	kept := len(locks)
	for i := len(locks) - 1; i >= 0; i-- {
		if locks[i].Granted {
			kept--
			locks[kept] = locks[i]
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
