//go:build unix

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
)

// bound is how long a test waits for an expected event.
const bound = time.Minute

// A database is a session that observes the command.
type database struct{ conn *pgx.Conn }

func connectString(connString string) (database, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	conn, err := pgx.Connect(ctx, connString)
	return database{conn}, err
}

// connectTo opens a session that is closed at the end of the test.
func connectTo(t *testing.T, connString string) database {
	t.Helper()
	d, err := connectString(connString)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func (d database) close() {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	_ = d.conn.Close(ctx)
}

func (d database) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := d.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// locks returns the PIDs of the backends that hold the lock of key or wait for it,
// depending on condition.
func (d database) locks(key pglock.Key, condition string) ([]int32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	classid, objid, objsubid := key.PgLocks()
	rows, err := d.conn.Query(ctx, `SELECT pid FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND classid = $1 AND objid = $2 AND objsubid = $3 AND `+condition, classid, objid, objsubid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// awaitLock waits until a session holds the lock of key or waits for it, depending on
// condition, or until none does if want is false.
func (d database) awaitLock(key pglock.Key, condition string, want bool) error {
	deadline := time.Now().Add(bound)
	for {
		pids, err := d.locks(key, condition)
		if err != nil {
			return err
		}
		if len(pids) > 0 == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lock %s: %s is still not %v", key, condition, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// holder waits until the lock of name is held, and returns the PID of its holder.
func (d database) holder(t *testing.T, name string) int32 {
	t.Helper()
	key := pglock.Name(name)
	if err := d.awaitLock(key, "granted", true); err != nil {
		t.Fatal(err)
	}
	pids, err := d.locks(key, "granted")
	if err != nil || len(pids) != 1 {
		t.Fatalf("holders of %s: %v, %v", name, pids, err)
	}
	return pids[0]
}

// eventually waits until condition is true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", bound, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// lines splits text into lines.
func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// terminate ends the sessions of an application.
func (d database) terminate(application string) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	_, err := d.conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, application)
	return err
}
