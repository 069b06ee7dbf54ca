//go:build unix

package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// The configuration files of the cluster. Everything listens on the loopback interface
// and trusts every user of the machine.

const loopback = "127.0.0.1"

func address(port int) string { return loopback + ":" + strconv.Itoa(port) }

// patroniConfig returns Patroni's file for a node. The part under bootstrap is read only
// by the first node of a cluster.
func (c *Cluster) patroniConfig(n *node, folder string) string {
	return fmt.Sprintf(`scope: pglock
name: %[1]s
restapi:
  listen: %[2]s
  connect_address: %[2]s
etcd3:
  host: %[3]s
bootstrap:
  dcs:
    ttl: %[4]d
    loop_wait: %[5]d
    retry_timeout: %[5]d
    maximum_lag_on_failover: 1048576
    synchronous_mode: %[6]t
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 100
        dynamic_shared_memory_type: mmap
        shared_buffers: 32MB
        timezone: GMT
        log_timezone: GMT
  initdb:
    - encoding: UTF8
    - locale: C
    - auth: trust
    - no-sync
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
postgresql:
  listen: %[7]s
  connect_address: %[7]s
  data_dir: %[8]s/data
  bin_dir: %[9]s
  pgpass: %[8]s/pgpass
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator}
  parameters:
    unix_socket_directories: %[8]s
  basebackup:
    - checkpoint: fast
    - no-sync
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
watchdog:
  mode: 'off'
`, n.name, address(n.api), address(c.etcdPort), int(c.failover.Seconds()), max(int(c.failover.Seconds())/3, 1),
		c.sync, address(n.port), folder, c.postgres.Dir)
}

// haproxyConfig returns HAProxy's file, as Patroni's documentation has it, except that it
// looks for the primary each second. HAProxy ends the sessions on a node that is no longer
// the primary.
func (c *Cluster) haproxyConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, `defaults
    mode tcp
    retries 2
    timeout connect 4s
    timeout client 30m
    timeout server 30m
    timeout check 5s
listen primary
    bind %s
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 1s fall 3 rise 2 on-marked-down shutdown-sessions
`, address(c.haproxyPort))
	for _, n := range c.nodes {
		fmt.Fprintf(&b, "    server %s %s maxconn 100 check port %d\n", n.name, address(n.port), n.api)
	}
	return b.String()
}

// pgbouncerConfig returns the file of PgBouncer, which stands before HAProxy.
func (c *Cluster) pgbouncerConfig(folder string) string {
	return fmt.Sprintf(`[databases]
* = host=%[1]s port=%[2]d
[pgbouncer]
pool_mode = transaction
listen_addr = %[1]s
listen_port = %[3]d
auth_type = trust
auth_file = %[4]s
unix_socket_dir =
max_client_conn = 500
default_pool_size = 20
server_login_retry = 1
`, loopback, c.haproxyPort, c.pgbouncerPort, filepath.Join(folder, "users"))
}
