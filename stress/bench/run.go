package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// run measures one scenario. The contenders take turns, in a different order each round,
// so that none always follows the same one.
func run(ctx context.Context, e *env, s scenario) (_ Measured, err error) {
	m := Measured{
		Name: s.name, Group: s.group, Title: s.title, Size: s.size, What: s.what,
		Metrics: s.metrics, Ours: s.ours, Behind: s.behind,
	}
	contenders, teardown, err := s.setup(ctx, e)
	if err != nil {
		return m, fmt.Errorf("%s: %w", s.name, err)
	}
	if teardown != nil {
		defer func() {
			if e := teardown(); e != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", s.name, e))
			}
		}()
	}
	for _, c := range contenders {
		m.Rows = append(m.Rows, Row{Name: c.name, Label: c.label, Missing: c.missing, Variant: c.variant})
	}
	for round := range e.scale.Rounds {
		for i := range contenders {
			i = (i + round) % len(contenders)
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			c := contenders[i]
			if c.measure == nil {
				continue
			}
			runtime.GC() // collects the garbage of other contenders
			values, err := c.measure(ctx)
			if err != nil {
				return m, fmt.Errorf("%s: %s: %w", s.name, c.name, err)
			}
			if len(values) != len(s.metrics) {
				return m, fmt.Errorf("%s: %s: %d values for %d metrics", s.name, c.name, len(values), len(s.metrics))
			}
			m.Rows[i].Rounds = append(m.Rows[i].Rounds, values)
		}
	}
	return m, nil
}

// sample repeats do for d, at least once, and returns how long each call took.
func sample(ctx context.Context, d time.Duration, do func(context.Context) error) ([]float64, error) {
	var times []float64
	for begin := time.Now(); len(times) == 0 || time.Since(begin) < d; {
		start := time.Now()
		if err := do(ctx); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start).Seconds())
	}
	return times, nil
}
