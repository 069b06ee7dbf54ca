//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// show runs a cluster until ctx ends, for somebody to try. It prints how, and reports when
// the primary changes. A Patroni that ends is started again, as a service manager would
// do, but only when there is another primary.
func show(ctx context.Context, p *programs, sync bool, failover time.Duration, out io.Writer) (err error) {
	l := load{Sync: sync}
	fmt.Fprintf(out, "Starting three Postgres servers with Patroni, etcd, HAProxy and PgBouncer, %s replication ...\n", l.replication())
	c, err := start(ctx, p, sync, failover, out)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(out, "Stopping ...")
		if stopErr := c.Stop(); err == nil {
			err = stopErr
		}
	}()
	members, err := c.members(ctx)
	if err != nil {
		return err
	}
	fmt.Fprint(out, c.guide(members))
	stopKeeping := c.keepPgBouncer()
	defer stopKeeping()
	primary := c.leader(ctx)
	since := time.Now()
	for sleep(ctx, 500*time.Millisecond) == nil {
		now := c.leader(ctx)
		switch {
		case now == nil || now == primary:
		default:
			fmt.Fprintf(out, "%s  The primary is %s now.\n", time.Now().Format(time.TimeOnly), now.name)
			primary, since = now, time.Now()
		}
		for _, n := range c.nodes {
			if now == nil || n == now || time.Since(since) < 5*time.Second || n.process.Running() {
				continue
			}
			fmt.Fprintf(out, "%s  Starting %s again.\n", time.Now().Format(time.TimeOnly), n.name)
			if err := n.process.Restart(); err != nil {
				return err
			}
		}
	}
	return nil
}

// guide returns how to try the cluster.
func (c *Cluster) guide(members []member) string {
	var b strings.Builder
	b.WriteString("\n")
	for _, m := range members {
		n := c.node(m.Name)
		fmt.Fprintf(&b, "  %s  %-12s  Postgres %s  Patroni http://%s  log %s/log\n", m.Name, m.Role, address(n.port), address(n.api), n.process.Folder())
	}
	fmt.Fprintf(&b, `
Connect to the primary, through HAProxy, or through PgBouncer in transaction mode:

  psql '%s'
  psql '%s'

Hold a lock while things happen (make build):

  bin/pglock -d '%[1]s' run job -- sleep 600
  bin/pglock -d '%[1]s' ls

See the members, and switch over from one that is the primary:

`, c.dsn(), c.pooledDSN())
	fmt.Fprintf(&b, "  curl -s http://%s/cluster\n", address(c.nodes[0].api))
	for _, n := range c.nodes {
		fmt.Fprintf(&b, "  curl -s -X POST -d '{\"leader\":\"%s\"}' http://%s/switchover\n", n.name, address(n.api))
	}
	b.WriteString("\nKill Postgres, which Patroni then starts again, or its whole node, whose place a standby takes:\n\n")
	for _, n := range c.nodes {
		pid := fmt.Sprintf("$(head -1 %s/data/postmaster.pid)", n.process.Folder())
		fmt.Fprintf(&b, "  kill -9 %s       # Postgres of %s\n", pid, n.name)
		fmt.Fprintf(&b, "  kill -9 %d %s  # %s\n", n.process.PID(), pid, n.name)
	}
	b.WriteString("\nA node that was killed is started again when there is another primary. Ctrl-C ends everything.\n\n")
	return b.String()
}
