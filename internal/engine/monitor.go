package engine

import (
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// monitorInterval is the time between two checks whether other sessions wait for one of
// our waiting statements. After a slow check the pause is monitorPause times as long as the
// check, but at most monitorMost: the next check and the cancel that follows it must come
// before Postgres' deadlock_timeout, 1 s by default, or CREATE INDEX CONCURRENTLY fails.
const (
	monitorInterval = 300 * time.Millisecond
	monitorMost     = 500 * time.Millisecond
	monitorPause    = 20
)

// longWaits returns the sessions in long waits by PID.
func (e *Engine) longWaits() map[int32]*session {
	long := make(map[int32]*session)
	for _, s := range e.sessions {
		if s.waiting != nil && s.waitEnd.Sub(s.waitStart) > e.config.Slice {
			long[s.pid] = s
		}
	}
	return long
}

// A monitor checks from another session whether any session waits for one of our long
// waits to end.
type monitor struct {
	engine  *Engine
	running bool // a check is running or scheduled; guarded by Engine.mu
}

// start starts the checks. They go on until no long wait is left.
func (m *monitor) start() {
	if !m.running {
		m.running = true
		m.schedule(monitorInterval)
	}
}

// schedule schedules a check.
func (m *monitor) schedule(pause time.Duration) {
	e := m.engine
	time.AfterFunc(pause, func() {
		e.mu.Lock()
		defer e.unlockMu()
		long := e.longWaits()
		if e.closed || len(long) == 0 {
			m.running = false
			return
		}
		if s := e.idleSession(nil); s != nil {
			s.push(op{kind: opMonitor})
			return
		}
		// No session is free to check, so the waits start again as short ones.
		for _, s := range long {
			s.cut = cutForTurn
			s.waiting.interruptWait()
		}
		m.schedule(pause)
	})
}

// done handles the end of a check, and schedules the next one.
func (m *monitor) done(pause time.Duration) {
	if m.engine.closed || len(m.engine.longWaits()) == 0 {
		m.running = false
		return
	}
	m.schedule(pause)
}

// runMonitor checks whether other sessions wait for one of our waiting statements to end,
// and ends those waits. It also closes sessions whose backends are gone.
func (s *session) runMonitor() error {
	e := s.engine
	e.mu.Lock()
	long := e.longWaits()
	e.mu.Unlock()
	var pids []string
	for pid := range long {
		pids = append(pids, strconv.Itoa(int(pid)))
	}
	began := time.Now()
	var reply string
	if len(pids) > 0 {
		var err error
		reply, err = s.queryText(e.config.Heartbeat/2, awaitedSQL, "{"+strings.Join(pids, ",")+"}")
		if err != nil && sqlstate.Of(err) == "" {
			return err
		}
	}
	took := time.Since(began)
	each := func(pids string, f func(waiting *session)) {
		for text := range strings.SplitSeq(pids, ",") {
			pid, _ := strconv.Atoi(text)
			if waiting := long[int32(pid)]; waiting != nil && waiting.waiting != nil {
				f(waiting)
			}
		}
	}
	return s.finish(func() {
		stuck, gone, _ := strings.Cut(reply, ";")
		each(stuck, func(waiting *session) {
			waiting.cut = cutAwaited
			waiting.waiting.interruptWait()
		})
		each(gone, (*session).kill)
		e.monitor.done(min(max(monitorInterval, monitorPause*took), monitorMost))
	})
}
