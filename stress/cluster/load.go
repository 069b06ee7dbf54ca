//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/stress/chaos"
)

// A load is a run of workers on a cluster to which events happen.
type load struct {
	Sync     bool          // synchronous_mode
	TTL      time.Duration // of the leases
	Failover time.Duration // Patroni's ttl
	Events   []event       // one after another
	Dir      string        // for the histories; "" means a temporary one, kept only if something is wrong
	Log      io.Writer

	began time.Time
}

// The groups of workers, which differ in what they take and by which path. A group is the
// beginning of a worker's name.
const (
	leases   = "lease"
	pooled   = "pooled" // leases through PgBouncer
	advisory = "advisory"
)

// perGroup is the number of processes of each group.
const perGroup = 2

// How long the workers run before an event, so that all kinds of locks are held, and after
// the cluster is whole again; and for how long those that hold what they have do so when
// there is a primary again.
const (
	before = 5 * time.Second
	after  = 5 * time.Second
	hold   = 3 * time.Second
)

// A running is a load that runs.
type running struct {
	*load
	cluster   *Cluster
	processes []*process
	beat      *beat
	events    []happened
	wrong     []string
	crashes   int    // of PgBouncer
	timeline  string // after the last event
}

// errUnplanned means that the cluster has failed over by itself.
var errUnplanned = errors.New("the primary changed by itself, or is gone: is the machine too busy?")

// A happened is an event that happened. Times are those of a history.
type happened struct {
	event
	begin, end int64 // of the act
	back       int64 // a write succeeded that began after the act
	settled    int64 // the cluster is whole again
	rest       int64 // no lock is held
}

// run starts a cluster and workers, makes the events happen, and checks what the workers
// recorded. An error means that the run could not be completed; broken promises are in
// the outcome.
func (l load) run(ctx context.Context, p *programs) (_ *outcome, err error) {
	l.began = time.Now()
	keep := l.Dir != ""
	dir, err := os.MkdirTemp(l.Dir, "pglock-cluster-")
	if err != nil {
		return nil, err
	}
	defer func() {
		switch {
		case err == nil:
		case ctx.Err() != nil && !keep:
			err = errors.Join(err, os.RemoveAll(dir))
		default:
			err = fmt.Errorf("%w; the histories are in %s", err, dir)
		}
	}()
	l.Dir = dir
	l.logf("starting the cluster, %s", l.replication())
	r := &running{load: &l}
	if r.cluster, err = start(ctx, p, l.Sync, l.Failover, l.Log); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.cluster.Stop()) }()
	stored, err := r.all(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, r.cluster.logs())
	}
	o, err := r.check(stored)
	if err != nil {
		return nil, err
	}
	if len(o.wrong) > 0 || keep {
		return o, nil
	}
	o.dir = ""
	return o, os.RemoveAll(dir)
}

func (l *load) logf(format string, args ...any) {
	if l.Log != nil {
		fmt.Fprintf(l.Log, "%6s  %s\n", time.Since(l.began).Round(time.Second), fmt.Sprintf(format, args...))
	}
}

func (l *load) replication() string {
	if l.Sync {
		return "synchronous"
	}
	return "asynchronous"
}

// all runs the workers and the events, and returns what is stored at the end.
func (r *running) all(ctx context.Context) (_ *stored, err error) {
	if err := r.create(ctx); err != nil {
		return nil, err
	}
	r.beat = startBeat(r.cluster.dsn())
	defer r.beat.stop()
	stopKeeping := r.cluster.keepPgBouncer()
	defer func() { r.crashes = stopKeeping() }()
	defer func() { err = errors.Join(err, r.end()) }()
	for i, group := range slices.Repeat([]string{leases, pooled, advisory}, perGroup) {
		c := workerConfig{Name: fmt.Sprintf("%s-%d", group, i), Dir: r.Dir, DSN: r.cluster.dsn(), Seed: uint64(i)}
		if group != advisory {
			c.TTL = r.TTL
		}
		if group == pooled {
			c.DSN = r.cluster.pooledDSN()
		}
		p, err := startWorker(c)
		if err != nil {
			return nil, err
		}
		r.processes = append(r.processes, p)
	}
	for i, e := range r.Events {
		r.logf("%d of %d: %s", i+1, len(r.Events), e.name)
		if err := r.happen(ctx, e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return r.readStored(ctx)
}

// create creates the tables.
func (r *running) create(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, r.cluster.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{pglock.LeaseSQL("pglock"), tables} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	for _, key := range keys() {
		for _, way := range ways() {
			if _, err := conn.Exec(ctx, "INSERT INTO guarded (key, way) VALUES ($1, $2)", key, string(way)); err != nil {
				return err
			}
		}
	}
	return nil
}

// keys returns the keys of the leases.
func keys() []string {
	w := worker{workerConfig: workerConfig{TTL: 1}}
	keys := []string{w.key(longKey)}
	for n := range shortKeys {
		keys = append(keys, w.key(shortKey(n)))
	}
	return keys
}

// happen makes an event happen while the workers run, and waits until the cluster is whole
// again. Then the workers rest, and Postgres must have no lock left.
func (r *running) happen(ctx context.Context, e event) error {
	if err := r.sendAll("go"); err != nil {
		return err
	}
	if err := sleep(ctx, before); err != nil {
		return err
	}
	primary := r.cluster.leader(ctx)
	old, err := r.ask(ctx)
	if err != nil || primary == nil || r.timeline != "" && old.timeline != r.timeline {
		return errors.Join(errUnplanned, err)
	}
	h := happened{event: e, begin: chaos.Now()}
	if err := e.act(ctx, r, primary); err != nil {
		return err
	}
	h.end = chaos.Now()
	r.logf("  happened to %s", primary.name)
	// The sessions of a killed server may go on for a moment.
	if err := r.cluster.await(ctx, "a primary", func(ctx context.Context) (bool, error) {
		begun := chaos.Now()
		now, err := r.ask(ctx)
		if err != nil || now.started.Equal(old.started) {
			return false, err
		}
		return true, r.cluster.await(ctx, "a write", func(context.Context) (bool, error) { return r.beat.since(begun), nil })
	}); err != nil {
		return err
	}
	h.back = chaos.Now()
	if err := sleep(ctx, hold); err != nil {
		return err
	}
	if err := r.sendAll("go"); err != nil {
		return err
	}
	if e.down {
		if err := primary.process.Restart(); err != nil {
			return err
		}
	}
	r.logf("  there is a primary after %v", time.Duration(h.back-h.begin).Round(100*time.Millisecond))
	if err := r.cluster.awaitWhole(ctx); err != nil {
		return err
	}
	h.settled = chaos.Now()
	r.logf("  the cluster is whole after %v", time.Duration(h.settled-h.begin).Round(100*time.Millisecond))
	if err := sleep(ctx, after); err != nil {
		return err
	}
	if err := r.sendAll("rest"); err != nil {
		return err
	}
	// The server releases the last locks a moment after their holders.
	left := 1
	for tries := 0; left > 0 && tries < 100; tries++ {
		now, err := r.ask(ctx)
		if err != nil {
			return err
		}
		r.timeline, left = now.timeline, now.locks
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if left > 0 {
		r.wrong = append(r.wrong, fmt.Sprintf("after %s, %d advisory locks were left", e.name, left))
	}
	if err := r.cluster.ended(); err != nil {
		return err
	}
	h.rest = chaos.Now()
	r.events = append(r.events, h)
	return nil
}

// A state is what a primary says about itself.
type state struct {
	started  time.Time
	timeline string // each failover increases it
	locks    int    // how many advisory locks it has
}

// ask asks the primary, through HAProxy. It is an error if the server is a standby.
func (r *running) ask(ctx context.Context) (s state, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.cluster.dsn())
	if err != nil {
		return s, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT pg_postmaster_start_time(), left(pg_walfile_name(pg_current_wal_lsn()), 8),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')`).Scan(&s.started, &s.timeline, &s.locks)
	return s, err
}

// sendAll sends a command to all workers at once.
func (r *running) sendAll(word string) error {
	errs := make([]error, len(r.processes))
	var wg sync.WaitGroup
	for i, p := range r.processes {
		wg.Go(func() { errs[i] = p.send(word) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// end ends the workers.
func (r *running) end() error {
	errs := make([]error, len(r.processes))
	var wg sync.WaitGroup
	for i, p := range r.processes {
		wg.Go(func() { errs[i] = p.end() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// A storedWrite is a row of the log of writes.
type storedWrite struct {
	Key    string
	Way    way
	Token  int64
	Worker string
	Number int64
}

// A stored is what the database has at the end.
type stored struct {
	writes  []storedWrite // in their order
	version string        // of Postgres
}

func (r *running) readStored(ctx context.Context) (*stored, error) {
	conn, err := pgx.Connect(ctx, r.cluster.dsn())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s := new(stored)
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&s.version); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, "SELECT key, way, token, worker, number FROM written ORDER BY seq")
	if err != nil {
		return nil, err
	}
	s.writes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[storedWrite])
	return s, err
}
