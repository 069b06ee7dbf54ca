package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A cut simulates a pulled cable: the server and its clients cannot reach each other,
// and neither is notified. It needs a separate network namespace, so a child process
// runs it.
type cut struct {
	Heartbeat time.Duration
	Trials    int
	Holders   int // for each driver
}

// runCut runs the cut in the child.
func runCut() error {
	var c cut
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return err
	}
	rows, err := c.measure(context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(rows)
}

// measure measures both sides of the cut at once: when the holders are notified, and when
// others acquire their locks. pglock promises that the first comes before the second.
func (c cut) measure(ctx context.Context) (rows []row, err error) {
	o, err := pgserver.FromEnv()
	if err != nil {
		return nil, err
	}
	o.Database, o.TCP = "", true
	o.Settings = map[string]string{"max_connections": "300"}
	if err := setLoopback(true); err != nil {
		return nil, err
	}
	server, err := pgserver.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	notified, free := make([]row, len(drivers())), make([]row, len(drivers()))
	for i, d := range drivers() {
		notified[i] = row{Fault: cablePulled, Until: holderNotified, Driver: d.name, Heartbeat: c.Heartbeat, Bound: notifiedByHeartbeat}
		free[i] = row{Fault: cablePulled, Until: lockFree, Driver: d.name, Heartbeat: c.Heartbeat, Bound: freeByServer}
	}
	for range c.Trials {
		if err := c.once(ctx, server, notified, free); err != nil {
			return nil, err
		}
	}
	return append(notified, free...), nil
}

func (c cut) once(ctx context.Context, server *pgserver.Server, notified, free []row) error {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	type pair struct {
		driver int
		h      *holder
		w      *waiter
	}
	// Start them one after another, so that the cut hits each at a different moment
	// between two pings.
	var pairs []pair
	defer func() {
		for _, p := range pairs {
			p.w.close()
			p.h.close()
		}
	}()
	defer setLoopback(true)
	total := c.Holders * len(drivers())
	for n := range total {
		i, key := n%len(drivers()), int64(n)
		h, err := hold(ctx, drivers()[i].source(server.TCPConnString("postgres")), key, c.Heartbeat)
		if err != nil {
			return err
		}
		// The waiter uses a Unix socket, which is not cut.
		w, err := await(ctx, server.ConnString("postgres"), key)
		if err != nil {
			h.close()
			return err
		}
		pairs = append(pairs, pair{i, h, w})
		select {
		case <-time.After(c.Heartbeat / time.Duration(total)):
		case <-ctx.Done():
		}
	}

	began := time.Now()
	if err := setLoopback(false); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards told, free and errs
	var errs []error
	for _, p := range pairs {
		wg.Go(func() {
			lost, err := p.h.loss(ctx)
			granted, err2 := p.w.granted()
			mu.Lock()
			defer mu.Unlock()
			if err := errors.Join(err, err2); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", drivers()[p.driver].name, err))
				return
			}
			if !lost.Before(granted) {
				errs = append(errs, fmt.Errorf("%s: another session acquired the lock after %v, but its holder was notified after %v",
					drivers()[p.driver].name, granted.Sub(began), lost.Sub(began)))
			}
			notified[p.driver].Took = append(notified[p.driver].Took, lost.Sub(began))
			free[p.driver].Took = append(free[p.driver].Took, granted.Sub(began))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
