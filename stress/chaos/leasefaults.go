//go:build unix

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaseHolder returns the first worker among some that holds a lease. If there is none for a
// while, it returns the first one.
func (n *nemesis) leaseHolder(ctx context.Context, among []int) (int, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		admin, err := n.admin(ctx)
		if err != nil {
			return 0, err
		}
		rows, err := admin.Query(ctx, `
			SELECT s.pid FROM pglock.lease l JOIN pglock.session s ON s.id = l.owner
			WHERE s.until > clock_timestamp()`)
		if err != nil {
			return 0, err
		}
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return 0, err
		}
		for _, i := range among {
			if slices.Contains(pids, n.processes[i].cmd.Process.Pid) {
				return i, nil
			}
		}
		if time.Now().After(deadline) {
			return among[0], nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// restartPooler stops the pooler and starts it again, with the same address.
func (n *nemesis) restartPooler(ctx context.Context, r *rand.Rand) error {
	f := fault{Name: "pooler restarted", Begin: now()}
	if err := n.pooler.Close(); err != nil {
		return err
	}
	if err := sleep(ctx, between(r, 0, 200*time.Millisecond)); err != nil {
		return err
	}
	err := n.startPooler(ctx)
	f.End = now()
	n.record(f)
	return err
}

// loseReplies drops what the server sends to a worker: its statements take effect, but it
// never learns that.
func (n *nemesis) loseReplies(ctx context.Context, r *rand.Rand) error {
	for range 3 + r.IntN(3) {
		worker, err := n.pick(ctx, r)
		if err != nil {
			return err
		}
		f := fault{Name: "replies lost", Begin: now(), Worker: n.processes[worker].config.Name}
		if err := n.proxies[worker].Deafen(); err != nil {
			return err
		}
		err = sleep(ctx, between(r, 20*time.Millisecond, 150*time.Millisecond))
		n.proxies[worker].Heal()
		f.End = now()
		n.record(f)
		if err != nil {
			return err
		}
		if err := sleep(ctx, between(r, 100*time.Millisecond, 200*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// stopBackends stops backends of workers for so long that these send their statements
// again in other sessions. Then the first ones run, too. A backend may have been stopped
// while others had to wait for it, so that affects all.
func (n *nemesis) stopBackends(ctx context.Context, r *rand.Rand) error {
	all, err := n.backends(ctx, "w")
	if err != nil {
		return err
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	f := fault{Name: "backends stopped (SIGSTOP)", Begin: now()}
	for _, b := range all[:min(3, len(all))] {
		if err := syscall.Kill(int(b.pid), syscall.SIGSTOP); err != nil {
			continue // it has ended
		}
		defer func() { _ = syscall.Kill(int(b.pid), syscall.SIGCONT) }()
	}
	err = sleep(ctx, between(r, n.heartbeat*18/100, n.heartbeat/25))
	f.End = now()
	n.record(f)
	return err
}

// stepClock does to the sessions of workers what a step of the database's clock does: they
// expire early, or have been ended by a process that found that. Their holders do not know before
// the next renewal.
func (n *nemesis) stepClock(ctx context.Context, r *rand.Rand) error {
	for range 2 {
		if err := sleep(ctx, between(r, n.heartbeat/5, n.heartbeat/5)); err != nil {
			return err
		}
		admin, err := n.admin(ctx)
		if err != nil {
			return err
		}
		until := "until - interval '1 day'"
		if r.IntN(3) == 0 {
			until = "'-infinity'"
		}
		chosen := r.Perm(len(n.processes))[:1+r.IntN(len(n.processes))]
		pids := []int{}
		for _, i := range chosen {
			pids = append(pids, n.processes[i].cmd.Process.Pid)
		}
		f := fault{Name: "clock stepped", Begin: now()}
		f.Untold = f.Begin
		_, err = admin.Exec(ctx, fmt.Sprintf(`
			UPDATE pglock.session SET until = %s WHERE until > clock_timestamp() AND pid = ANY ($1)`, until), pids)
		if err != nil {
			return err
		}
		f.End = now()
		for _, i := range chosen {
			f.Worker = n.processes[i].config.Name
			n.record(f)
			f.Part = true
		}
		if err := sleep(ctx, between(r, n.heartbeat/5, n.heartbeat/5)); err != nil {
			return err
		}
	}
	return nil
}
