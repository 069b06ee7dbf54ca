package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const lsHelp = `Lists the locks of the whole server: who holds them, who waits, and for how long.
Locks that are waited for come first, the longest wait on top. With --blocking there
is a row for each pair of a waiting session and one that blocks it.

The locks that each transaction holds on its own transaction IDs are left out, unless a
session waits for them, or a filter is about type, transactionid or virtualxid.

The output is a table on a terminal, else tab-separated lines under a header. -o json
prints an array of objects and -o csv a table, both with all attributes unless -a
selects some. In tsv, csv and json, durations are in seconds and times as in RFC 3339.

A filter is one argument, FIELD OP VALUE. FIELD is an attribute or context.KEY. OP is
one of = != < <= > >= and, for text, ~ and !~ with a regular expression. There are also
FIELD in (VALUE, ...), not in (...), is null and is not null. All filters must match.

Leases (see pglock leases) are rows of tables. In the format table, without
conditions and --blocking, those of the database follow in a table of their own.

-d NAME,NAME and --all show several databases in one list. One that cannot be read is a
line on stderr, and the exit code is then not 0. No password is prompted for.`

const lsExamples = `  pglock ls
  pglock ls --blocking
  pglock ls --on public.orders
  pglock ls -f 'state in (active, idle in transaction)'
  pglock ls -f granted=false -f 'wait_duration > 5s' -a pid,wait_duration,target,query
  pglock ls --all -f granted=false
  pglock ls -e 4711
  pglock ls -o json | jq '.[] | select(.granted | not)'`

// An lsRequest holds the arguments of pglock ls.
type lsRequest struct {
	listRequest
	schema schemaFlag
}

func (a *app) lsCommand() *cobra.Command {
	var r lsRequest
	cmd := a.listCommand(&r.listRequest, r.draw, &cobra.Command{
		Use:     "ls [FLAG...] [PID...]",
		Short:   "List locks, their holders and their waiters",
		Long:    lsHelp,
		Example: lsExamples,
	}, "show pairs of a waiting session and one that blocks it")
	r.schema.register(cmd.Flags())
	return cmd
}

// draw writes the selected locks or pairs, and the leases, and returns notices for stderr.
func (r *lsRequest) draw(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	notices, err := r.drawLocks(ctx, f, out)
	if err != nil || r.format.Name != "table" || r.format.Expanded || r.blocking || len(r.where) > 0 {
		return notices, err
	}
	// Leases are no locks of the server, so they are a table of their own, which programs do
	// not get.
	var text bytes.Buffer
	leases := leasesRequest{schema: r.schema, limit: r.limit, format: r.format}
	n, more, err := leases.write(ctx, f, &text)
	switch {
	case err != nil && (ctx.Err() != nil || r.schema.set):
		return nil, err
	case err != nil: // the tables may be locked themselves
		return append(notices, "leases are not shown: "+message(err)), nil
	case n > 0:
		fmt.Fprintf(out, "\n%s", text.Bytes())
	}
	return append(notices, more...), nil
}

// drawLocks writes the selected locks or pairs, and returns notices for stderr.
func (r *lsRequest) drawLocks(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	if r.blocking {
		return drawList(ctx, &r.listRequest, f, out, list[inspect.Pair]{
			what:    "pairs",
			read:    r.readPairs,
			owns:    func(s *session, p *inspect.Pair) bool { return s.ownsLock(p.Lock) },
			compare: func(a, b *inspect.Pair) int { return byUrgency(a.Lock, b.Lock) },
			add:     (*render.Table).AddPair,
			of:      func(p *inspect.Pair) []*inspect.Session { return []*inspect.Session{p.Session, p.Blocking} },
		})
	}
	return drawList(ctx, &r.listRequest, f, out, list[inspect.Lock]{
		what:    "locks",
		read:    r.readLocks,
		owns:    (*session).ownsLock,
		compare: byUrgency,
		add:     (*render.Table).AddLock,
		of:      func(l *inspect.Lock) []*inspect.Session { return []*inspect.Session{l.Session} },
	})
}

// readLocks reads the selected locks of a database, of which at most the n most urgent are
// shown.
func (r *lsRequest) readLocks(ctx context.Context, session *session, n int) (rows[inspect.Lock], error) {
	locks, err := inspect.Locks(ctx, session.guarded, r.where...)
	if err != nil {
		return rows[inspect.Lock]{}, err
	}
	locks, omitted, err := r.omitOwnTransactionIDs(ctx, session, locks)
	if err != nil {
		return rows[inspect.Lock]{}, err
	}
	shown := mostUrgent(locks, min(n, len(locks)))
	if !r.format.IsMachine() {
		render.NameKeys(shown, eachLock(locks), r.lockNames)
	}
	if r.newTable().ShowsSchemas() && slices.ContainsFunc(shown, func(l *inspect.Lock) bool { return l.Schema != "" }) {
		if session.schemas, err = session.searchPath(ctx); err != nil {
			return rows[inspect.Lock]{}, err
		}
	}
	return rows[inspect.Lock]{shown, len(locks) - len(shown), omitted}, nil
}

// readPairs reads the selected pairs of a database, of which at most n are shown.
func (r *lsRequest) readPairs(ctx context.Context, session *session, n int) (rows[inspect.Pair], error) {
	pairs, err := inspect.Blocked(ctx, session.guarded, r.where...)
	if err != nil {
		return rows[inspect.Pair]{}, err
	}
	shown := pairs[:min(n, len(pairs))]
	if !r.format.IsMachine() {
		render.NameKeys(slices.Collect(eachLockOfPairs(shown)), eachLockOfPairs(pairs), r.lockNames)
	}
	return rows[inspect.Pair]{pointers(shown), len(pairs) - len(shown), 0}, nil
}

// byUrgency compares two locks by compareUrgency.
func byUrgency(a, b *inspect.Lock) int {
	return compareUrgency(&rankedLock{Lock: a}, &rankedLock{Lock: b})
}

// A transactionID is a transaction ID or a virtual one that is locked.
type transactionID struct {
	xid  uint32
	vxid string
}

// isOwnTransactionID reports whether l is a lock that a transaction holds on its own ID.
func isOwnTransactionID(l inspect.Lock) bool {
	return l.Granted && (l.Type == "virtualxid" || l.Type == "transactionid")
}

// omitOwnTransactionIDs leaves out the locks that transactions hold on their own IDs,
// unless a session waits for them or a filter is about them. It returns the other locks
// and how many it has left out.
func (r *lsRequest) omitOwnTransactionIDs(ctx context.Context, session *session, locks []inspect.Lock) ([]inspect.Lock, int, error) {
	if slices.ContainsFunc(r.filters, isAboutTransactionIDs) || !slices.ContainsFunc(locks, isOwnTransactionID) {
		return locks, 0, nil
	}
	all := locks
	if len(r.where) > 0 { // the waits are not among the selected locks
		var err error
		all, err = inspect.Locks(ctx, session.guarded,
			inspect.Where("granted", "=", "false"), inspect.Where("type", "in", "transactionid", "virtualxid"))
		if err != nil {
			return nil, 0, err
		}
	}
	waitedFor := map[transactionID]bool{}
	for i := range all {
		if l := &all[i]; !l.Granted {
			waitedFor[transactionID{l.TransactionID, l.VirtualXID}] = true
		}
	}
	before := len(locks)
	locks = slices.DeleteFunc(locks, func(l inspect.Lock) bool {
		return isOwnTransactionID(l) && !waitedFor[transactionID{l.TransactionID, l.VirtualXID}]
	})
	return locks, before - len(locks), nil
}

// eachLock yields locks.
func eachLock(locks []inspect.Lock) iter.Seq[*inspect.Lock] {
	return func(yield func(*inspect.Lock) bool) {
		for i := range locks {
			if !yield(&locks[i]) {
				return
			}
		}
	}
}

// eachLockOfPairs yields the awaited and the held locks of pairs. A wait with many
// blockers is in as many pairs, one after the other, and is yielded for the first.
func eachLockOfPairs(pairs []inspect.Pair) iter.Seq[*inspect.Lock] {
	return func(yield func(*inspect.Lock) bool) {
		var wait, held *inspect.Lock
		for _, p := range pairs {
			if p.Lock != wait && !yield(p.Lock) {
				return
			}
			if p.Held != nil && p.Held != held && !yield(p.Held) {
				return
			}
			wait, held = p.Lock, p.Held
		}
	}
}

// A rankedLock is a lock with what orders it.
type rankedLock struct {
	*inspect.Lock
	index  int    // in the list that was read, which orders equal locks
	target string // of the lock, "" until compareUrgency needs it
}

// mostUrgent returns the n most urgent locks, in order. It formats targets only to
// compare locks that are otherwise equal, and keeps no more than 2n at a time.
func mostUrgent(locks []inspect.Lock, n int) []*inspect.Lock {
	if n == 0 {
		return nil
	}
	kept := make([]*rankedLock, 0, min(2*n, len(locks)))
	var last *rankedLock // the least urgent of the n most urgent so far, or nil if there are fewer
	sort := func() {
		slices.SortFunc(kept, compareUrgency)
		kept = kept[:min(n, len(kept))]
	}
	for i := range locks {
		l := rankedLock{Lock: &locks[i], index: i}
		if last != nil && compareUrgency(&l, last) > 0 {
			continue
		}
		accepted := l // a copy, so that only these are allocated
		if kept = append(kept, &accepted); len(kept) == 2*n {
			sort()
			last = kept[n-1]
		}
	}
	sort()
	urgent := make([]*inspect.Lock, len(kept))
	for i := range kept {
		urgent[i] = kept[i].Lock
	}
	return urgent
}

// compareUrgency orders waiting locks first, longest wait on top, and then by how long
// their sessions have been in their state.
func compareUrgency(a, b *rankedLock) int {
	if a.Granted != b.Granted {
		if a.Granted {
			return 1
		}
		return -1
	}
	// One after the other, because a call of cmp.Or computes all of them.
	if c := cmp.Compare(b.WaitDuration, a.WaitDuration); c != 0 {
		return c
	}
	if c := cmp.Compare(b.Duration, a.Duration); c != 0 {
		return c
	}
	if c := cmp.Compare(a.PID, b.PID); c != 0 {
		return c
	}
	if c := cmp.Compare(a.targetText(), b.targetText()); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Mode, b.Mode), cmp.Compare(a.index, b.index))
}

// targetText returns the lock's target, which it formats once.
func (l *rankedLock) targetText() string {
	if l.target == "" {
		l.target = l.Target()
	}
	return l.target
}
