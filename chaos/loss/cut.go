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

// cut is a cable that is pulled: between the server and its clients nothing gets
// through any more, and nobody says so. It needs a network of its own, so it is done
// by a child that has one.
type cut struct {
	Beat    time.Duration
	Trials  int
	Holders int // of each driver
}

// cutHere is the child.
func cutHere() error {
	var c cut
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return err
	}
	rows, err := c.here(context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(rows)
}

// here measures both sides of the cut at once: until the holders are told, and until
// their locks are others'. The order of the two is the promise that matters.
func (c cut) here(ctx context.Context) (rows []row, err error) {
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
	told, free := make([]row, len(drivers())), make([]row, len(drivers()))
	for i, d := range drivers() {
		told[i] = row{Fault: cablePulled, Until: holderTold, Driver: d.name, Beat: c.Beat, Bound: toldByBeat}
		free[i] = row{Fault: cablePulled, Until: lockFree, Driver: d.name, Beat: c.Beat, Bound: freeByServer}
	}
	for range c.Trials {
		if err := c.once(ctx, server, told, free); err != nil {
			return nil, err
		}
	}
	return append(told, free...), nil
}

func (c cut) once(ctx context.Context, server *pgserver.Server, told, free []row) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type pair struct {
		driver int
		h      *holder
		w      *waiter
	}
	// They begin one after the other, so that the cut finds each at another moment
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
		h, err := hold(ctx, drivers()[i].source(server.TCPConnString("postgres")), key, c.Beat)
		if err != nil {
			return err
		}
		// The waiter stays where nothing is cut: on a unix socket.
		w, err := await(ctx, server.ConnString("postgres"), key)
		if err != nil {
			h.close()
			return err
		}
		pairs = append(pairs, pair{i, h, w})
		select {
		case <-time.After(c.Beat / time.Duration(total)):
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
				errs = append(errs, fmt.Errorf("%s: another had the lock after %v, of which the holder was told after %v",
					drivers()[p.driver].name, granted.Sub(began), lost.Sub(began)))
			}
			told[p.driver].Took = append(told[p.driver].Took, lost.Sub(began))
			free[p.driver].Took = append(free[p.driver].Took, granted.Sub(began))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
