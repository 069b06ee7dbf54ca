//go:build unix

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

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
		worker := n.pick(r)
		f := fault{Name: "replies lost", Begin: now(), Worker: n.processes[worker].config.Name}
		if err := n.proxies[worker].Deafen(); err != nil {
			return err
		}
		err := sleep(ctx, between(r, 20*time.Millisecond, 150*time.Millisecond))
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

// stepClock does to sessions what a step of the database's clock does to all: they expire
// early, or have been ended by a process that found that. Their holders do not know before
// the next renewal.
func (n *nemesis) stepClock(ctx context.Context, r *rand.Rand) error {
	for range 2 {
		admin, err := n.admin(ctx)
		if err != nil {
			return err
		}
		until := "until - interval '1 day'"
		if r.IntN(3) == 0 {
			until = "'-infinity'"
		}
		f := fault{Name: "clock stepped", Begin: now()}
		f.Untold = f.Begin
		rows, err := admin.Query(ctx, fmt.Sprintf(`
			UPDATE pglock.session SET until = %s WHERE until > clock_timestamp() AND ($1 OR random() < 0.6) RETURNING pid`,
			until), r.IntN(3) == 0)
		if err != nil {
			return err
		}
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		f.End = now()
		for _, p := range n.processes {
			for _, pid := range pids {
				if pid == p.cmd.Process.Pid {
					f.Worker = p.config.Name
					n.record(f)
					f.Part = true
				}
			}
		}
		if err := sleep(ctx, between(r, n.heartbeat/2, n.heartbeat/4)); err != nil {
			return err
		}
	}
	return nil
}
