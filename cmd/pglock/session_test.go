//go:build unix

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts open sessions that hold locks or wait for them. The NAME of a session is its
// application_name, and $NAME its PID.

// A scripted is a session of a script.
type scripted struct {
	conn *pgx.Conn
	pid  uint32
	busy chan struct{} // closed when its waiting statement has ended
}

type sessionsKey struct{}

// sessionCommands returns the script commands for sessions.
func sessionCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"session": sessionDoes,
		"waits":   sessionWaits,
		"ended":   sessionEnded,
		"rests":   sessionRests,
	}
}

func prepareSessions(env *testscript.Env) {
	sessions := map[string]*scripted{}
	env.Values[sessionsKey{}] = sessions
	env.Defer(func() {
		for _, s := range sessions {
			if s.busy != nil { // its statement would block closing it
				ctx, cancel := context.WithTimeout(context.Background(), bound)
				_ = s.conn.PgConn().CancelRequest(ctx)
				cancel()
				<-s.busy
			}
			database{s.conn}.close()
		}
	})
}

func scriptSession(ts *testscript.TestScript, name string) *scripted {
	sessions := ts.Value(sessionsKey{}).(map[string]*scripted)
	if s := sessions[name]; s != nil {
		return s
	}
	d, err := connectString(ts.Getenv("CONNSTRING") + " application_name=" + name)
	ts.Check(err)
	s := &scripted{conn: d.conn, pid: d.conn.PgConn().PID()}
	sessions[name] = s
	ts.Setenv(name, fmt.Sprint(s.pid))
	return s
}

// sessionDoes lets a session run SQL, or what is in a file: session NAME SQL|@FILE...
func sessionDoes(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("expected the name of a session")
	}
	s := scriptSession(ts, args[0])
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for _, sql := range args[1:] {
		if file, ok := strings.CutPrefix(sql, "@"); ok {
			sql = ts.ReadFile(file)
		}
		_, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil != neg {
			ts.Fatalf("%s: %s: %v", args[0], sql, err)
		}
	}
}

// sessionWaits lets a session run a statement that waits for a lock: waits NAME SQL
func sessionWaits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("expected the name of a session and a statement")
	}
	s := scriptSession(ts, args[0])
	s.busy = make(chan struct{})
	go func() {
		defer close(s.busy)
		_, _ = s.conn.PgConn().Exec(context.Background(), args[1]).ReadAll()
	}()
	ts.Check(poll(ts, fmt.Sprintf("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %d AND NOT granted)", s.pid), true))
}

// sessionEnded waits until a session is gone. ! ended checks that it exists.
func sessionEnded(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		sql := fmt.Sprintf("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d)", scriptSession(ts, name).pid)
		if !neg {
			ts.Check(poll(ts, sql, false))
			continue
		}
		if there, err := ask(ts, sql); err != nil || !there {
			ts.Fatalf("the session %s is gone (%v)", name, err)
		}
	}
}

// sessionRests waits until the waiting statement of a session has ended.
func sessionRests(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		s := scriptSession(ts, name)
		select {
		case <-s.busy:
			s.busy = nil
		case <-time.After(bound):
			ts.Fatalf("the session %s still waits", name)
		}
	}
}

func ask(ts *testscript.TestScript, sql string) (answer bool, err error) {
	d, err := connectString(ts.Getenv("CONNSTRING"))
	if err != nil {
		return false, err
	}
	defer d.close()
	return answer, d.conn.QueryRow(context.Background(), sql).Scan(&answer)
}

func poll(ts *testscript.TestScript, sql string, want bool) error {
	d, err := connectString(ts.Getenv("CONNSTRING"))
	if err != nil {
		return err
	}
	defer d.close()
	for deadline := time.Now().Add(bound); ; time.Sleep(2 * time.Millisecond) {
		var answer bool
		if err := d.conn.QueryRow(context.Background(), sql).Scan(&answer); err != nil {
			return err
		}
		if answer == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still not %v: %s", want, sql)
		}
	}
}
