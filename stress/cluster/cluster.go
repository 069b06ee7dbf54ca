//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A Cluster is three Postgres servers under Patroni, which keeps its state in etcd, with
// HAProxy before them and PgBouncer before HAProxy. All of it is in temporary folders and
// ends with this program.
type Cluster struct {
	sync     bool          // synchronous_mode
	failover time.Duration // Patroni's ttl: how long a leader may be silent
	log      io.Writer

	postgres    pgserver.Binaries
	etcd        *pgserver.Process
	etcdPort    int
	nodes       []*node
	haproxy     *pgserver.Process
	haproxyPort int
	// PgBouncer in transaction mode.
	pgbouncer     *pgserver.Process
	pgbouncerPort int
}

// A node is a Patroni with its Postgres.
type node struct {
	name      string
	port, api int
	process   *pgserver.Process // Patroni; its subfolder data has Postgres
}

// A programs has the programs of a cluster.
type programs struct {
	postgres                          pgserver.Binaries
	etcd, patroni, haproxy, pgbouncer pgserver.Program
}

// A missingError lists what a cluster needs and the machine does not have.
type missingError struct{ what []string }

func (e *missingError) Error() string {
	return "no cluster without " + strings.Join(e.what, "; ")
}

// findPrograms finds the programs, on the machine or in Debian's packages, which it
// unpacks and does not install: that would start services. The error is a
// [*missingError] if some are missing.
func findPrograms(ctx context.Context, log io.Writer) (*programs, error) {
	o, err := pgserver.FromEnv()
	if err != nil {
		return nil, err
	}
	o.Log = log
	p := new(programs)
	var missing []string
	if p.postgres, err = pgserver.Find(ctx, o); err != nil {
		missing = append(missing, err.Error())
	}
	for _, name := range []string{"pg_basebackup", "pg_rewind", "pg_controldata", "pg_isready"} {
		if _, err := os.Stat(filepath.Join(p.postgres.Dir, name)); p.postgres.Dir != "" && err != nil {
			missing = append(missing, fmt.Sprintf("%s in %s: install Debian's postgresql", name, p.postgres.Dir))
		}
	}
	for name, program := range map[string]*pgserver.Program{
		"etcd": &p.etcd, "patroni": &p.patroni, "haproxy": &p.haproxy, "pgbouncer": &p.pgbouncer,
	} {
		if *program, err = pgserver.FindProgram(ctx, name, log); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		return nil, &missingError{missing}
	}
	return p, nil
}

// start starts a cluster, and returns when it is whole and HAProxy and PgBouncer lead to
// the primary. ctx covers only the start.
func start(ctx context.Context, p *programs, sync bool, failover time.Duration, log io.Writer) (_ *Cluster, err error) {
	c := &Cluster{sync: sync, failover: failover, log: log, postgres: p.postgres}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	for _, port := range []*int{&c.etcdPort, &c.haproxyPort, &c.pgbouncerPort} {
		if *port, err = pgserver.FreePort(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.startEtcd(ctx, p.etcd); err != nil {
		return nil, err
	}
	for i := range 3 {
		n := &node{name: fmt.Sprintf("pg%d", i+1)}
		for _, port := range []*int{&n.port, &n.api} {
			if *port, err = pgserver.FreePort(ctx); err != nil {
				return nil, err
			}
		}
		c.nodes = append(c.nodes, n)
	}
	patroni := p.patroni.With(p.postgres.Env...)
	for i, n := range c.nodes {
		n.process, err = patroni.Start(ctx, func(folder string) (map[string]string, []string) {
			return map[string]string{"patroni.yml": c.patroniConfig(n, folder)}, []string{folder + "/patroni.yml"}
		})
		if err != nil {
			return nil, err
		}
		if i > 0 {
			continue
		}
		// The others copy the first.
		if err := c.await(ctx, "the first node", func(ctx context.Context) (bool, error) { return c.leader(ctx) == n, nil }); err != nil {
			return nil, err
		}
	}
	c.haproxy, err = p.haproxy.Start(ctx, func(folder string) (map[string]string, []string) {
		return map[string]string{"haproxy.cfg": c.haproxyConfig()}, []string{"-db", "-f", folder + "/haproxy.cfg"}
	})
	if err != nil {
		return nil, err
	}
	c.pgbouncer, err = p.pgbouncer.Start(ctx, func(folder string) (map[string]string, []string) {
		return map[string]string{"pgbouncer.ini": c.pgbouncerConfig(folder), "users": `"postgres" ""` + "\n"}, []string{folder + "/pgbouncer.ini"}
	})
	if err != nil {
		return nil, err
	}
	if err := c.awaitWhole(ctx); err != nil {
		return nil, err
	}
	return c, c.await(ctx, "HAProxy and PgBouncer", func(ctx context.Context) (bool, error) {
		conn, err := pgx.Connect(ctx, c.pooledDSN())
		if err != nil {
			return false, err
		}
		return true, conn.Close(ctx)
	})
}

func (c *Cluster) startEtcd(ctx context.Context, program pgserver.Program) error {
	peer, err := pgserver.FreePort(ctx)
	if err != nil {
		return err
	}
	c.etcd, err = program.Start(ctx, func(folder string) (map[string]string, []string) {
		client, peer := "http://"+address(c.etcdPort), "http://"+address(peer)
		return nil, []string{
			"--data-dir", folder + "/data", "--log-level", "error", "--logger", "zap",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		}
	})
	return err
}

// Stop ends the cluster and removes its folders.
func (c *Cluster) Stop() error {
	processes := []*pgserver.Process{c.pgbouncer, c.haproxy}
	var errs []error
	for _, n := range c.nodes {
		if n.process != nil {
			// Patroni would wait for its Postgres, and nobody needs the data.
			errs = append(errs, n.process.Kill())
			processes = append(processes, n.process)
		}
	}
	for _, p := range append(processes, c.etcd) {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	return errors.Join(errs...)
}

// node returns the node with a name, or nil.
func (c *Cluster) node(name string) *node {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// postmaster returns the PID of the Postgres server of a node.
func (n *node) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(n.process.Folder(), "data/postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(line)
}

// killPostgres kills the Postgres server of a node with SIGKILL. Its Patroni goes on.
func (n *node) killPostgres() error {
	pid, err := n.postmaster()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// dsn returns the connection string that leads to the primary through HAProxy.
func (c *Cluster) dsn() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable connect_timeout=5", loopback, c.haproxyPort)
}

// pooledDSN returns the connection string that leads there through PgBouncer.
func (c *Cluster) pooledDSN() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable connect_timeout=5", loopback, c.pgbouncerPort)
}

// logs returns the end of each node's log.
func (c *Cluster) logs() string {
	var b strings.Builder
	for _, n := range c.nodes {
		if n.process != nil {
			fmt.Fprintf(&b, "\n%s:\n%s", n.name, logEnd(n.process))
		}
	}
	return b.String()
}

// logEnd returns the last lines of a process's log.
func logEnd(p *pgserver.Process) string {
	lines := strings.Split(strings.TrimSpace(p.Logs()), "\n")
	return strings.Join(lines[max(len(lines)-20, 0):], "\n")
}

// keepPgBouncer starts PgBouncer again when it has ended, as a service manager does: that of
// Debian 12 crashes now and then if servers end while it cancels their statements
// (pgbouncer#822). The function that it returns ends that, and returns how often it was
// necessary.
func (c *Cluster) keepPgBouncer() (stop func() (crashes int)) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan int)
	go func() {
		crashes := 0
		for sleep(ctx, 200*time.Millisecond) == nil {
			if !c.pgbouncer.Running() && c.pgbouncer.Restart() == nil {
				crashes++
			}
		}
		result <- crashes
	}()
	return func() int {
		cancel()
		return <-result
	}
}

// ended returns an error if another of the programs beside the nodes has ended by itself.
func (c *Cluster) ended() error {
	for name, p := range map[string]*pgserver.Process{"etcd": c.etcd, "HAProxy": c.haproxy} {
		if !p.Running() {
			return fmt.Errorf("%s has ended by itself; the end of its log:\n%s", name, logEnd(p))
		}
	}
	return nil
}
