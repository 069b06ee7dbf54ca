//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A kind is a kind of fault. act causes the fault and returns after it is over.
type kind struct {
	name string
	act  func(*nemesis, context.Context, *rand.Rand) error
	of   string // ofLocks or ofLeases if it is only for advisory locks or leases
}

const (
	ofLocks  = "locks"
	ofLeases = "leases"
)

// kinds returns all kinds of faults, in the order of a deterministic round.
func kinds() []kind {
	return []kind{
		{"none", (*nemesis).nothing, ""},
		{"backend terminated", (*nemesis).terminate, ""},
		{"server stopped, fast", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.stop(ctx, r, "server stopped, fast", func() error { return n.server.Shutdown(ctx, pgserver.Fast) })
		}, ""},
		{"server stopped, immediately", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.stop(ctx, r, "server stopped, immediately", func() error { return n.server.Shutdown(ctx, pgserver.Immediate) })
		}, ""},
		{"server killed (-9)", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.stop(ctx, r, "server killed (-9)", n.server.Kill)
		}, ""},
		{"pooler restarted", (*nemesis).restartPooler, ofLeases},
		{"connections cut", (*nemesis).cut, ""},
		{"replies lost", (*nemesis).loseReplies, ofLeases},
		{"backends stopped (SIGSTOP)", (*nemesis).stopBackends, ofLeases},
		{"network slow", (*nemesis).slow, ""},
		{"black hole, longer than the heartbeat", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.blackHole(ctx, r, "black hole, longer than the heartbeat", 3*n.heartbeat/2, n.heartbeat)
		}, ofLocks},
		{"black hole, shorter than half of it", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.blackHole(ctx, r, "black hole, shorter than half of it", n.heartbeat/8, n.heartbeat/4)
		}, ofLocks},
		{"black hole, longer than the TTL", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.blackHole(ctx, r, "black hole, longer than the TTL", n.heartbeat*11/10, n.heartbeat/4)
		}, ofLeases},
		{"black hole, a fifth of it", func(n *nemesis, ctx context.Context, r *rand.Rand) error {
			return n.blackHole(ctx, r, "black hole, a fifth of it", n.heartbeat*18/100, n.heartbeat/25)
		}, ofLeases},
		{"process killed (-9)", (*nemesis).killWorker, ""},
		{"process paused (SIGSTOP)", (*nemesis).pause, ""},
		{"process paused, its backends terminated", (*nemesis).pauseAndTerminate, ofLocks},
		{"clock stepped", (*nemesis).stepClock, ofLeases},
		{"connections used up", (*nemesis).useUpConnections, ""},
		{"lock table full", (*nemesis).fillLockTable, ""},
	}
}

// KindNames returns the names of all kinds of faults, in the order of a deterministic
// round.
func KindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// A nemesis causes faults and records them.
type nemesis struct {
	*round
	faults []fault
}

func (n *nemesis) record(f fault) { n.faults = append(n.faults, f) }

// pick returns the index of a random worker, or of the one to detect. If there are leases, it
// holds some.
func (n *nemesis) pick(ctx context.Context, r *rand.Rand) (int, error) {
	among := r.Perm(len(n.processes))
	if n.broken == ignoring {
		among = []int{brokenWorker}
	}
	if n.Leases != 0 {
		return n.leaseHolder(ctx, among)
	}
	return among[0], nil
}

// between returns a random time from least to least+spread.
func between(r *rand.Rand, least, spread time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(spread)+1))
}

// sleep waits for d. It returns the cause if ctx is done before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (n *nemesis) nothing(ctx context.Context, r *rand.Rand) error {
	f := fault{Name: "none", Begin: now()}
	err := sleep(ctx, between(r, 500*time.Millisecond, 300*time.Millisecond))
	f.End = now()
	n.record(f)
	return err
}

// A backend is a session of a worker.
type backend struct {
	pid    int32
	worker string
}

// backends returns the sessions of the workers whose names begin with worker, those that
// hold locks first.
func (n *nemesis) backends(ctx context.Context, worker string) ([]backend, error) {
	admin, err := n.admin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := admin.Query(ctx, `
		SELECT a.pid, a.application_name FROM pg_stat_activity a
		WHERE a.backend_type = 'client backend' AND a.application_name LIKE $1
		ORDER BY NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted), a.pid`,
		applicationPrefix+worker+"%")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (b backend, err error) {
		err = row.Scan(&b.pid, &b.worker)
		b.worker = strings.TrimPrefix(b.worker, applicationPrefix)
		return b, err
	})
}

// end terminates a backend and waits until it is gone.
func (n *nemesis) end(ctx context.Context, b backend, f fault) error {
	admin, err := n.admin(ctx)
	if err != nil {
		return err
	}
	f.Begin, f.Worker, f.PID = now(), b.worker, b.pid
	f.Ends = f.Begin
	var had bool
	if err := admin.QueryRow(ctx, `SELECT pg_terminate_backend($1)`, b.pid).Scan(&had); err != nil {
		return err
	}
	for there := true; there; {
		if err := admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2)`,
			b.pid, applicationPrefix+b.worker).Scan(&there); err != nil {
			return err
		}
	}
	f.End = now()
	if had {
		n.record(f)
	}
	return nil
}

func (n *nemesis) terminate(ctx context.Context, r *rand.Rand) error {
	whose := "w"
	if n.broken != "" {
		whose += fmt.Sprint(brokenWorker) // the worker to detect
	}
	for range 4 + r.IntN(8) {
		all, err := n.backends(ctx, whose)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			// The first ones hold locks.
			b := all[min(r.IntN(len(all)), r.IntN(len(all)))]
			if err := n.end(ctx, b, fault{Name: "backend terminated"}); err != nil {
				return err
			}
		}
		if err := sleep(ctx, between(r, 10*time.Millisecond, 100*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

func (n *nemesis) stop(ctx context.Context, r *rand.Rand, name string, stop func() error) error {
	f := fault{Name: name, Begin: now()}
	f.Ends = f.Begin
	if err := stop(); err != nil {
		return err
	}
	if err := sleep(ctx, between(r, 0, 300*time.Millisecond)); err != nil {
		return err
	}
	if err := n.server.Restart(ctx); err != nil {
		return err
	}
	f.End = now()
	n.record(f)
	return nil
}

func (n *nemesis) cut(ctx context.Context, r *rand.Rand) error {
	for range 2 + r.IntN(3) {
		worker, err := n.pick(ctx, r)
		if err != nil {
			return err
		}
		if err := n.cutOff(worker, "connections cut", false); err != nil {
			return err
		}
		if err := sleep(ctx, between(r, 50*time.Millisecond, 150*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

func (n *nemesis) cutOff(worker int, name string, part bool) error {
	f := fault{Name: name, Begin: now(), Worker: n.processes[worker].config.Name, Part: part}
	f.Ends = f.Begin
	err := n.proxies[worker].Cut()
	f.End = now()
	n.record(f)
	return err
}

func (n *nemesis) slow(ctx context.Context, r *rand.Rand) error {
	worker, err := n.pick(ctx, r)
	if err != nil {
		return err
	}
	f := fault{Name: "network slow", Begin: now(), Worker: n.processes[worker].config.Name}
	most := n.heartbeat / 8
	if n.Leases != 0 {
		most = n.Leases / 25 // an attempt to renew lasts for a sixth
	}
	latency := between(r, 20*time.Millisecond, most)
	if err := n.proxies[worker].Slow(latency, latency/2); err != nil {
		return err
	}
	err = sleep(ctx, between(r, 500*time.Millisecond, time.Second))
	n.proxies[worker].Heal()
	f.End = now()
	n.record(f)
	return err
}

// blackHole drops all traffic between a worker and the server. When it ends, it closes
// the connections that are still open.
func (n *nemesis) blackHole(ctx context.Context, r *rand.Rand, name string, least, spread time.Duration) error {
	worker, err := n.pick(ctx, r)
	if err != nil {
		return err
	}
	f := fault{Name: name, Begin: now(), Worker: n.processes[worker].config.Name}
	if err := n.proxies[worker].BlackHole(); err != nil {
		return err
	}
	err = sleep(ctx, between(r, least, spread))
	f.Ends = now()
	n.proxies[worker].Heal()
	f.End = now()
	n.record(f)
	return err
}

func (n *nemesis) killWorker(ctx context.Context, r *rand.Rand) error {
	worker, err := n.pick(ctx, r)
	if err != nil {
		return err
	}
	p := n.processes[worker]
	f := fault{Name: "process killed (-9)", Begin: now(), Worker: p.config.Name}
	if err := p.kill(); err != nil {
		return err
	}
	n.lives = append(n.lives, life{p.config.Name, p.killed})
	f.End = now()
	n.record(f)
	if err := sleep(ctx, between(r, 0, 200*time.Millisecond)); err != nil {
		return err
	}
	return n.start(worker)
}

func (n *nemesis) pause(ctx context.Context, r *rand.Rand) error {
	return n.paused(ctx, r, "process paused (SIGSTOP)", func(backend) error { return nil })
}

// pauseAndTerminate ends the sessions of a stopped worker, which cannot notice.
func (n *nemesis) pauseAndTerminate(ctx context.Context, r *rand.Rand) error {
	const name = "process paused, its backends terminated"
	return n.paused(ctx, r, name, func(b backend) error { return n.end(ctx, b, fault{Name: name, Part: true}) })
}

// paused stops a worker for longer than its heartbeat, and calls each for each of its
// backends during that time.
func (n *nemesis) paused(ctx context.Context, r *rand.Rand, name string, each func(backend) error) error {
	worker, err := n.pick(ctx, r)
	if err != nil {
		return err
	}
	p := n.processes[worker]
	at := len(n.faults)
	n.record(fault{Name: name, Begin: now(), Untold: now(), Worker: p.config.Name})
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err = func() error {
		all, err := n.backends(ctx, p.config.Name)
		if err != nil {
			return err
		}
		for _, b := range all {
			if err := each(b); err != nil {
				return err
			}
		}
		return sleep(ctx, between(r, 9*n.heartbeat/8, n.heartbeat/4))
	}()
	err = errors.Join(err, p.signal(syscall.SIGCONT))
	n.faults[at].Asleep = now()
	n.faults[at].End = n.faults[at].Asleep
	return err
}

// useUpConnections opens all connections that the server allows, including those that
// it takes from a worker.
func (n *nemesis) useUpConnections(ctx context.Context, r *rand.Rand) error {
	if _, err := n.admin(ctx); err != nil { // before none is left
		return err
	}
	f := fault{Name: "connections used up", Begin: now()}
	var mine []*pgx.Conn
	fill := func() error {
		for {
			conn, err := pgx.Connect(ctx, n.server.ConnString("postgres")+" application_name=chaos-nemesis")
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) && pgErr.Code == "53300" {
				return nil
			}
			if err != nil {
				return err
			}
			mine = append(mine, conn)
		}
	}
	defer func() {
		for _, conn := range mine {
			conn.Close(context.Background())
		}
		f.End = now()
		n.record(f)
	}()
	if err := fill(); err != nil {
		return err
	}
	worker, err := n.pick(ctx, r)
	if err != nil {
		return err
	}
	if err := n.cutOff(worker, "connections used up", true); err != nil {
		return err
	}
	for range 10 {
		if err := fill(); err != nil {
			return err
		}
		if err := sleep(ctx, between(r, 20*time.Millisecond, 50*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// fillLockTable acquires locks until the server's lock table is full.
func (n *nemesis) fillLockTable(ctx context.Context, r *rand.Rand) error {
	f := fault{Name: "lock table full", Begin: now()}
	conn, err := pgx.Connect(ctx, n.server.ConnString("postgres")+" application_name=chaos-nemesis")
	if err != nil {
		return err
	}
	defer func() {
		conn.Close(context.Background())
		f.End = now()
		n.record(f)
	}()
	const many = 10_000
	base := 0
	fill := func() error {
		base += many // locks that it already holds would be granted again
		_, err := conn.Exec(ctx, `SELECT count(pg_advisory_lock(n)) FROM generate_series($1::int, $1 + $2::int) n`, base, many)
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code == "53200" {
			return nil // it keeps the locks that it acquired
		}
		return fmt.Errorf("the lock table did not become full: %w", err)
	}
	// Also acquire what others release in the meantime.
	for range 10 {
		if err := fill(); err != nil {
			return err
		}
		if err := sleep(ctx, between(r, 20*time.Millisecond, 50*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}
