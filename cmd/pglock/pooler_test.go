//go:build unix

package main

import (
	"strings"
	"testing"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// Through a pooler a lock could vanish, so pglock run refuses; looking is fine.
func TestPooler(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bouncer := pgbouncer.Start(t, pgtest.Server(t), pgbouncer.Transaction)
	t.Cleanup(func() { bouncer.Stop(t) })
	dsn := bouncer.ConnString(s.name)

	c := s.start(t, "-d", dsn, "run", "x", "--", "echo", "ran")
	c.want(1)
	if line, ok := <-c.output; ok {
		t.Errorf("the command ran: %s", line)
	}
	oneLine(t, c.errors())
	if e := c.errors(); !strings.Contains(e, "pooler") {
		t.Errorf("stderr: %s", e)
	}
	s.start(t, "-d", dsn, "ls").want(0)
}
