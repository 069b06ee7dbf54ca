package prioritize_test

import (
	"testing"
	"time"

	"github.com/pglock-go/pglock/prioritize"
)

func TestTerminateIdleInTransaction(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	began := time.Now()
	s.must(me.run("ALTER TABLE t ADD COLUMN w int", prioritize.After(300*time.Millisecond), prioritize.Terminate(), log.option()))
	took := time.Since(began)
	t.Log("took", took)
	idle.wantAlive(false)
	log.want(prioritize.Terminated, idle.pid, 1)
}
