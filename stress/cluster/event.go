//go:build unix

package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// An event is something that happens to the primary.
type event struct {
	name string
	// act does it to the primary n. It returns when it has happened.
	act func(ctx context.Context, r *running, n *node) error
	// kill is true if the primary had no chance to send what it had written.
	kill bool
	// down is true if the node must be started again.
	down bool
}

// lag is how long the primary has sent nothing to its standbys when it is killed.
const lag = time.Second

// events returns all events.
func events() []event {
	return []event{
		{
			name: "switchover",
			act:  func(ctx context.Context, r *running, n *node) error { return r.cluster.switchover(ctx, n) },
		},
		{
			name: "kill -9 of Postgres",
			act:  func(_ context.Context, _ *running, n *node) error { return n.killPostgres() },
			kill: true,
		},
		{
			name: "kill -9 of the node",
			act:  func(_ context.Context, _ *running, n *node) error { return n.process.Kill() },
			kill: true, down: true,
		},
		{
			name: fmt.Sprintf("kill -9 of the node, cut off for %v", lag),
			act: func(ctx context.Context, r *running, n *node) error {
				if err := n.stopSending(ctx); err != nil {
					return err
				}
				if err := sleep(ctx, lag*3/4); err != nil {
					return err
				}
				// From now on, leases are held that no standby has heard of.
				if err := r.sendAll("hold"); err != nil {
					return err
				}
				if err := sleep(ctx, lag/4); err != nil {
					return err
				}
				return n.process.Kill()
			},
			kill: true, down: true,
		},
	}
}

// stopSending stops the processes that send the WAL to the standbys. It lasts until the
// node is killed.
func (n *node) stopSending(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, n.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_catalog.pg_stat_replication")
	if err != nil {
		return err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("%s sends to no standby", n.name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	return nil
}

// dsn returns the connection string that leads to this node.
func (n *node) dsn() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable connect_timeout=5", loopback, n.port)
}
