package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// Common pitfalls of Postgres locks that no other test covers. docs/advisory.md has the
// whole list.

const guide = "docs/advisory.md"

// Every test named in the guide exists, and each of its pitfalls is covered.
func TestGuideNamesTests(t *testing.T) {
	text, err := os.ReadFile(guide)
	must(t, err)
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Example|Benchmark)\w*)\(`)
	goFiles(t, func(path string) {
		source, err := os.ReadFile(path)
		must(t, err)
		for _, match := range declared.FindAllSubmatch(source, -1) {
			there[string(match[1])] = true
		}
	})
	named := 0
	for _, match := range regexp.MustCompile("`((?:Test|Example|Benchmark)[A-Z_]\\w*)`").FindAllStringSubmatch(string(text), -1) {
		named++
		if !there[match[1]] {
			t.Errorf("test %s does not exist", match[1])
		}
	}
	if named < 39 {
		t.Errorf("only %d tests are named", named)
	}
	for n := 1; n <= 39; n++ {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| .+ \| .+ \|$`, n)).Match(text) {
			t.Errorf("pitfall %d is not covered", n)
		}
	}
}

// The guide's code comes from examples, which are executed.
func TestGuideIsRun(t *testing.T) {
	text, err := os.ReadFile(guide)
	must(t, err)
	paths, err := filepath.Glob("example_*_test.go")
	must(t, err)
	var run strings.Builder
	for _, path := range paths {
		source, err := os.ReadFile(path)
		must(t, err)
		run.WriteString(plain(string(source)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Error("the guide has no code")
	}
	for _, block := range blocks {
		if code := plain(block[1]); !strings.Contains(run.String(), code) {
			t.Errorf("no example has this code of the guide:\n%s", block[1])
		}
	}
}

// plain returns code without indentation and empty lines.
func plain(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// The lock is released although ctx, which canceled the work, is done.
func TestUnlockAfterContext(t *testing.T) { everySource(t, testUnlockAfterContext) }

func testUnlockAfterContext(t *testing.T, d *db) {
	locker := d.locker()
	key := pglock.Name("job")
	ctx, cancel := context.WithCancel(t.Context())
	err := locker.Do(ctx, key, func(ctx context.Context) error {
		cancel()
		return ctx.Err()
	})
	wantErr(t, err, context.Canceled)
	if errors.Is(err, pglock.ErrUnconfirmed) || errors.Is(err, pglock.ErrLost) {
		t.Error(err)
	}
	d.wantAvailable(key, true)
	if s := locker.Stats(); s.Held != 0 || s.Sessions != 1 || s.Lost != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// A wait that ends at the moment of the grant, by ctx, Wait or the slice, neither keeps
// the lock nor affects the session's next statement.
func TestGivingUpAtTheMomentOfTheGrant(t *testing.T) {
	everySource(t, testGivingUpAtTheMomentOfTheGrant)
}

func testGivingUpAtTheMomentOfTheGrant(t *testing.T, d *db) {
	key := pglock.Name("hot")
	var wg sync.WaitGroup
	for range 2 {
		locker := d.locker(engine.Slice(10*time.Millisecond), engine.HandOver(0), pglock.Sessions(3))
		for g := range 3 {
			wg.Go(func() {
				for n := range 25 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*time.Millisecond)
					opts := []pglock.LockOption{pglock.Wait(time.Duration(1+(n+g)%4) * time.Millisecond)}
					held, err := locker.Lock(ctx, key, opts...)
					cancel()
					if err == nil {
						time.Sleep(time.Millisecond) // work, which makes the others wait
						err = held.Unlock()
					}
					// The time limit may expire before Postgres can reply.
					if err != nil && !errors.Is(err, pglock.ErrNotAcquired) && !errors.Is(err, pglock.ErrUnavailable) {
						t.Error(err)
					}
					other, err := locker.TryLock(t.Context(), pglock.Int(int64(100*g+n)))
					if err == nil {
						err = other.Unlock()
					}
					if err != nil && !errors.Is(err, pglock.ErrNotAcquired) { // the other Locker's goroutine uses the same keys
						t.Errorf("the next statement: %v", err)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are held without a handle", n)
	}
}

// A waiter delays no other caller: neither those who unlock nor those who take other
// locks on the same Locker.
func TestWaitingDelaysNobody(t *testing.T) { everySource(t, testWaitingDelaysNobody) }

func testWaitingDelaysNobody(t *testing.T, d *db) {
	other, locker := d.locker(), d.locker(engine.Slice(time.Hour))
	theirs := []*pglock.Lock{lock(t, other, pglock.Int(1)), lock(t, other, pglock.Int(2)), lock(t, other, pglock.Int(3))}
	mine := lock(t, locker, pglock.Name("mine"))
	var got []<-chan locking
	for _, lock := range theirs {
		key := lock.Keys()[0]
		got = append(got, start(locker, context.Background(), key))
		d.untilWaiting(1, key)
	}
	for range 10 {
		must(t, lock(t, locker, pglock.Name("more")).Unlock())
	}
	must(t, mine.Unlock())
	d.wantAvailable(pglock.Name("mine"), true)
	d.untilWaiting(1, pglock.Int(1)) // it still waits
	for i, lock := range theirs {
		must(t, lock.Unlock())
		now := <-got[i]
		must(t, now.err)
		must(t, now.lock.Unlock())
	}
}

// A long wait consists of many short ones in Postgres, none of which delays VACUUM for
// long.
func TestWaitingPinsNothingForLong(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	other, locker := d.locker(), d.locker(engine.Slice(50*time.Millisecond))
	key := pglock.Name("job")
	held := lock(t, other, key)
	got := start(locker, context.Background(), key)
	pid := d.waiterPID(key, 0)
	var began time.Time
	d.scan(&began, `SELECT xact_start FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL
		UNION ALL SELECT now() LIMIT 1`, pid)
	d.until(`SELECT xact_start > $2::timestamptz + '100ms' FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL
		UNION ALL SELECT false LIMIT 1`, pid, began)
	must(t, held.Unlock())
	now := <-got
	must(t, now.err)
	// A held lock does not delay VACUUM at all.
	d.until(`SELECT backend_xmin IS NULL AND xact_start IS NULL FROM pg_stat_activity WHERE pid = $1`, pid)
	must(t, now.lock.Unlock())
}

// A lock belongs to one database: the same key in another database is another lock.
func TestLocksArePerDatabase(t *testing.T) {
	t.Parallel()
	inThisDatabase, there := newDB(t), newDB(t)
	key := pglock.Name("job")
	held := lock(t, inThisDatabase.locker(), key)
	there.wantAvailable(key, true)
	must(t, lock(t, there.locker(), key).Unlock())
	inThisDatabase.wantAvailable(key, false)
	must(t, held.Unlock())
}

// The server is configured to detect a lost client soon, so that a failed machine does
// not keep its locks for hours.
func TestServerIsToldWhenToGiveUp(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	source := &spySource{Source: source(t, server.TCPConnString("postgres"))}
	locker := newLocker(t, source, pglock.Heartbeat(10*time.Second))
	held := lock(t, locker, pglock.Name("job"))
	// 20 s of silence and three probes, 5 s apart: three and a half heartbeats.
	for name, want := range map[string]string{
		"tcp_keepalives_idle": "20", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
		"tcp_user_timeout": "30000", "client_connection_check_interval": "10s",
		"statement_timeout": "0", "idle_session_timeout": "0", "idle_in_transaction_session_timeout": "0", "transaction_timeout": "0",
		"search_path": "pg_catalog, pg_temp",
	} {
		got, err := source.last.QueryText(t.Context(), `SELECT coalesce(current_setting($1, true), 'unknown')`, name)
		must(t, err)
		if got != want && got != "unknown" {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	must(t, held.Unlock())
}

// A process killed while it waits does not remain in the lock queue.
func TestWaitingProcessKilled(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	key := pglock.Name("job")
	held := lock(t, d.locker(), key)
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run=^TestHolderProcess$")
	cmd.Env = append(os.Environ(), holderEnv+"="+d.dsn)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pid := d.waiterPID(key, 0)
	must(t, cmd.Process.Kill())
	d.until(`SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1`, pid)
	must(t, held.Unlock())
	d.wantAvailable(key, true)
}

// The guarded work runs in the caller's own transaction. If that ends before the unlock,
// the next holder sees the result.
func TestNextHolderSeesTheWork(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE counter AS SELECT 0 AS n`)
	var wg sync.WaitGroup
	for range 2 {
		locker := d.locker()
		for range 3 {
			wg.Go(func() {
				conn, err := pgx.Connect(t.Context(), d.dsn)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close(context.Background())
				for range 20 {
					err := locker.Do(t.Context(), pglock.Name("counter"), func(ctx context.Context) error {
						return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
							var n int
							if err := tx.QueryRow(ctx, `SELECT n FROM counter`).Scan(&n); err != nil {
								return err
							}
							_, err := tx.Exec(ctx, `UPDATE counter SET n = $1`, n+1)
							return err
						})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	var n int
	if d.scan(&n, `SELECT n FROM counter`); n != 120 {
		t.Errorf("counted 120 times, got %d", n)
	}
}
