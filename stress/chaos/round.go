//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
)

// applicationPrefix is the prefix of the application_name of all workers.
const applicationPrefix = "chaos-"

// A Round runs some workers against a server, and causes faults. The program that runs
// it must call [WorkerMain].
type Round struct {
	// Seed determines every random choice: the configuration of the workers, what they
	// do and, with Random, the order of faults. It does not determine the timing, so the
	// same seed may need several tries to fail in the same way.
	Seed uint64

	// Random is the number of random faults; 0 means every kind once.
	Random int

	// Leases is the TTL of leases, which the workers take directly and through a PgBouncer;
	// 0 means advisory locks.
	Leases time.Duration

	// Dir is the directory for the history, which is removed if nothing is wrong.
	Dir string

	// Log receives progress messages, unless it is nil.
	Log io.Writer

	broken broken        // how one of the workers is broken, or ""
	kinds  []string      // the kinds of faults to use; nil means all
	notice time.Duration // limit for noticing a loss; 0 means the default
	linger time.Duration // limit for leftovers to disappear; 0 means the default
}

// A Result is the result of a [Round].
type Result struct {
	Faults []Row    // a row for each kind of fault
	Wrong  []string // the broken promises
	Leases Leases   // what happened with leases
	Dir    string   // the directory with the history, if something is wrong
}

// The configuration of the workers.
const (
	workers      = 4
	goroutines   = 6
	heartbeat    = time.Second
	brokenWorker = 1 // the index of the broken worker, if there is one
	// notice is how long a loss may go unnoticed: a heartbeat, and more on a busy
	// machine.
	notice = heartbeat + 5*time.Second
)

// A round is a running Round.
type round struct {
	Round
	dir       string
	heartbeat time.Duration
	server    *pgserver.Server
	pooler    *pgbouncer.Bouncer // if the workers take leases
	poolerAt  int                // its port
	proxies   []*Proxy
	processes []*process
	adapters  []string
	paths     []string // of the workers
	starts    []int    // how many processes each worker has had
	lives     []life   // of worker processes that have ended
	rests     []int64
	resting   bool
	closed    bool      // all workers have closed their Lockers
	conn      *pgx.Conn // used by admin
	taken     []*op     // at rests
	log       []logged  // the fenced writes
	sessions  int       // of leases, that others ended
	wrong     []string
}

// A phase is the time in which one kind of fault happened.
type phase struct {
	name       string
	begin, end int64
	left       int // what was left behind
}

// Run runs the round. An error means that the round could not be completed, which says
// nothing about the locks; broken promises are in the Result.
func (o Round) Run(ctx context.Context) (_ *Result, err error) {
	n := &nemesis{round: &round{Round: o, heartbeat: heartbeat}}
	if o.Leases != 0 {
		n.heartbeat = o.Leases
	}
	r := n.round
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp(o.Dir, fmt.Sprintf("seed-%d-", o.Seed)); err != nil {
		return nil, err
	}
	ended := false
	defer func() {
		if !ended {
			err = errors.Join(err, r.end())
		}
	}()
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	phases, err := n.runFaults(ctx)
	if err != nil {
		return nil, err
	}
	// The processes still run, but have closed their Lockers: otherwise their exit would
	// hide what they left open.
	alive, err := r.leaseSessions(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.sendAll("close"); err != nil {
		r.wrong = append(r.wrong, err.Error())
	}
	r.closed = true
	if err := r.readLeases(ctx, alive); err != nil {
		return nil, err
	}
	left, err := r.awaitNoLeftovers(ctx)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		r.wrong = append(r.wrong, "left behind after all Lockers were closed: "+strings.Join(left, "; "))
	}
	ended = true
	if err := r.end(); err != nil {
		return nil, err
	}
	return n.evaluate(phases)
}

// begin starts the server, the proxies and the workers.
func (r *round) begin(ctx context.Context) error {
	options, err := pgserver.FromEnv()
	if err != nil {
		return err
	}
	options.Database = "" // start a server that can be killed
	options.TCP = true
	options.Log = r.Log
	options.Settings = map[string]string{
		"max_connections": "80", "max_locks_per_transaction": "10", "max_prepared_transactions": "0",
	}
	if r.server, err = pgserver.Start(ctx, options); err != nil {
		return err
	}
	r.paths = make([]string, workers)
	if r.Leases != 0 {
		if err := r.beginLeases(ctx); err != nil {
			return err
		}
		r.paths = []string{direct, transactions, statements, direct}
	}
	choose := rand.New(rand.NewPCG(r.Seed, 1))
	names := adapterNames()
	// Use each driver at least once.
	r.adapters = slices.Clone(names[:workers])
	for i := range r.adapters {
		if choose.IntN(2) == 0 {
			r.adapters[i] = names[choose.IntN(len(names))]
		}
	}
	switch {
	case r.Random == 0 && r.Leases != 0:
		r.adapters = []string{names[0], names[1], names[3], names[6]}
	case r.Random == 0:
		r.adapters = []string{names[4], names[1], names[2], names[6]}
	case r.Leases != 0:
		choose.Shuffle(workers, func(i, j int) { r.paths[i], r.paths[j] = r.paths[j], r.paths[i] })
	}
	r.starts = make([]int, workers)
	r.processes = make([]*process, workers)
	r.resting = true
	for i := range workers {
		port := r.server.Port()
		if r.pooled(i) {
			port = r.poolerAt
		}
		proxy, err := NewProxy(fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		r.proxies = append(r.proxies, proxy)
		if err := r.start(i); err != nil {
			return err
		}
	}
	return nil
}

// start starts the next process of a worker.
func (r *round) start(i int) error {
	choose := rand.New(rand.NewPCG(r.Seed, uint64(100+i)))
	c := workerConfig{
		Name:       fmt.Sprintf("w%d-%d", i, r.starts[i]),
		Dir:        r.dir,
		Seed:       r.Seed + uint64(1000*i+r.starts[i]),
		Adapter:    r.adapters[i],
		Goroutines: goroutines,
		Sessions:   []int{8, 3, 1, 4}[(i+choose.IntN(2))%4],
		Heartbeat:  r.heartbeat,
		HandOver:   []time.Duration{maxHandOver, maxHandOver, 0, 5 * time.Millisecond}[choose.IntN(4)],
		Leases:     r.Leases,
		Pooled:     r.pooled(i),
	}
	if i == brokenWorker || r.broken == weakened {
		c.Broken = r.broken
	}
	c.TxDSN = r.proxies[i].ConnString(r.server.TCPConnString("postgres")) + " application_name=" + applicationPrefix + c.Name
	c.DSN = c.TxDSN
	if r.paths[i] == statements {
		c.DSN += " dbname=" + statements // there are no transactions there
	}
	r.starts[i]++
	p, err := startWorker(c)
	if err != nil {
		return err
	}
	r.processes[i] = p
	if r.resting {
		return nil
	}
	return p.send("go")
}

// runFaults causes the faults, with a rest from time to time.
func (n *nemesis) runFaults(ctx context.Context) ([]phase, error) {
	plan := rand.New(rand.NewPCG(n.Seed, 2))
	all := slices.DeleteFunc(kinds(), func(k kind) bool { return k.of != "" && (k.of == ofLeases) != (n.Leases != 0) })
	if n.Round.kinds != nil {
		all = slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(n.Round.kinds, k.name) })
	}
	steps := all
	if n.Random > 0 {
		steps = nil
		for range n.Random {
			steps = append(steps, all[plan.IntN(len(all))])
		}
	}
	if err := n.resume(); err != nil {
		return nil, err
	}
	var phases []phase
	since := 0 // the first phase since the last rest
	for i, k := range steps {
		rest := n.Random == 0 || plan.IntN(2) == 0 || i == len(steps)-1
		r := rand.New(rand.NewPCG(n.Seed, uint64(10_000+i)))
		n.logf("%s", k.name)
		p := phase{name: k.name, begin: now()}
		if err := k.act(n, ctx, r); err != nil {
			return nil, fmt.Errorf("chaos: %s: %w", k.name, err)
		}
		// Let operations in progress end.
		if err := sleep(ctx, between(r, 100*time.Millisecond, 300*time.Millisecond)); err != nil {
			return nil, err
		}
		p.end = now()
		phases = append(phases, p)
		n.logf("  ... %v", time.Duration(p.end-p.begin).Round(time.Millisecond))
		if !rest {
			continue
		}
		left, err := n.rest(ctx)
		if err != nil {
			return nil, err
		}
		n.logf("  ... %v", time.Duration(now()-p.end).Round(time.Millisecond))
		for j := since; j < len(phases); j++ {
			phases[j].left += len(left)
		}
		for _, what := range left {
			n.wrong = append(n.wrong, fmt.Sprintf("left behind after %q: %s", k.name, what))
		}
		since = len(phases)
		if i < len(steps)-1 {
			if err := n.resume(); err != nil {
				return nil, err
			}
		}
	}
	return phases, nil
}

func (r *round) logf(format string, args ...any) {
	if r.Log != nil {
		fmt.Fprintf(r.Log, "  "+format+"\n", args...)
	}
}

// sendAll sends a command to all workers at once.
func (r *round) sendAll(word string) error {
	errs := make([]error, len(r.processes))
	var wg sync.WaitGroup
	for i, p := range r.processes {
		wg.Go(func() { errs[i] = p.send(word) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *round) resume() error {
	r.resting = false
	return r.sendAll("go")
}

// rest makes the workers release everything, and returns what Postgres has left.
func (r *round) rest(ctx context.Context) (left []string, err error) {
	r.resting = true
	if err := r.sendAll("rest"); err != nil {
		return nil, err
	}
	left, err = r.awaitNoLeftovers(ctx)
	if err == nil && r.Leases != 0 {
		var more []string
		more, err = r.takeLeases(ctx)
		left = append(left, more...)
	}
	r.rests = append(r.rests, now())
	return left, err
}

// awaitNoLeftovers waits for leftovers to disappear, and returns those that do not.
func (r *round) awaitNoLeftovers(ctx context.Context) (left []string, err error) {
	linger := r.linger
	if linger == 0 {
		linger = commandTimeout / 2
	}
	deadline := time.Now().Add(linger)
	for {
		if left, err = r.leftovers(ctx); err != nil || len(left) == 0 || time.Now().After(deadline) {
			return left, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// leftovers returns what must not exist in Postgres while the workers rest: locks, open
// transactions, and sessions of workers that have exited or closed their Lockers.
func (r *round) leftovers(ctx context.Context) ([]string, error) {
	admin, err := r.admin(ctx)
	if err != nil {
		return nil, err
	}
	if r.Leases != 0 {
		return r.leaseLeftovers(ctx)
	}
	alive := []string{} // nil would be NULL
	for _, p := range r.processes {
		if !r.closed {
			alive = append(alive, applicationPrefix+p.config.Name)
		}
	}
	rows, err := admin.Query(ctx, `
		SELECT format('lock %s/%s/%s %s granted=%s of %s, pid %s',
			l.classid, l.objid, l.objsubid, l.mode, l.granted, coalesce(a.application_name, 'nobody'), l.pid)
		FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'
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

// admin returns a connection that bypasses the proxies.
func (r *round) admin(ctx context.Context) (*pgx.Conn, error) {
	if r.conn != nil && !r.conn.IsClosed() && r.conn.Ping(ctx) == nil {
		return r.conn, nil
	}
	conn, err := pgx.Connect(ctx, r.server.ConnString("postgres")+" application_name=chaos-nemesis")
	if err != nil {
		return nil, err
	}
	if r.conn != nil {
		r.conn.Close(ctx)
	}
	r.conn = conn
	return conn, nil
}

// end stops everything that begin and start started.
func (r *round) end() error {
	var errs []error
	for i, p := range r.processes {
		if p == nil {
			continue
		}
		if err := p.end(); err != nil {
			r.wrong = append(r.wrong, err.Error())
		}
		if p.killed == 0 {
			r.lives = append(r.lives, life{p.config.Name, 0})
		}
		r.processes[i] = nil
	}
	if r.conn != nil {
		errs = append(errs, r.conn.Close(context.Background()))
	}
	for _, proxy := range r.proxies {
		proxy.Close()
	}
	if r.pooler != nil {
		errs = append(errs, r.pooler.Close())
	}
	if r.server != nil {
		errs = append(errs, r.server.Stop())
	}
	return errors.Join(errs...)
}

// evaluate reads and checks the history, and counts the operations.
func (n *nemesis) evaluate(phases []phase) (*Result, error) {
	h, err := readHistory(n.dir, n.lives)
	if err != nil {
		return nil, err
	}
	n.faults = append(n.faults, unexplained(h.sleeps, n.faults)...)
	ops := append(h.ops, n.taken...)
	// Keep the faults next to the history.
	faults, err := json.MarshalIndent(n.faults, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "faults.json"), faults, 0o644)
	}
	if err != nil {
		return nil, err
	}
	rec := record{ops: ops, faults: n.faults, rests: n.rests, notice: n.Round.notice, ttl: n.Leases, log: n.log}
	if rec.notice == 0 {
		rec.notice = notice
	}
	v := rec.check(n.dir)
	result := &Result{
		Faults: count(phases, n.faults, ops, v, n.lives, n.adapterOf),
		Wrong:  slices.Concat(n.wrong, h.wrong, v.wrong),
		Dir:    n.dir,
		Leases: rec.leases(n.sessions),
	}
	if len(result.Wrong) == 0 {
		result.Dir = ""
		return result, os.RemoveAll(n.dir)
	}
	return result, nil
}

// adapterOf returns the adapter of a worker.
func (r *round) adapterOf(worker string) string {
	for i, adapter := range r.adapters {
		if strings.HasPrefix(worker, fmt.Sprintf("w%d-", i)) {
			return adapter
		}
	}
	return ""
}
