//go:build unix

package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/pgxlock"
)

// Leases are the counts of a round with leases.
type Leases struct {
	Takes int // operations that acquired leases
	Wrote int // transactions that a lease fenced and that committed
	Ended int // sessions that others ended
}

func (l Leases) String() string {
	if l == (Leases{}) {
		return ""
	}
	return fmt.Sprintf("%d leases taken, %d fenced writes, %d sessions ended by others", l.Takes, l.Wrote, l.Ended)
}

// Add returns the sums of l and m.
func (l Leases) Add(m Leases) Leases {
	return Leases{l.Takes + m.Takes, l.Wrote + m.Wrote, l.Ended + m.Ended}
}

// The paths from a worker that takes leases to the server. The last two are modes of the
// pooler. The last one is also the name of a database of the pooler.
const (
	direct       = "direct"
	transactions = "transaction"
	statements   = "statement"
)

// pooled reports whether a worker connects to the pooler.
func (r *round) pooled(worker int) bool {
	return r.paths[worker] == transactions || r.paths[worker] == statements
}

// beginLeases creates the tables and starts the pooler.
func (r *round) beginLeases(ctx context.Context) error {
	admin, err := r.admin(ctx)
	if err != nil {
		return err
	}
	if _, err := admin.Exec(ctx, pglock.LeaseSQL("pglock")+logTables); err != nil {
		return err
	}
	if r.poolerAt, err = pgserver.FreePort(ctx); err != nil {
		return err
	}
	return r.startPooler(ctx)
}

func (r *round) startPooler(ctx context.Context) (err error) {
	r.pooler, err = pgbouncer.Run(ctx, pgbouncer.Config{
		Server: r.server, Mode: pgbouncer.Transaction, Port: r.poolerAt,
		Databases: []string{fmt.Sprintf("%s = host=%s port=%d dbname=postgres pool_mode=statement", statements, r.server.Host(), r.server.Port())},
		// Enough sessions for all transactions that stall. After the server is restarted, the
		// pooler would wait for 15 s before it connects again.
		Settings: []string{"default_pool_size = 20", "server_login_retry = 0.1", "ignore_startup_parameters = extra_float_digits"},
	})
	return err
}

// leaseLeftovers returns what must not exist while the workers rest: leases of sessions
// that last, open transactions, and sessions of workers that have exited. The pooler keeps
// sessions after its clients are gone.
func (r *round) leaseLeftovers(ctx context.Context) ([]string, error) {
	admin, err := r.admin(ctx)
	if err != nil {
		return nil, err
	}
	alive := []string{} // nil would be NULL
	for i, p := range r.processes {
		if !r.closed {
			alive = append(alive, applicationPrefix+p.config.Name)
		}
		if r.pooled(i) {
			for n := range r.starts[i] {
				alive = append(alive, fmt.Sprintf("%sw%d-%d", applicationPrefix, i, n))
			}
		}
	}
	rows, err := admin.Query(ctx, `
		SELECT format('lease %s, token %s, of process %s, session %s, for %s',
			l.name, l.token, s.pid, s.id, s.until - clock_timestamp())
		FROM pglock.lease l JOIN pglock.session s ON s.id = l.owner
		WHERE s.until > clock_timestamp()
		UNION ALL
		SELECT format('session of %s, pid %s, %s: %s', a.application_name, a.pid, a.state, a.query)
		FROM pg_stat_activity a WHERE a.application_name LIKE $1
			AND (a.state LIKE 'idle in transaction%' OR a.application_name <> ALL ($2))`,
		applicationPrefix+"w%", alive)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// takeLeases takes each lease while the workers rest, and releases it. It returns those that
// were not free.
func (r *round) takeLeases(ctx context.Context) (left []string, err error) {
	locker, err := pglock.New(pgxlock.ConnString(r.server.ConnString("postgres")+" application_name=chaos-rest"), pglock.Leases(r.Leases))
	if err != nil {
		return nil, err
	}
	defer locker.Close()
	keys := keyNames(true)
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		o := &op{worker: "rest", id: int64(len(r.taken)), verb: "TryLock", keys: []string{name}, tokenKey: name, requested: now()}
		lock, err := locker.TryLock(ctx, keys[name])
		if err != nil {
			left = append(left, fmt.Sprintf("lease %s could not be taken: %v", name, err))
			continue
		}
		o.acquired, o.token = now(), lock.Token()
		o.releasing = now()
		err = lock.Unlock()
		o.released, o.outcome = now(), outcomeOf(err)
		if err != nil {
			left = append(left, fmt.Sprintf("lease %s could not be released: %v", name, err))
		}
		r.taken = append(r.taken, o)
	}
	return left, nil
}

// A leaseSession is a row of the table of sessions.
type leaseSession struct {
	ID  string
	PID int
}

// leaseSessions returns the sessions of the workers while they rest and hold nothing, and
// waits until each has one at most: sessions that were lost last until they expire.
func (r *round) leaseSessions(ctx context.Context) (alive []leaseSession, err error) {
	if r.Leases == 0 {
		return nil, nil
	}
	for deadline := time.Now().Add(commandTimeout); ; {
		admin, err := r.admin(ctx)
		if err != nil {
			return nil, err
		}
		rows, err := admin.Query(ctx, `SELECT id, pid FROM pglock.session WHERE until > clock_timestamp() ORDER BY pid`)
		if err != nil {
			return nil, err
		}
		if alive, err = pgx.CollectRows(rows, pgx.RowToStructByPos[leaseSession]); err != nil {
			return nil, err
		}
		pids := make(map[int]bool)
		for _, s := range alive {
			pids[s.PID] = true
		}
		if len(pids) == len(alive) {
			return alive, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("chaos: processes at rest have several sessions: %v", alive)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// readLeases reads the log of writes and the number of sessions that others ended, after all
// workers have closed their Lockers. It checks that these closed their sessions, which were
// alive before.
func (r *round) readLeases(ctx context.Context, alive []leaseSession) error {
	if r.Leases == 0 {
		return nil
	}
	admin, err := r.admin(ctx)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, s := range alive {
		ids = append(ids, s.ID)
	}
	pids := []int{}
	for _, p := range r.processes {
		pids = append(pids, p.cmd.Process.Pid)
	}
	rows, err := admin.Query(ctx, `
		SELECT format('session %s of process %s', id, pid) FROM pglock.session
		WHERE pid = ANY ($2) AND (id = ANY ($1) OR until > clock_timestamp())`, ids, pids)
	if err != nil {
		return err
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(left) > 0 {
		r.wrong = append(r.wrong, "left behind after all Lockers were closed: "+strings.Join(left, "; "))
	}
	if err := admin.QueryRow(ctx, `SELECT count(*) FROM pglock.session WHERE until = '-infinity'`).Scan(&r.sessions); err != nil {
		return err
	}
	r.log, err = r.readLog(ctx)
	return err
}
